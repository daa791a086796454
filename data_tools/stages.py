"""The stage functions of the data room: wiring from recipe and inputs to files."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.blending.ledger import plan_readings
from frontload.data_tools.blending.phases import PhaseFolder, write_phases
from frontload.data_tools.blending.source import read_source
from frontload.data_tools.blending.windows import Reading
from frontload.data_tools.corpus.listing import check_read, set_files, text_files
from frontload.data_tools.corpus.mix import make_mix, mix_file
from frontload.data_tools.corpus.weights import write_weighted
from frontload.data_tools.disk.files import read_json, replacing
from frontload.data_tools.disk.indexed import IndexedReader, bin_file, idx_file, manifest_file
from frontload.data_tools.disk.publish import new_folder
from frontload.data_tools.packing.build import build_pack
from frontload.data_tools.packing.plan import PackRequest
from frontload.data_tools.packing.rows import FILES as PACK_FILES
from frontload.data_tools.packing.steps import StepBudget
from frontload.data_tools.preprocess.request import PreprocessRequest
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.raw.bad_rate import MAX_BAD_RATE
from frontload.data_tools.text.document import (
    read_documents,
    read_objects,
    write_rows,
)
from frontload.data_tools.text.tokenizer import SPECIAL_TOKENS, UNKNOWN, TextTokenizer
from frontload.data_tools.text.train_tokenizer import train
from frontload.recipes.artifact import (
    CORPUS_SETS,
    PACK_STEPS,
    Inputs,
    Workspace,
    corpus_heldout,
    corpus_items,
    corpus_set,
    documents_file,
    index_prefix,
    prompts_file,
    tokenizer_file,
    write_json,
)
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.training import LOSS, READ, ROWS
from frontload.recipes.schema import (
    Blend,
    Index,
    Mix,
    OwnData,
    Pack,
    RlPrompts,
    Synthesis,
    Tokenizer,
)

BATCH_ROWS = 2048
CHUNK_TOKENS = 1 << 24  # looked at at a time
BUFFER_CONVERSATIONS = 4096  # ours: padding under 1% at a row of 4 mean lengths; bounds memory
PACKED = "pack.json"
INDEX_FACTS = ("num_documents", "num_tokens", "dtype", "vocab_size", "append_eod")


def synthesize(recipe: Synthesis, inputs: Inputs, work: Workspace) -> None:
    """Writes the procedural corpus and its held-out items."""
    from frontload.data_tools.synthetic.corpus import write_corpus

    write_corpus(recipe, work.path)


def write_rl_prompts(recipe: RlPrompts, inputs: Inputs, work: Workspace) -> None:
    """Draws the prompts of reinforcement learning and counts those that training text holds too."""
    from frontload.data_tools.synthetic.rl_prompts import prompt_counts, write_prompts

    corpus = inputs["corpus"]
    prompts = list(write_prompts(recipe))
    trained = (row for name in ("ldq", "shq") for row in read_documents(corpus_set(corpus, name)))
    write_rows(prompts_file(work.path), prompts)
    write_json(work.path / "counts.json", prompt_counts(prompts, trained))


def import_own(recipe: OwnData, inputs: Inputs, work: Workspace) -> None:
    """Reads a user's files into the form of the corpus."""
    from frontload.data_tools.corpus.own_data import write_own_corpus

    write_own_corpus(recipe, work.path)


def train_tokenizer(recipe: Tokenizer, inputs: Inputs, work: Workspace) -> None:
    """Trains the tokenizer on the corpus's training sets and counts unknown words of its items."""
    corpus = inputs["corpus"]
    files = [corpus_set(corpus, name) for name in CORPUS_SETS if corpus_set(corpus, name).is_file()]
    if not files:
        raise RecipeError(
            f"tokenizer from corpus {corpus.name}",
            found="none of its training sets",
            rule=f"a corpus holds one or more of {', '.join(CORPUS_SETS)}",
            do="run the corpus stage again",
        )
    trained = train(recipe, files)
    counts: dict[str, Any] = {
        "format": 1,
        "kind": recipe.kind,
        "vocab_size": trained.tokenizer.vocab_size,
        "special_tokens": list(SPECIAL_TOKENS),
        "distinct_words": trained.distinct_words,
        "texts": trained.texts,
        "unknown": {
            file.stem: _count_unknown(trained.tokenizer, file)
            for file in (corpus_items(corpus), corpus_heldout(corpus))
            if file.is_file()
        },
    }
    write_json(work.path / "counts.json", counts)
    with replacing(tokenizer_file(work.path), "w") as stream:
        stream.write(trained.tokenizer.to_json())


