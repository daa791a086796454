"""`frontload data tokenizer`: byte-level BPE with this project's special tokens, from raw files."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frontload.data_tools.disk.indexed import MOST_TOKENS
from frontload.data_tools.disk.publish import (
    check_place,
    clear,
    disk_told,
    folders_above,
    new_folder,
    publish_files,
    publish_folder,
    workplace,
)
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.raw.parse import BadRow, RejectReason, take_text
from frontload.data_tools.raw.rows import read_rows
from frontload.data_tools.text.render import has_special_token
from frontload.data_tools.text.train_tokenizer import TrainedTokenizer, train_byte_pairs
from frontload.recipes.artifact import tokenizer_file
from frontload.recipes.errors import RecipeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `tokenizer`; `run` goes from them to an exit code."""
    parser.add_argument("--input", nargs="+", required=True, metavar="FILE", help="files or globs")
    parser.add_argument(
        "--json-key", nargs="+", default=["text"], metavar="KEY", help="fields with text (text)"
    )
    parser.add_argument("--vocab-size", type=int, required=True, help="special tokens included")
    parser.add_argument(
        "--max-rows", type=int, default=0, help="train on the first rows only (default all)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="made by this")
    parser.set_defaults(run=run_tokenizer)


@dataclass
class Texts:
    """Every text of the named fields, in the files' order, and what was passed over by reason."""

    files: Sequence[Path]
    keys: Sequence[str]
    max_rows: int
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[str]:
        for file in self.files:
            for row in read_rows(file, columns=self.keys):
                if self.max_rows and self.rows == self.max_rows:
                    return
                self.rows += 1
                if isinstance(row, BadRow):
                    self.dropped[row.reason] += 1
                    continue
                if not any(key in row.value for key in self.keys):
                    self.dropped["none of the fields"] += 1
                    continue
                for key in (key for key in self.keys if key in row.value):
                    text = take_text(row.value, key)
                    if isinstance(text, RejectReason):
                        self.dropped[f"{key}: {text}"] += 1
                    elif has_special_token(text):
                        self.dropped[f"{key}: {RejectReason.SPECIAL_TOKEN}"] += 1
                    else:
                        yield text

    def passed_over(self) -> str:
        """The drops as JSON, by reason."""
        return json.dumps(dict(self.dropped), sort_keys=True)


def run_tokenizer(arguments: argparse.Namespace) -> int:
    """Writes FOLDER/tokenizer.json; the same files and options give the same bytes.

    Raises: RecipeError when no row has text, the vocabulary cannot be as large as asked for, or
            another run or tokenizer has the folder.
    """
    out: Path = arguments.out
    _check(arguments)
    texts = Texts(
        files=expand_inputs(arguments.input),
        keys=arguments.json_key,
        max_rows=arguments.max_rows,
    )
    with folders_above(out, asked="--out"):
        check_place(out, asked="--out")
        with workplace(out, asked="--out") as work:
            clear(work)  # of a run that was killed
            try:
                trained = _train(texts, arguments)
                is_new = _publish(trained.tokenizer.to_json(), work, out)
            except BaseException:
                clear(work)
                raise
    found = trained.tokenizer.vocab_size
    print(f"{tokenizer_file(out)}: {found} tokens from {trained.texts} texts of {texts.rows} rows")
    if not is_new:
        print("it was there already, and was left as it is")
    if found < arguments.vocab_size:
        print(f"the texts have only {found} tokens to offer; {arguments.vocab_size} were asked for")
    if texts.dropped:
        print(f"passed over: {texts.passed_over()}")
    return 0


def _train(texts: Texts, arguments: argparse.Namespace) -> TrainedTokenizer:
    trained = train_byte_pairs(texts, vocab_size=arguments.vocab_size)
    if trained.texts == 0:
        raise RecipeError(
            f"--input {' '.join(arguments.input)}",
            found=f"{texts.rows} rows, none with text"
            + (f"; passed over: {texts.passed_over()}" if texts.dropped else ""),
            rule=f"at least one row has text in a field of --json-key {' '.join(texts.keys)}",
            do="correct --json-key or the files",
        )
    return trained


def _publish(text: str, work: Path, out: Path) -> bool:
    """Gives the tokenizer its name; False when this very one has it already."""
    file = tokenizer_file(out)
    if file.is_file():
        if file.read_bytes() == text.encode():
            return False
        raise RecipeError(
            f"--out {out}",
            found=f"{file}, another tokenizer",
            rule="ids that it gave stand in files, so a tokenizer is never written over",
            do="name another folder, or delete the file",
        )
    ready = new_folder(work / "ready")
    with disk_told(file):
        tokenizer_file(ready).write_text(text, encoding="utf-8")
    if out.is_dir():
        publish_files({tokenizer_file(ready): file})
    else:
        publish_folder(ready, out)
    return True


def _check(arguments: argparse.Namespace) -> None:
    """Refuses numbers and places before the files are read."""
    file = tokenizer_file(arguments.out)
    if arguments.max_rows < 0:
        raise RecipeError(
            "--max-rows",
            found=str(arguments.max_rows),
            rule="it is a number of rows, 0 for all",
            do="write 0 or more",
        )
    if arguments.vocab_size > MOST_TOKENS:
        raise RecipeError(
            "--vocab-size",
            found=str(arguments.vocab_size),
            rule=f"ids are stored in 32 bits, so there are {MOST_TOKENS} at most",
            do="write for example 32768",
        )
    if len(set(arguments.json_key)) < len(arguments.json_key):
        raise RecipeError(
            "--json-key",
            found=" ".join(arguments.json_key),
            rule="a field is read once",
            do="name each field once",
        )
    if arguments.out.exists() and not arguments.out.is_dir() or file.is_dir():
        raise RecipeError(
            f"--out {arguments.out}",
            found="a file" if arguments.out.is_file() else f"a folder {file}",
            rule="it is a folder in which tokenizer.json is written",
            do="name another folder",
        )
