"""The stages of a study on raw files: the data tools' commands on its files, with its recipes."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from frontload.data_tools.curation.inputs import check_inputs
from frontload.data_tools.curation.run import CurateRequest
from frontload.data_tools.curation.run import curate as curate_files
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.packing.build import PackRequest, build_pack
from frontload.data_tools.preprocess.request import PreprocessRequest, manifest_file
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.prompts.crossthink import CrossThinkRequest, convert_crossthink
from frontload.data_tools.prompts.length import load_limit
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.recipes.artifact import (
    HELDOUT,
    ITEMS,
    PROMPTS,
    Inputs,
    Workspace,
    corpus_heldout,
    corpus_items,
    curated_sets,
    index_prefix,
    raw_listing,
    tokenizer_file,
    train_prompts,
    validation_prompts,
    write_json,
)
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.curation import Curation
from frontload.recipes.schema import CrossThink, GivenTokenizer, Index, Pack, RawFiles

CHAT_TEMPLATE = ("chat_template.jinja", "tokenizer_config.json")
"""What may lie beside a tokenizer.json and says how a conversation is written."""


def import_raw(recipe: RawFiles, inputs: Inputs, work: Workspace) -> None:
    """Lists the raw files of each use with their sizes, and copies the evaluation items."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for group, names in recipe.groups.items():
        files = expand_inputs(names, asked_by=f"raw, {group}")
        groups[group] = [
            {"name": file.as_posix(), "size_bytes": file.stat().st_size} for file in files
        ]
    for group, target in ((ITEMS, corpus_items), (HELDOUT, corpus_heldout)):
        shutil.copyfile(groups[group][0]["name"], target(work.path))
    write_json(raw_listing(work.path), {"format": 1, "groups": groups})


def import_tokenizer(recipe: GivenTokenizer, inputs: Inputs, work: Workspace) -> None:
    """Copies a tokenizer and its chat template.

    Raises: RecipeError if there is none.
    """
    given = Path(recipe.file)
    file = tokenizer_file(given) if given.is_dir() else given
    if not file.is_file():
        raise RecipeError(
            f"raw.tokenizer {recipe.file}",
            found=f"no file {file}",
            rule="it is a tokenizer.json, or a folder that holds one",
            do="correct the path, seen from the folder where the command is typed",
        )
    shutil.copyfile(file, tokenizer_file(work.path))
    for name in CHAT_TEMPLATE:
        if (file.parent / name).is_file():
            shutil.copyfile(file.parent / name, work.path / name)


def curate_sets(recipe: Curation, inputs: Inputs, work: Workspace) -> None:
    """Makes the sets of a curation, as `frontload data curate` does."""
    for source in recipe.sources:
        _listed_files(inputs["raw"], f"source/{source}")
    curation = in_key_order(replace(recipe, tokenizer=str(inputs["tokenizer"])))
    request = CurateRequest(
        recipe=curation,
        inputs=check_inputs(Loaded(value=curation, places={"": "raw.curation"})),
        out=work.scratch / "sets",
        workers=_workers(work),
        rejects=None,
    )
    if not request.out.exists():
        curate_files(request, tell=lambda line: print(line, flush=True))
    manifest = read_json(request.out / "manifest.json")
    manifest["recipe"]["tokenizer"] = ""  # an input of this stage, wherever the store lies
    manifest.pop("key", None)  # the stage's key is its identity
    write_json(request.out / "manifest.json", manifest)
    _publish(request.out, curated_sets(work.path))


def in_key_order(recipe: Curation) -> Curation:
    """The curation in an order that its key implies: a key does not see the order of mappings.

    Sources by name; a set after its members, by name where that leaves a choice.
    """
    graph = TopologicalSorter(
        {
            name: {member for member in recipe.sets[name].members if member in recipe.sets}
            for name in sorted(recipe.sets)
        }
    )
    graph.prepare()
    order: list[str] = []
    while graph.is_active():
        ready = sorted(graph.get_ready())
        order += ready
        graph.done(*ready)
    return replace(
        recipe,
        sources={name: recipe.sources[name] for name in sorted(recipe.sources)},
        sets={name: recipe.sets[name] for name in order},
        overlaps={name: recipe.overlaps[name] for name in sorted(recipe.overlaps)},
    )