def _count_unknown(tokenizer: TextTokenizer, file: Path) -> dict[str, int]:
    """Texts, tokens and unknown tokens in the evaluation texts of a file."""
    counts = {"texts": 0, "tokens": 0, "unknown_tokens": 0}
    rows = (row for _, row in read_objects(file))
    for chunk in batched(rows, BATCH_ROWS):
        texts = [text for row in chunk for text in _texts_inside(row)]
        for ids in tokenizer.encode_batch(texts):
            counts["texts"] += 1
            counts["tokens"] += len(ids)
            counts["unknown_tokens"] += ids.count(UNKNOWN)
    return counts


def _texts_inside(value: Any) -> Iterator[str]:
    read_fields = ("question", "trace", "answer", "context", "options", "exemplars")
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts_inside(part)
    elif isinstance(value, dict):
        for name in read_fields:
            yield from _texts_inside(value.get(name))


def curate(recipe: Mix, inputs: Inputs, work: Workspace) -> None:
    """Writes one named mix of corpus sets and its composition."""
    sets, counts = work.scratch / "sets", work.path / "composition.json"
    weighted = work.scratch / "weighted.jsonl"
    if not counts.is_file():  # written when the rows are whole, so a killed stage only moves them
        composition = make_mix(recipe, inputs["corpus"], tokenizer=inputs["tokenizer"], folder=sets)
        if recipe.row_weights is not None:
            composition["row_weights"] = write_weighted(
                mix_file(sets),
                weighted,
                row_weights=recipe.row_weights,
                tokenizer=TextTokenizer.load_ours(inputs["tokenizer"]),
                seed=recipe.seed,
            )
        write_json(counts, composition)
    made = mix_file(sets) if recipe.row_weights is None else weighted
    _move([made], [documents_file(work.path)])


def _move(made: Sequence[Path], files: Sequence[Path]) -> None:
    """Moves finished files; those that a killed stage has moved are not there any more."""
    for one, file in zip(made, files, strict=True):
        if one.is_file():
            os.replace(one, file)


def index(recipe: Index, inputs: Inputs, work: Workspace) -> None:
    """Writes every document's tokens as a Megatron .bin/.idx pair.

    Of documents the conversations, as the chat template writes them; of raw files and curated sets
    the text of a field.
    """
    counts, made = work.path / "index.json", index_prefix(work.scratch)
    if not counts.is_file():  # written when the pair is whole, so a killed stage only moves it
        asked = PreprocessRequest(
            inputs=[documents_file(inputs["documents"])],
            output_prefix=made,
            tokenizer=inputs["tokenizer"],
            is_chat=True,
            append_eod=recipe.append_eod,
            max_bad_rate=0.0,
        )
        if recipe.source:
            asked = replace(
                asked,
                inputs=text_files(inputs["documents"], recipe.source),
                is_chat=False,
                json_key=recipe.text_field,
                workers=max(1, work.placement.workers),
                max_bad_rate=MAX_BAD_RATE,
            )
        _forget_other_inputs(work.scratch, asked.inputs)
        manifest = preprocess(asked)
        check_read(inputs["documents"], recipe.source, manifest)
        tokens = IndexedReader(made)
        facts = {name: manifest[name] for name in INDEX_FACTS} | {
            "format": 1,
            "longest_document_tokens": int(tokens.sequence_lengths.max()),
            "unknown_tokens": _count_id(tokens.tokens, UNKNOWN),
        }
        if recipe.source:
            facts |= {name: manifest[name] for name in ("num_rows", "dropped", "eod_id")}
            manifest["made_by"] |= {"plan": work.key, "parts_kept_from_an_earlier_run": 0}
            write_json(manifest_file(index_prefix(work.path)), manifest)  # names rows by parts
        write_json(counts, facts)
    ends = index_prefix(work.path)
    _move([bin_file(made), idx_file(made)], [bin_file(ends), idx_file(ends)])


