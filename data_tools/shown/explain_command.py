"""`frontload data explain`: what a document, a pack's sample or a blend's sample was read from."""

import argparse
from pathlib import Path

import numpy as np

from frontload.data_tools.artifacts.kind import kind_of
from frontload.data_tools.artifacts.read import as_prefix, phase_folders, prefix_of
from frontload.data_tools.artifacts.sources import phase_indexes
from frontload.data_tools.disk.files import read_array, read_json
from frontload.data_tools.disk.indexed import IndexedReader, manifest_file
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.shown.explain import explain_sample, sources_in_store
from frontload.data_tools.shown.provenance import Trail, origins
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.artifact import PACK_STEPS
from frontload.recipes.errors import RecipeError
from frontload.recipes.index_flag import HELP


def add_arguments(explain: argparse.ArgumentParser) -> None:
    """Those of `explain`."""
    explain.add_argument("path", type=Path, metavar="PATH", help="blend, pack, or prefix P")
    explain.add_argument("number", type=int, metavar="N", help="sample, or document of a prefix")
    explain.add_argument("--tokenizer", type=Path, required=True, metavar="T", help="of the ids")
    explain.add_argument(
        "--index", nargs="+", default=[], metavar="NAME=PREFIX", help="of a blend: " + HELP
    )
    explain.add_argument(
        "--input", nargs="+", type=Path, default=[], metavar="FILE", help="for the exact row"
    )
    explain.set_defaults(run=run_explain)


def run_explain(arguments: argparse.Namespace) -> int:
    """Prints the origin of one sample."""
    path, kind = arguments.path, kind_of(arguments.path)
    tokenizer = TextTokenizer.load(arguments.tokenizer)
    inputs = expand_inputs([str(file) for file in arguments.input])
    _check_tokenizer(path, kind, tokenizer)
    if kind == "blend":
        indexes = phase_indexes(path, arguments.index)
        for index in indexes.values():
            tokenizer.check_made(manifest_file(prefix_of(index)))
        folders = sources_in_store(indexes, tokenizer=arguments.tokenizer, inputs=inputs)
        print(explain_sample(path, folders, number=arguments.number).to_text())
    elif kind == "pack":
        print("\n".join(_lines_of_pack(path, arguments.number, tokenizer)))
    elif kind == "prefix":
        prefix = as_prefix(path)
        assert prefix is not None, f"{path} was a prefix a moment ago"
        trail = Trail(prefix=prefix, inputs=inputs)
        print("\n".join(_lines_of_document(trail, arguments.number, tokenizer)))
    else:
        raise RecipeError(
            f"explain {path}",
            found=f"an artifact of kind {kind}",
            rule="samples are those of a blend or a pack, documents those of a prefix",
            do=f"name one of its phases: {', '.join(map(str, phase_folders(path)))}"
            if kind == "phases"
            else "name one of these, or use `frontload explain sample N` for a study's store",
        )
    return 0


def _check_tokenizer(path: Path, kind: str, tokenizer: TextTokenizer) -> None:
    prefix = as_prefix(path)
    if kind == "pack":
        tokenizer.check_made(path / "pack.json")
    elif kind == "prefix" and prefix is not None:
        tokenizer.check_made(manifest_file(prefix))


def _check_number(what: str, number: int, total: int) -> None:
    if not 0 <= number < total:
        raise RecipeError(
            f"{what} {number}",
            found=f"there are {total}",
            rule="they are numbered from 0",
            do=f"ask for 0 to {total - 1}" if total else "name another artifact",
        )


def _lines_of_document(trail: Trail, number: int, tokenizer: TextTokenizer) -> list[str]:
    reader = IndexedReader(trail.prefix)
    _check_number("document", number, reader.num_documents)
    found = origins(trail, {number}, tokenizer).get(number)
    ids = reader.document(number)
    at = int(reader.sequence_pointers[reader.document_indices[number]]) if len(ids) else 0
    return [
        f"document {number}: {found.to_text() if found else 'a row that nothing tells of'};"
        f" {len(ids)} tokens at byte {at} of {trail.prefix.name}.bin",
        f"  {tokenizer.decode(ids.tolist())}",
    ]


def _lines_of_pack(folder: Path, number: int, tokenizer: TextTokenizer) -> list[str]:
    """A sample's row, and of each conversation in it its file, row and part."""
    order = read_array(folder / "order.npy", np.int64)
    _check_number("sample", number, len(order))
    counts, tokens = read_json(folder / "pack.json"), IndexedReader(folder / "tokens")
    origin = read_array(folder / "origin.npy", np.int64)
    row = int(order[number])
    first, last = (int(one) for one in tokens.document_indices[row : row + 2])
    lines = [f"sample {number}: row {row}, epoch {number // counts['rows']}"]
    if (folder / PACK_STEPS).is_file():
        step = np.searchsorted(read_array(folder / PACK_STEPS, np.int64), number, "right")
        lines[0] += f", step {step} of {counts['step_budget']['steps']}"
        if number == len(order) - 1:
            lines[0] += f", cut behind {counts['last_row_tokens']} tokens, where the budget ends"
    offset = 0
    for sequence in range(first, last):
        file, line, part = (int(value) for value in origin[sequence])
        ids = tokens.sequence(sequence)
        cut = f", part {part}" if part else ""
        lines.append(
            f"  conversation {sequence}: {counts['inputs'][file]['name']} row {line}{cut};"
            f" tokens {offset} to {offset + len(ids)} of the sample"
        )
        lines.append(f"    {tokenizer.decode(ids.tolist())}")
        offset += len(ids)
    return lines
