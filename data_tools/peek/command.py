"""`frontload data peek`: the counts of an artifact and its first rows, loss mask in colour."""

import argparse
import json
from itertools import islice
from pathlib import Path

from frontload.data_tools.any_tokenizer import AnyTokenizer
from frontload.data_tools.artifact_kind import kind_of
from frontload.data_tools.files import read_json
from frontload.data_tools.indexed import IndexedReader
from frontload.recipes.artifact import documents_file, index_prefix


def add_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `peek`."""
    peek = subparsers.add_parser("peek", help="show the first rows and the counts of an artifact")
    peek.add_argument("folder", type=Path, metavar="FOLDER")
    peek.add_argument("--rows", type=int, default=3, help="how many rows (default 3)")
    peek.add_argument("--tokenizer", type=Path, help="decodes the tokens of an index or a pack")
    peek.set_defaults(run=run_peek)


def run_peek(arguments: argparse.Namespace) -> int:
    """Prints the counts of an artifact and its first rows."""
    folder: Path = arguments.folder
    kind = kind_of(folder)
    print(f"{kind} {folder}")
    for name in ("plan.json", "pack.json", "index.json", "composition.json", "counts.json"):
        if (folder / name).is_file():
            print(json.dumps(read_json(folder / name), indent=1, sort_keys=True))
    tokenizer = AnyTokenizer.load(arguments.tokenizer) if arguments.tokenizer else None
    if kind in ("index", "pack"):
        reader = IndexedReader(index_prefix(folder) if kind == "index" else folder / "tokens")
        for number in range(min(arguments.rows, reader.num_documents)):
            ids = reader.document(number).tolist()
            print(f"{number}: {tokenizer.decode(ids) if tokenizer else ids}")
    elif kind in ("curate", "corpus"):
        files = [documents_file(folder)] if kind == "curate" else sorted(folder.glob("*.jsonl"))
        for file in files:
            print(file.name)
            with open(file, encoding="utf-8") as stream:
                for line in islice(stream, arguments.rows):
                    print(f"  {line.rstrip()[:400]}")
    return 0