def _forget_other_inputs(scratch: Path, files: Sequence[str | Path]) -> None:
    """Deletes what a killed run left where an input was made again since."""
    states = [(str(file), os.stat(file)) for file in files]
    state = [[name, found.st_size, found.st_mtime_ns] for name, found in states]
    noted = scratch / "inputs.json"
    if noted.is_file() and read_json(noted) != state:
        new_folder(scratch)
    write_json(noted, state)


def _count_id(tokens: np.ndarray, number: int) -> int:
    """How often an id stands in tokens of any length."""
    parts = (tokens[at : at + CHUNK_TOKENS] for at in range(0, len(tokens), CHUNK_TOKENS))
    return sum(int((part == number).sum()) for part in parts)


def blend(recipe: Blend, inputs: Inputs, work: Workspace) -> None:
    """Writes the windows, the order of documents and the order of samples of one phase."""
    sources = {
        role: read_source(role, index_prefix(folder))
        for role, folder in inputs.items()
        if role != "before"
    }
    earlier: list[Reading] = []
    if "before" in inputs:
        earlier = plan_readings(read_json(inputs["before"] / "plan.json"))
    write_phases([PhaseFolder(recipe=recipe, folder=work.path)], sources, earlier=earlier)


def _check_epochs(recipe: Pack, packed: Mapping[str, Any]) -> None:
    """Refuses a budget that reads a set more often than the recipe allows.

    Raises: RecipeError with the rows of the set and the largest budget.
    """
    epochs = Fraction(packed["epochs"])
    if not recipe.max_epochs or epochs <= recipe.max_epochs:
        return
    counted = {READ: ("tokens", "tokens"), LOSS: ("loss_tokens", "tokens with loss")}
    if recipe.unit == ROWS:
        size = f"{packed['rows']:_} rows of {recipe.sequence_tokens}"
        most = int(recipe.max_epochs * packed["rows"]) * recipe.sequence_tokens
    else:
        name, what = counted[recipe.unit]
        size, most = f"{packed[name]:_} {what}", int(recipe.max_epochs * packed[name])
    raise RecipeError(
        "sft.max_epochs",
        found=f"{recipe.tokens:_} tokens of a set of {size} are {float(epochs):.2f} passes",
        rule=f"at most {recipe.max_epochs:g} are allowed",
        do=f"lower sft.tokens to at most {most:_}, raise sft.max_epochs, or enlarge the set",
    )


def _step_budget(recipe: Pack) -> StepBudget | None:
    if recipe.unit == ROWS:
        return None
    return StepBudget(unit=recipe.unit, steps=recipe.steps, batch_rows=recipe.batch_rows)


def pack(recipe: Pack, inputs: Inputs, work: Workspace) -> None:
    """Writes packed SFT rows: a sequence is a conversation, a document is a row."""
    made, documents = work.scratch / "pack", inputs["documents"]
    if not (work.path / PACKED).is_file():  # moved first, so a killed stage only moves the rest
        files = (
            set_files(documents, recipe.source) if recipe.source else [documents_file(documents)]
        )
        packed = build_pack(
            PackRequest(
                inputs=tuple(map(str, files)),
                tokenizer=inputs["tokenizer"],
                template=None,
                output=made,
                sequence_tokens=recipe.sequence_tokens,
                over_long=recipe.over_long,
                source_field="source" if recipe.source else "family",
                epochs=1,
                seed=recipe.seed,
                workers=max(1, work.placement.workers) if recipe.source else 1,
                max_bad_rate=MAX_BAD_RATE if recipe.source else 0.0,
                budget_tokens=recipe.tokens,
                step_budget=_step_budget(recipe),
                buffer_conversations=0 if recipe.source else BUFFER_CONVERSATIONS,
            )
        )
        _check_epochs(recipe, packed)
    names = (PACKED, *PACK_FILES, *((PACK_STEPS,) if recipe.unit != ROWS else ()))
    _move([made / name for name in names], [work.path / name for name in names])
