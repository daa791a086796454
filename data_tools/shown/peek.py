"""`frontload data peek`: the counts of an artifact and its first rows, loss mask in colour."""

import argparse
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from frontload.data_tools.artifacts.kind import kind_of
from frontload.data_tools.artifacts.read import as_prefix, prefix_of
from frontload.data_tools.artifacts.sources import phase_indexes
from frontload.data_tools.curation.describe import shown_composition
from frontload.data_tools.disk.files import read_array, read_json
from frontload.data_tools.disk.indexed import IndexedReader, manifest_file
from frontload.data_tools.raw.inputs import FORMAT_OF_SUFFIX, expand_inputs
from frontload.data_tools.raw.parse import BadRow
from frontload.data_tools.raw.rows import read_rows
from frontload.data_tools.shown.explain import explain_sample, sources_in_store
from frontload.data_tools.shown.masked import decoded, has_colour, masked_text, open_console
from frontload.data_tools.text.chat import ANY_DAY, load_template
from frontload.data_tools.text.messages import Dialogue, read_dialogue
from frontload.data_tools.text.targets import cut_rows
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.artifact import PACK_STEPS, documents_file
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.index_flag import HELP

COUNTS = ("plan.json", "pack.json", "index.json", "composition.json", "counts.json", "ledger.json")
HIDDEN = {"files", "bin_blocks", "idx_blocks", "parts"}  # long, and for programs
SHOWN_CHARACTERS = 2000  # ours: a screen; the rest is counted


def add_arguments(peek: argparse.ArgumentParser) -> None:
    """Those of `peek`."""
    peek.add_argument("folder", type=Path, metavar="PATH", help="folder, prefix P, or file of rows")
    peek.add_argument("--rows", type=int, default=3, help="how many rows (default 3)")
    peek.add_argument("--first", type=int, default=0, help="the first row, from 0 (default 0)")
    peek.add_argument("--tokenizer", type=Path, help="decodes tokens; marks targets in files")
    peek.add_argument("--template", type=Path, help="chat template for rows of files")
    peek.add_argument(
        "--index", nargs="+", default=[], metavar="NAME=PREFIX", help="of a blend: " + HELP
    )
    peek.set_defaults(run=run_peek)


def run_peek(arguments: argparse.Namespace) -> int:
    """Prints the counts of an artifact and some of its rows."""
    path: Path = arguments.folder
    if arguments.rows < 0 or arguments.first < 0:
        raise RecipeError(
            "--rows and --first",
            found=f"{arguments.rows} rows from {arguments.first}",
            rule="rows are counted from 0",
            do="write 0 or more",
        )
    is_file = path.is_file() and path.suffix.lower() in FORMAT_OF_SUFFIX
    kind = "file" if is_file and as_prefix(path) is None else kind_of(path)
    tokenizer = TextTokenizer.load(arguments.tokenizer) if arguments.tokenizer else None
    console = open_console()
    console.print(f"{kind} {path}")
    for name in COUNTS:
        if (path / name).is_file():
            _print_counts(console, path / name)
    if kind == "file":
        _show_file(console, path, tokenizer, arguments)
    elif kind in ("index", "prefix"):
        prefix = prefix_of(as_prefix(path) or path)
        if manifest_file(prefix).is_file():
            _print_counts(console, manifest_file(prefix))
        if tokenizer:
            tokenizer.check_made(manifest_file(prefix))
        _show_documents(console, prefix, tokenizer, arguments)
    elif kind == "pack":
        if tokenizer:
            tokenizer.check_made(path / "pack.json")
        _show_pack(console, path, tokenizer, arguments)
    elif kind == "blend":
        _show_blend(console, path, arguments)
    elif kind == "sets":
        _show_sets(console, path, tokenizer, arguments)
    elif kind in ("curate", "corpus"):
        files = [documents_file(path)] if kind == "curate" else sorted(path.glob("*.jsonl"))
        for file in files:
            console.print(file.name)
            _show_file(console, file, tokenizer, arguments)
    return 0


def _print_counts(console: Console, file: Path) -> None:
    counts: Any = read_json(file)
    if not isinstance(counts, dict):
        raise ArtifactError(
            f"reading {file}",
            found=f"JSON, but a {type(counts).__name__}",
            rule="a description is an object with named fields",
            do="delete the artifact and make it again",
        )
    shown = {name: value for name, value in counts.items() if name not in HIDDEN}
    console.print(json.dumps(shown, indent=1, sort_keys=True))


def _tell_end(console: Console, arguments: argparse.Namespace, total: int) -> None:
    if arguments.rows and arguments.first >= total:
        console.print(f"  nothing from {arguments.first} on: there are {total}, counted from 0")


