"""A folder with a tokenizer, rows in the real schemas, recipes, and the command run on them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from frontload.launch.cli import main


def word_tokenizer() -> Tokenizer:
    """One token a run of letters or digits and one a mark: lengths that a reader can count."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


class Workbench:
    """Files by short names under one folder, which is the current one."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        word_tokenizer().save(str(folder / "tokenizer.json"))

    def rows(self, name: str, rows: list[Any]) -> str:
        """Writes a JSONL file (plain, .gz or Parquet by its name) and returns its name."""
        file = self.folder / name
        if file.suffix == ".parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=3)
            return name
        text = "".join(
            (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n"
            for row in rows
        ).encode()
        file.write_bytes(gzip.compress(text, mtime=0) if file.suffix == ".gz" else text)
        return name

    def recipe(self, text: str, *, name: str = "mine.yaml") -> str:
        head = "extends: defaults\ntokenizer: tokenizer.json\n"
        (self.folder / name).write_text(head + text)
        return name

    def run(self, *words: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of `frontload data curate WORDS`."""
        self._capsys.readouterr()
        code = main(["data", "curate", *words])
        found = self._capsys.readouterr()
        return code, found.out, found.err

    def curate(self, recipe: str, *, out: str = "out", more: tuple[str, ...] = ()) -> Path:
        """A run that has to end well."""
        code, _, errors = self.run(self.recipe(recipe), "--out", out, *more)
        assert code == 0, errors
        return self.folder / out

    def refusal(self, *words: str) -> str:
        """The message of a run that has to end with 2 and write nothing."""
        before = self.listing()
        code, out, errors = self.run(*words)
        assert code == 2, out + errors
        assert errors.startswith("frontload: ")
        assert errors.count(";") >= 2, "four parts"
        assert self.listing() == before, "nothing is written"
        return errors

    def listing(self) -> list[Path]:
        return sorted(self.folder.rglob("*"))


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
