"""The second pass: the chosen rows are read again and written, each set in the table's order."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from frontload.data_tools.curation.columns import Table
from frontload.data_tools.curation.example import Drop, Origin, row_line, text_line
from frontload.data_tools.curation.inputs import InputFile
from frontload.data_tools.curation.measure import Batch, current_measurer, cut_batches, open_input
from frontload.data_tools.curation.sets import ChosenSet
from frontload.data_tools.curation.workers import Workers
from frontload.data_tools.raw.rows import BadRow, RawRow
from frontload.recipes.curation import Curation
from frontload.recipes.errors import StageError


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


@dataclass(kw_only=True)
class SetFile:
    """One file of a set while it is written."""

    name: str
    mask: np.ndarray  # bool [rows of the table]: which rows it gets
    is_text: bool
    stream: IO[bytes]
    rows: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def write(self, line: Line) -> None:
        """Adds one row."""
        content = line.as_text if self.is_text else line.as_row
        self.stream.write(content)
        self.digest.update(content)
        self.rows += 1


class SetFiles:
    """The open files of all sets."""

    def __init__(
        self, folder: Path, chosen: dict[str, ChosenSet], recipe: Curation, stack: ExitStack
    ) -> None:
        wanted: list[tuple[str, np.ndarray, bool]] = []
        for name, each in chosen.items():
            wanted.append((f"{name}.jsonl", each.is_member, False))
            if each.is_heldout.any():
                wanted.append((f"{name}.heldout.jsonl", each.is_heldout, False))
            if recipe.sets[name].text_copy:
                wanted.append((f"{name}.text.jsonl", each.is_member, True))
        self._files = [
            SetFile(
                name=name,
                mask=mask,
                is_text=is_text,
                stream=stack.enter_context((folder / name).open("wb")),
            )
            for name, mask, is_text in wanted
        ]

    def files_of_rows(self, start: int, stop: int) -> np.ndarray:
        """bool [files, rows]: which file gets which of the table's rows."""
        return np.array([file.mask[start:stop] for file in self._files])

    def write(self, line: Line, places: Sequence[int]) -> None:
        """Writes a row to some of the files."""
        for place in places:
            self._files[place].write(line)

    def describe(self) -> dict[str, dict[str, Any]]:
        """File -> rows and digest."""
        return {
            file.name: {"rows": file.rows, "sha256": file.digest.hexdigest()}
            for file in self._files
        }


def render_batch(batch: Batch) -> list[Line]:
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
    table: Table,
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


def _reject_line(file: InputFile, table: Table, line: bytes, duplicate: Duplicate) -> bytes:
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
