"""The stages of a study on raw files: the data tools' commands on its files, with its recipes."""

import shutil
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

from frontload.data_tools.corpus.listing import check_digests, listed_files, write_listing
from frontload.data_tools.curation.inputs import check_inputs
from frontload.data_tools.curation.run import CurateRequest
from frontload.data_tools.curation.run import curate as curate_files
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.prompts.crossthink import CrossThinkRequest, convert_crossthink
from frontload.data_tools.prompts.length import load_limit
from frontload.data_tools.raw.manifest import read_digests
from frontload.recipes.artifact import (
    HELDOUT,
    ITEMS,
    PROMPTS,
    Inputs,
    Workspace,
    corpus_heldout,
    corpus_items,
    curated_sets,
    tokenizer_file,
    train_prompts,
    validation_prompts,
    write_json,
)
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.curation import Curation
from frontload.recipes.schema import CrossThink, GivenTokenizer, RawFiles

CHAT_TEMPLATE = ("chat_template.jinja", "tokenizer_config.json")
"""What may lie beside a tokenizer.json and says how a conversation is written."""


def import_raw(recipe: RawFiles, inputs: Inputs, work: Workspace) -> None:
    """Lists the raw files of each use with their sizes, and copies the evaluation items."""
    write_listing(work.path, recipe.groups, revision=recipe.revision)
    for group, target in ((ITEMS, corpus_items), (HELDOUT, corpus_heldout)):
        shutil.copyfile(listed_files(work.path, group)[0].path, target(work.path))


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
    curation = in_key_order(replace(recipe, tokenizer=str(inputs["tokenizer"])))
    for source in recipe.sources:
        listed_files(inputs["raw"], f"source/{source}")
    read = check_inputs(Loaded(value=curation, places={"": "raw.curation"}))
    for source in recipe.sources:
        digests = [file.sha256 for file in read.files if file.source == source]
        check_digests(inputs["raw"], f"source/{source}", digests, kind="sha256")
    request = CurateRequest(
        recipe=curation,
        inputs=read,
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
            name: set(recipe.sets[name].members) & (recipe.sets.keys() - recipe.sources.keys())
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


def write_crossthink(recipe: CrossThink, inputs: Inputs, work: Workspace) -> None:
    """Writes the prompts of reinforcement learning, as `frontload data crossthink` does."""
    files = read_digests(listed_files(inputs["raw"], PROMPTS))
    check_digests(inputs["raw"], PROMPTS, [file.sha256 for file in files], kind="sha256")
    general, math_file = (file.path for file in files)
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
