"""The units of work: byte ranges of plain JSONL, row groups of Parquet, whole packed files.

The cut depends on the inputs alone, so any number of workers and any restart share finished units.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.preprocess.request import PreprocessRequest, Shard
from frontload.data_tools.raw.inputs import Format, file_format
from frontload.data_tools.stores.path import StorePath
from frontload.recipes.errors import RecipeError

FORMAT = 2  # of the manifest and of the work folder
LEAST_PART_BYTES = 4 << 20  # ours: 0.1 s of work, so two workers end together
MOST_PART_BYTES = 256 << 20  # ours: 4 s of work lost at a kill
PARTS = 1024  # ours: parts aimed at; a folder holds three files of each


@dataclass(frozen=True, kw_only=True)
class PlannedSource:
    """One input as it was when the work was planned."""

    file: Path
    name: str
    format: Format
    size_bytes: int
    mtime_ns: int
    version: str = ""  # of a file in a store, as the store calls it

    def described(self) -> dict[str, Any]:
        """What the manifest says of it, beside its digest."""
        about = {"name": self.name, "bytes": self.size_bytes}
        return about | ({"version": self.version} if self.version else {})


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A part of one source: its bytes, and for Parquet its row groups [first, end)."""

    number: int
    source: int
    start: int
    stop: int
    row_groups: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class WorkPlan:
    """Everything that decides the bytes, and the units of this run (all, or those of a shard)."""

    sources: tuple[PlannedSource, ...]
    units: tuple[Unit, ...]
    request: dict[str, Any]
    key: str

    @property
    def num_bytes(self) -> int:
        return sum(unit.stop - unit.start for unit in self.units)


def make_plan(
    request: PreprocessRequest,
    files: Sequence[Path],
    tokenizer: dict[str, Any],
    *,
    columns: Sequence[str] | None,
) -> WorkPlan:
    """Cuts the files into units; `columns` are those that a table must have.

    Raises: RecipeError when the inputs are empty or have fewer units than there are shards.
    """
    local = [file.absolute().parent for file in files if not isinstance(file, StorePath)]
    folder = Path(os.path.commonpath(local)) if local else Path()
    sources = tuple(_source(file, folder) for file in files)
    total = sum(source.size_bytes for source in sources)
    wanted = -(-total // PARTS)
    part_bytes = request.part_bytes or min(max(wanted, LEAST_PART_BYTES), MOST_PART_BYTES)
    units: list[Unit] = []
    for number, source in enumerate(sources):
        for start, stop, row_groups in _parts(source, part_bytes, columns=columns or ()):
            units.append(
                Unit(
                    number=len(units),
                    source=number,
                    start=start,
                    stop=stop,
                    row_groups=row_groups,
                )
            )
    asked = {
        "format": FORMAT,
        **tokenizer,
        "json_key": "" if request.is_chat else request.json_key,
        "append_eod": request.append_eod,
        "special_text": str(request.special_text),
        "max_row_bytes": request.max_row_bytes,
        "part_bytes": part_bytes,
    }
    described = {
        **asked,
        "sources": [[str(s.file.resolve()), s.size_bytes, s.mtime_ns] for s in sources],
        "shard": request.shard and asdict(request.shard),
        "keeps_rejects": request.rejects is not None,
    }
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    chosen = units if request.shard is None else _shard(units, request.shard)
    return WorkPlan(sources=sources, units=tuple(chosen), request=asked, key=key)


def _source(file: Path, folder: Path) -> PlannedSource:
    found = file.stat()
    return PlannedSource(
        file=file,
        name=str(file)
        if isinstance(file, StorePath)
        else file.absolute().relative_to(folder).as_posix(),
        format=file_format(file),
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        version=file.stored().version if isinstance(file, StorePath) else "",
    )


def _parts(
    source: PlannedSource, part_bytes: int, *, columns: Sequence[str]
) -> list[tuple[int, int, tuple[int, int] | None]]:
    if source.format is Format.JSONL:
        starts = range(0, source.size_bytes, part_bytes)
        return [(start, min(start + part_bytes, source.size_bytes), None) for start in starts]
    if source.format is not Format.PARQUET:
        return [(0, source.size_bytes, None)] if source.size_bytes else []
    from frontload.data_tools.raw.parquet import check_columns, first_byte, open_table

    with open_table(source.file) as table:
        check_columns(source.file, table, columns=columns)
        begins = [first_byte(table, group) for group in range(table.num_row_groups)]
    groups = [0]
    for group, at in enumerate(begins):
        if at - begins[groups[-1]] >= part_bytes:
            groups.append(group)
    if not begins:
        return []
    bounds = [0, *(begins[group] for group in groups[1:]), source.size_bytes]
    ends = [*groups[1:], len(begins)]
    return [
        (bounds[part], bounds[part + 1], (groups[part], ends[part])) for part in range(len(groups))
    ]


def _shard(units: Sequence[Unit], shard: Shard) -> list[Unit]:
    """The units of one shard: neighbours, about as many bytes as every other shard has."""
    if shard.of > len(units):
        raise RecipeError(
            f"--shard {shard.number}/{shard.of}",
            found=f"inputs that fall into {len(units)} parts",
            rule="every shard has at least one part: a byte range, row groups, or a packed file",
            do=f"use at most {max(len(units), 1)} shards",
        )
    sizes = [unit.stop - unit.start for unit in units]
    total, ends, done = sum(sizes), [0], 0
    for number, size in enumerate(sizes, start=1):
        done += size
        left_units, left_shards = len(units) - number, shard.of - len(ends)
        is_full = done * shard.of >= total * len(ends)
        if left_shards and (is_full or left_units == left_shards):
            ends.append(number)
    ends.append(len(units))
    return list(units[ends[shard.number - 1] : ends[shard.number]])


def check_unchanged(plan: WorkPlan) -> None:
    """Refuses inputs that are no longer what was planned.

    Raises: RecipeError naming the file.
    """
    for source in plan.sources:
        if source.version:
            continue  # its units were read of that version, and none other
        found = source.file.stat()
        if (found.st_size, found.st_mtime_ns) != (source.size_bytes, source.mtime_ns):
            raise RecipeError(
                f"reading {source.file}",
                found=f"it changed while it was read: {source.size_bytes} bytes, now"
                f" {found.st_size}",
                rule="an input stays as it is until the run has ended",
                do="wait until it is written whole, then run again",
            )
