"""The second pass: the chosen rows are read again and written, each set in the table's order."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from frontload.data_tools.curation.columns import RowTable
from frontload.data_tools.curation.inputs import InputFile
from frontload.data_tools.curation.measure import (
    RowBatch,
    current_measurer,
    cut_batches,
    open_input,
)
from frontload.data_tools.curation.sets import ChosenSet
from frontload.data_tools.curation.workers import Workers
from frontload.data_tools.raw.rows import BadRow, RawRow
from frontload.data_tools.text.example import Drop, Origin, row_line, text_line
from frontload.recipes.errors import StageError
from frontload.recipes.runs.curation import Curation


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """A row that a set lost to another one."""

    set_name: str
    reason: str
    kept_instead: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A row as it is written, and as base text where some set asks for that."""

    as_row: bytes
    as_text: bytes


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where and by whom rows are written."""

    folder: Path
    rejects: IO[bytes] | None  # gets the duplicates of every set
    workers: Workers


class SetFile:
    """The rows of a set, as one file or cut into numbered ones, while they are written."""

    def __init__(
        self, folder: Path, stem: str, mask: np.ndarray, *, is_text: bool, rows_a_file: int
    ) -> None:
        self.mask = mask  # bool [rows of the table]: which rows it gets
        self._folder, self._stem = folder, stem
        self._is_text, self._rows_a_file = is_text, rows_a_file
        self._stream: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._rows = 0
        self.files: dict[str, dict[str, Any]] = {}  # finished ones, with rows and digest

    def write(self, line: Line) -> None:
        """Adds one row."""
        if self._stream is None:
            self._stream = (self._folder / self._name()).open("wb")
        content = line.as_text if self._is_text else line.as_row
        self._stream.write(content)
        self._digest.update(content)
        self._rows += 1
        if self._rows == self._rows_a_file:
            self.finish()

    def finish(self) -> None:
        """Closes the file that is open."""
        if self._stream is None:
            return
        name = self._name()
        self._stream.close()
        self.files[name] = {"rows": self._rows, "sha256": self._digest.hexdigest()}
        self._stream, self._digest, self._rows = None, hashlib.sha256(), 0

    def _name(self) -> str:
        number = f"-{len(self.files) + 1:05d}" if self._rows_a_file else ""
        return f"{self._stem}{number}.jsonl"


class SetFiles:
    """The open files of all sets."""

    def __init__(
        self, folder: Path, chosen: dict[str, ChosenSet], recipe: Curation, stack: ExitStack
    ) -> None:
        wanted: list[tuple[str, np.ndarray, bool]] = []
        for name, each in chosen.items():
            wanted.append((name, each.is_member, False))
            if each.is_heldout.any():
                wanted.append((f"{name}.heldout", each.is_heldout, False))
            if recipe.sets[name].text_copy:
                wanted.append((f"{name}.text", each.is_member, True))
        self._files = [
            SetFile(folder, stem, mask, is_text=is_text, rows_a_file=recipe.rows_a_file)
            for stem, mask, is_text in wanted
        ]
        for file in self._files:
            stack.callback(file.finish)

    def files_of_rows(self, start: int, stop: int) -> np.ndarray:
        """bool [files, rows]: which file gets which of the table's rows."""
        return np.array([file.mask[start:stop] for file in self._files])

    def write(self, line: Line, places: Sequence[int]) -> None:
        """Writes a row to some of the files."""
        for place in places:
            self._files[place].write(line)

    def describe(self) -> dict[str, dict[str, Any]]:
        """File -> rows and digest."""
        for file in self._files:
            file.finish()
        return {name: found for file in self._files for name, found in file.files.items()}


def render_batch(batch: RowBatch) -> list[Line]:
    """The lines of each row."""
    measurer = current_measurer()
    has_text = any(each.text_copy for each in measurer.recipe.sets.values())
    lines = []
    for row in batch.rows:
        found = measurer.convert(batch.source, row)
        if isinstance(found, Drop):
            raise StageError(
                f"{batch.file}:{row.number}",
                found=f"dropped now ({found.reason}), kept before",
                rule="a file is read twice and has to be the same",
                do="run the command again when nothing writes to it",
            )
        origin = Origin(source=batch.source, file=batch.file.as_posix(), row=row.number)
        as_text = text_line(found, origin) if has_text else b""
        lines.append(Line(as_row=row_line(found, origin), as_text=as_text))
    return lines


def write_sets(
    files: Sequence[InputFile],
    table: RowTable,
    chosen: dict[str, ChosenSet],
    *,
    recipe: Curation,
    output: Output,
) -> dict[str, dict[str, Any]]:
    """Writes the files of each set, and duplicates to the rejects; what was written."""
    rejects = output.rejects
    with ExitStack() as stack:
        outputs = SetFiles(output.folder, chosen, recipe, stack)
        for number, file in enumerate(files):
            start, stop = int(table.starts[number]), int(table.starts[number + 1])
            of_file = outputs.files_of_rows(start, stop)
            duplicates = _duplicates(chosen, start, stop) if rejects is not None else {}
            is_wanted = of_file.any(axis=0)
            is_wanted[list(duplicates)] = True
            wanted = np.flatnonzero(is_wanted)
            numbers = table.column_of_part("row", number)[wanted]
            rows = _pick(open_input(file.source, file.file, recipe), iter(numbers.tolist()))
            lines = (
                line
                for batch in output.workers.map(
                    render_batch, cut_batches(file.source, file.file, rows)
                )
                for line in batch
            )
            for place, line in zip(wanted.tolist(), lines, strict=True):
                outputs.write(line, np.flatnonzero(of_file[:, place]).tolist())
                for duplicate in duplicates.get(place, ()):
                    assert rejects is not None
                    rejects.write(_reject_line(file, table, line.as_row, duplicate))
        return outputs.describe()


def _pick(rows: Iterator[RawRow | BadRow], numbers: Iterator[int]) -> Iterator[RawRow | BadRow]:
    """The rows with these numbers, which ascend."""
    wanted = next(numbers, None)
    for row in rows:
        if wanted is None:
            return
        if row.number == wanted:
            yield row
            wanted = next(numbers, None)


def _duplicates(chosen: dict[str, ChosenSet], start: int, stop: int) -> dict[int, list[Duplicate]]:
    """Place in the file -> the sets that lost this row to another one."""
    found: dict[int, list[Duplicate]] = {}
    for name, each in chosen.items():
        for removal in each.removals:
            if removal.kept_instead is None:
                continue
            here = slice(*np.searchsorted(removal.rows, [start, stop]).tolist())
            for row, kept in zip(
                removal.rows[here].tolist(), removal.kept_instead[here].tolist(), strict=True
            ):
                duplicate = Duplicate(set_name=name, reason=removal.reason, kept_instead=kept)
                found.setdefault(row - start, []).append(duplicate)
    return found


def _reject_line(file: InputFile, table: RowTable, line: bytes, duplicate: Duplicate) -> bytes:
    number = int(np.searchsorted(table.starts, duplicate.kept_instead, side="right")) - 1
    part = table.parts[number]
    row = int(table.column("row", np.array([duplicate.kept_instead]))[0])
    content = orjson.loads(line)
    found = {
        "source": file.source,
        "file": file.name,
        "row": content["row"],
        "set": duplicate.set_name,
        "reason": duplicate.reason,
        "detail": f"kept instead: {part.source} {part.file}:{row}",
        "content": content,
    }
    return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)
