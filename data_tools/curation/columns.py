"""What is known of each kept row, column by column on disk: written in a stream, read by column.

A column is a file of plain numbers, so a set of any size is worked on one column at a time.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from frontload.data_tools.disk.files import read_json
from frontload.recipes.runs.curation import Curation, Duplicates

DOCUMENT, QUESTION = "document", "question"
TEXTS = (DOCUMENT, QUESTION)
"""The two texts of a row that are compared."""

Columns = dict[str, np.ndarray]
RECEIPT = "receipt.json"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns of a recipe: name -> dtype and numbers a row."""

    near: tuple[str, ...]  # of TEXTS: those with signatures
    rules: Duplicates

    @classmethod
    def of(cls, recipe: Curation) -> "Layout":
        """Signatures are made only of texts that some set or overlap compares."""
        asked = {kind for each in recipe.sets.values() for kind in each.duplicates}
        near = []
        if "near" in asked or recipe.overlaps:
            near.append(DOCUMENT)
        if "near_question" in asked or recipe.overlaps:
            near.append(QUESTION)
        return cls(near=tuple(near), rules=recipe.duplicates)

    def columns(self) -> dict[str, tuple[np.dtype, int]]:
        """Every column, in the order they are written."""
        found: dict[str, tuple[np.dtype, int]] = {
            "row": (np.dtype(np.int64), 1),
            "exact": (np.dtype(np.uint64), 2),
            "question": (np.dtype(np.uint64), 1),
            "tokens": (np.dtype(np.int32), 1),
            "answer_last": (np.dtype(np.int32), 1),
            "answer_sum": (np.dtype(np.int32), 1),
            "domain": (np.dtype(np.int32), 1),
            "family": (np.dtype(np.int32), 1),
            "truncated": (np.dtype(np.uint8), 1),
        }
        for text in self.near:
            found[signature(text)] = (np.dtype(np.uint32), self.rules.permutations)
            for band in range(self.rules.bands):
                found[band_column(text, band)] = (np.dtype(np.uint64), 1)
        return found

    @property
    def bytes_a_row(self) -> int:
        """On disk, while the sets are made."""
        return sum(dtype.itemsize * width for dtype, width in self.columns().values())


def signature(text: str) -> str:
    return f"{text}_signature"


def band_column(text: str, band: int) -> str:
    return f"{text}_band_{band}"


class ColumnWriter:
    """Appends rows to the column files of one folder."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._columns = folder, layout.columns()
        self._stack = ExitStack()
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> "ColumnWriter":
        for name in self._columns:
            stream = open(self._folder / f"{name}.column", "wb")
            self._files[name] = self._stack.enter_context(stream)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def append(self, columns: Columns) -> None:
        """Adds the rows of one batch."""
        for name, (dtype, _) in self._columns.items():
            values = columns[name].astype(dtype, casting="same_kind")
            self._files[name].write(np.ascontiguousarray(values).tobytes())


@dataclass(frozen=True, kw_only=True)
class ColumnPart:
    """The measured rows of one input file."""

    source: str
    file: str
    folder: Path

    def receipt(self) -> dict[str, Any]:
        """What was counted while the file was read."""
        return read_json(self.folder / RECEIPT)


class RowTable:
    """The kept rows of all parts, numbered in the order of source, file and row."""

    def __init__(self, parts: Sequence[ColumnPart], layout: Layout) -> None:
        self.parts, self.layout = tuple(parts), layout
        self._columns = layout.columns()
        self.receipts = [part.receipt() for part in parts]
        counts = [receipt["rows_kept"] for receipt in self.receipts]
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    @property
    def num_rows(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """One column of all rows, or of some; [n] or [n, width]."""
        if rows is not None:
            return self._gathered(name, rows)
        dtype, width = self._columns[name]
        values = np.empty((self.num_rows, width), dtype=dtype)
        for number in range(len(self.parts)):
            found = self.column_of_part(name, number).reshape(-1, width)
            values[self.starts[number] : self.starts[number + 1]] = found
        return values[:, 0] if width == 1 else values

    def column_of_part(self, name: str, number: int) -> np.ndarray:
        """One column of one file's rows."""
        dtype, width = self._columns[name]
        values = np.fromfile(self.parts[number].folder / f"{name}.column", dtype=dtype)
        return values if width == 1 else values.reshape(-1, width)

    def _gathered(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Reads row by row: a mapped file would count as memory, all of it."""
        dtype, width = self._columns[name]
        size = dtype.itemsize * width
        unique, place_of_row = np.unique(rows, return_inverse=True)
        parts = np.searchsorted(self.starts, unique, side="right") - 1
        pieces: list[bytes] = []
        for number in np.unique(parts).tolist():
            own = unique[parts == number] - self.starts[number]
            with (self.parts[number].folder / f"{name}.column").open("rb") as stream:
                handle = stream.fileno()
                pieces += [os.pread(handle, size, row * size) for row in own.tolist()]
        values = np.frombuffer(b"".join(pieces), dtype=dtype).reshape(-1, width)[place_of_row]
        return values[:, 0] if width == 1 else values

    def names(self, column: str) -> tuple[np.ndarray, list[str]]:
        """(codes of all rows, names) of `domain` or `family`: each part has codes of its own."""
        names: dict[str, int] = {}
        codes = self.column(column)
        for number, receipt in enumerate(self.receipts):
            own = [names.setdefault(name, len(names)) for name in receipt[f"{column}_names"]]
            here = slice(int(self.starts[number]), int(self.starts[number + 1]))
            codes[here] = np.array([*own, 0], dtype=np.int32)[codes[here]]
        return codes, list(names)

    def source_of_row(self) -> tuple[np.ndarray, list[str]]:
        """(codes of all rows, names) of their sources."""
        names: dict[str, int] = {}
        own = [names.setdefault(part.source, len(names)) for part in self.parts]
        return np.repeat(np.array(own, dtype=np.int32), np.diff(self.starts)), list(names)