def _wanted(console: Console, arguments: argparse.Namespace, total: int) -> range:
    _tell_end(console, arguments, total)
    return range(min(arguments.first, total), min(arguments.first + arguments.rows, total))


def _show_file(
    console: Console, file: Path, tokenizer: TextTokenizer | None, arguments: argparse.Namespace
) -> None:
    """Rows of a file; with a tokenizer, conversations as its template says them, targets marked."""
    expand_inputs([str(file)], asked_by="PATH")
    template = load_template(arguments.template, tokenizer, day=ANY_DAY) if tokenizer else None
    rows = iter(read_rows(file))
    passed = sum(1 for _ in islice(rows, arguments.first))
    row = None
    for row in islice(rows, arguments.rows):
        if isinstance(row, BadRow):
            console.print(f"  row {row.number}: {row.reason}")
            continue
        dialogue = read_dialogue(row.value)
        chats = dialogue
        if template and isinstance(dialogue, Dialogue):
            chats = cut_rows(template, dialogue)
        if not isinstance(chats, list):
            line = json.dumps(row.value, ensure_ascii=False, default=str)
            console.print(f"  {_cut(line)}")
            continue
        for chat in chats:
            texts = [(piece.text, piece.is_target) for piece in chat.pieces]
            console.print(f"row {row.number}")
            console.print(masked_text(texts, is_coloured=has_colour(console)))
    if row is None:
        _tell_end(console, arguments, passed)


def _show_sets(
    console: Console, folder: Path, tokenizer: TextTokenizer | None, arguments: argparse.Namespace
) -> None:
    """Of each set of a curation what it is made of, and rows."""
    compositions, manifest = (read_json(folder / f"{n}.json") for n in ("compositions", "manifest"))
    for name in manifest["set_order"]:
        console.print(shown_composition(compositions[name]), highlight=False)
        files = [file for file in manifest["files"] if re.fullmatch(rf"{name}(-\d+)?.jsonl", file)]
        console.print(f"  {files[0]}" + (f" of {len(files)} files" if len(files) > 1 else ""))
        _show_file(console, folder / files[0], tokenizer, arguments)


def _show_documents(
    console: Console, prefix: Path, tokenizer: TextTokenizer | None, arguments: argparse.Namespace
) -> None:
    reader = IndexedReader(prefix)
    for number in _wanted(console, arguments, reader.num_documents):
        ids = reader.document(number).tolist()
        console.print(f"{number}: {_cut(tokenizer.decode(ids) if tokenizer else str(ids))}")


def _show_pack(
    console: Console, folder: Path, tokenizer: TextTokenizer | None, arguments: argparse.Namespace
) -> None:
    """Samples in training order, each conversation of a row with its targets marked."""
    tokens, mask = IndexedReader(folder / "tokens"), IndexedReader(folder / "loss_mask")
    order = read_array(folder / "order.npy", np.int64)
    starts = read_array(folder / PACK_STEPS, np.int64) if (folder / PACK_STEPS).is_file() else None
    for sample in _wanted(console, arguments, len(order)):
        row = int(order[sample])
        step = "" if starts is None else f" of step {np.searchsorted(starts, sample, 'right')}"
        first, last = (int(number) for number in tokens.document_indices[row : row + 2])
        console.print(f"sample {sample}{step}: row {row}, {last - first} conversations")
        for number in range(first, last):
            parts = decoded(tokens.sequence(number), mask.sequence(number), tokenizer)
            console.print(f"{number}: ", end="")
            console.print(masked_text(_cut_parts(parts), is_coloured=has_colour(console)))


def _show_blend(console: Console, folder: Path, arguments: argparse.Namespace) -> None:
    plan = read_json(folder / "plan.json")
    if arguments.tokenizer is None:
        console.print("samples are shown with --tokenizer")
        return
    indexes = phase_indexes(folder, arguments.index)
    folders = sources_in_store(indexes, tokenizer=arguments.tokenizer)
    for number in _wanted(console, arguments, plan["num_samples"]):
        console.print(_cut(explain_sample(folder, folders, number=number).to_text()))


def _cut(text: str) -> str:
    left = len(text) - SHOWN_CHARACTERS
    return text if left <= 0 else f"{text[:SHOWN_CHARACTERS]} ... {left} more characters"


def _cut_parts(parts: list[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    """Each run of a conversation, its middle left out when it is long."""
    for text, is_target in parts:
        half = SHOWN_CHARACTERS // 2
        if len(text) > SHOWN_CHARACTERS:
            text = f"{text[:half]} ... {len(text) - 2 * half} more ... {text[-half:]}"
        yield text, is_target
