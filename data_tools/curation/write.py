"""The second pass: the chosen rows are read again and written, each set in the table's order."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from frontload.data_tools.curation.columns import Table
from frontload.data_tools.curation.example import Drop, Origin, row_line
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


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where and by whom rows are written."""

    folder: Path
    rejects: IO[bytes] | None  # gets the duplicates of every set
    workers: Workers


class SetFiles:
    """The open files of all sets, with their counts and digests."""

    def __init__(self, folder: Path, chosen: dict[str, ChosenSet], stack: ExitStack) -> None:
        masks: list[tuple[str, np.ndarray]] = []
        for name, each in chosen.items():
            masks.append((f"{name}.jsonl", each.is_member))
            if each.is_heldout.any():
                masks.append((f"{name}.heldout.jsonl", each.is_heldout))
        self._names = [name for name, _ in masks]
        self._streams: list[IO[bytes]] = [
            stack.enter_context((folder / name).open("wb")) for name in self._names
        ]
        self._digests = [hashlib.sha256() for _ in masks]
        self._rows = [0 for _ in masks]
        self._masks = [mask for _, mask in masks]

    def files_of_rows(self, start: int, stop: int) -> np.ndarray:
        """bool [files, rows]: which file gets which of the table's rows."""
        return np.array([mask[start:stop] for mask in self._masks])

    def write(self, line: bytes, places: Sequence[int]) -> None:
        """Writes a line to some of the files."""
        for place in places:
            self._streams[place].write(line)
            self._digests[place].update(line)
            self._rows[place] += 1

    def describe(self) -> dict[str, dict[str, Any]]:
        """File -> rows and digest."""
        return {
            name: {"rows": rows, "sha256": digest.hexdigest()}
            for name, rows, digest in zip(self._names, self._rows, self._digests, strict=True)
        }


def render_batch(batch: Batch) -> list[bytes]:
    """The line of each row."""
    measurer = current_measurer()
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
        lines.append(row_line(found, origin))
    return lines


def write_sets(
    files: Sequence[InputFile],
    table: Table,
    chosen: dict[str, ChosenSet],
    *,
    recipe: Curation,
    output: Output,
) -> dict[str, dict[str, Any]]:
    """Writes SET.jsonl and SET.heldout.jsonl, and duplicates to the rejects; what was written."""
    rejects = output.rejects
    with ExitStack() as stack:
        outputs = SetFiles(output.folder, chosen, stack)
        for number, file in enumerate(files):
            start, stop = int(table.starts[number]), int(table.starts[number + 1])
            of_file = outputs.files_of_rows(start, stop)
            duplicates = _duplicates(chosen, start, stop) if rejects is not None else {}
            is_wanted = of_file.any(axis=0)
            is_wanted[list(duplicates)] = True
            wanted = np.flatnonzero(is_wanted)
            numbers = table.column("row", start + wanted)
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
                    rejects.write(_reject_line(file, table, line, duplicate))
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