def index_raw(recipe: Index, inputs: Inputs, work: Workspace) -> None:
    """Indexes base text, or the text copy of a curated set, as `frontload data preprocess` does."""
    sets = curated_sets(inputs["documents"])
    if sets.is_dir():
        files = _set_files(sets, f"{recipe.source}.text")
    else:
        files = _listed_files(inputs["documents"], recipe.source)
    prefix = index_prefix(work.scratch / "index")
    prefix.parent.mkdir(exist_ok=True)
    request = PreprocessRequest(
        inputs=files,
        output_prefix=prefix,
        tokenizer=inputs["tokenizer"],
        json_key=recipe.text_field,
        append_eod=recipe.append_eod,
        workers=_workers(work),
    )
    manifest = preprocess(request)
    manifest["made_by"]["plan"] = work.key  # the tool's own holds the folders of its inputs
    write_json(manifest_file(prefix), manifest)
    counts = ("num_documents", "num_tokens", "dtype", "append_eod", "num_rows", "dropped")
    for file in sorted(prefix.parent.iterdir()):
        file.rename(work.path / file.name)
    write_json(work.path / "index.json", {"format": 1, **{name: manifest[name] for name in counts}})


def pack_raw(recipe: Pack, inputs: Inputs, work: Workspace) -> None:
    """Packs the conversations of a curated set, as `frontload data pack` does, for one budget."""
    out = work.scratch / "pack"
    request = PackRequest(
        inputs=tuple(map(str, _set_files(curated_sets(inputs["documents"]), recipe.source))),
        tokenizer=inputs["tokenizer"],
        template=None,
        output=out,
        sequence_tokens=recipe.sequence_tokens,
        over_long=recipe.over_long,
        source_field="source",
        epochs=1,
        seed=recipe.seed,
        workers=_workers(work),
        samples=recipe.tokens // recipe.sequence_tokens,
    )
    build_pack(request)
    for file in sorted(out.iterdir()):
        file.rename(work.path / file.name)


def write_crossthink(recipe: CrossThink, inputs: Inputs, work: Workspace) -> None:
    """Writes the prompts of reinforcement learning, as `frontload data crossthink` does."""
    general, math_file = _listed_files(inputs["raw"], PROMPTS)
    request = CrossThinkRequest(
        qa=general,
        math=math_file,
        out=train_prompts(work.path),
        limit=load_limit(inputs["tokenizer"], recipe.prompt_tokens),
        general_to_math=recipe.general_to_math,
        seed=recipe.seed,
        validation_rows=recipe.validation_prompts,
        validation_out=validation_prompts(work.path),
    )
    convert_crossthink(request)


def _workers(work: Workspace) -> int:
    """Processes of a data tool: the bytes do not depend on them."""
    return max(1, work.placement.workers)


def _publish(made: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)


def _set_files(sets: Path, name: str) -> list[Path]:
    """The files of a set, one or several.

    Raises: ArtifactError if the curation has no such set.
    """
    found = [*sets.glob(f"{name}.jsonl"), *sorted(sets.glob(f"{name}-[0-9]*.jsonl"))]
    if not found:
        raise ArtifactError(
            f"curated sets {sets}",
            found=f"no {name}.jsonl",
            rule="the curation makes every set that a study reads",
            do="delete the artifact by its key and run the study again",
        )
    return found


def _listed_files(raw: Path, group: str) -> Sequence[Path]:
    """The raw files of a use, which must have the sizes that were listed.

    Raises: ArtifactError for a file that is gone or changed.
    """
    files: list[Path] = []
    for entry in read_json(raw_listing(raw))["groups"][group]:
        file = Path(entry["name"])
        size = file.stat().st_size if file.is_file() else -1
        if size != entry["size_bytes"]:
            raise ArtifactError(
                f"raw file {file}",
                found="is gone" if size < 0 else f"has {size:,} bytes",
                rule=f"it was listed with {entry['size_bytes']:,} bytes, and stays as it was",
                do="put it back, or write another raw.revision to make everything from it anew",
            )
        files.append(file)
    return files
