"""Finished units to the published files: joined in order, then renamed, the manifest last.

A reader who finds the manifest finds the whole pair.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from threading import Thread
from types import NoneType
from typing import Any

import numpy as np
import xxhash

from frontload.data_tools.disk.digests import BlockDigests
from frontload.data_tools.disk.files import Shape, replacing
from frontload.data_tools.disk.indexed import bin_file, idx_file, manifest_file, write_flat_index
from frontload.data_tools.disk.publish import disk_told, publish_files, work_folder
from frontload.data_tools.preprocess.plan import WorkPlan
from frontload.data_tools.preprocess.unit import Receipt, unit_file
from frontload.data_tools.stores.path import StorePath
from frontload.recipes.artifact import write_json

COPY_BYTES = 1 << 20
SYNC_BYTES = 8 << 20  # ours: what the end may have to wait for, 20 ms of a disk of 400 MB/s
LENGTHS_AT_A_TIME = 1 << 20
PART: dict[str, Shape] = dict.fromkeys(("input", "start", "lines", "rows", "documents"), int)
MANIFEST: dict[str, Shape] = {
    **dict.fromkeys(("num_rows", "num_documents", "num_tokens", "text_bytes", "vocab_size"), int),
    **dict.fromkeys(("bin_sha256", "idx_sha256", "tokenizer_sha256", "json_key", "dtype"), str),
    **dict.fromkeys(("bin_bytes", "idx_bytes", "format", "max_row_bytes", "part_bytes"), int),
    "append_eod": bool,
    "eod_id": (int, NoneType),
    "eod_token": (str, NoneType),
    "special_text": str,
    "dropped": dict,
    "inputs": [{"name": str, "bytes": int}],
    "parts": [{**PART, "xxh3": str}],
    "shard": (dict, NoneType),
    "made_by": {
        **dict.fromkeys(("plan", "encoder", "encoder_reason"), str),
        "documents_compared": int,
        "packages": dict,
    },
}
"""What is read of P.manifest.json."""


class JoinedFile:
    """A file of the work folder that grows, with its digests.

    A thread brings it to the disk behind what is added, so that the end has little to wait for.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stream = open(file, "wb", buffering=0)  # noqa: SIM115 - closed by `finish`
        self._sha256, self._blocks, self._size = hashlib.sha256(), BlockDigests(), 0
        self._behind: Thread | None = None
        self._synced = 0
        self._refused: OSError | None = None

    def append(self, part: Path) -> None:
        """Adds the bytes of a file."""
        with open(part, "rb", buffering=0) as stream:
            while data := stream.read(COPY_BYTES):
                write_whole(self._stream, data)
                self._sha256.update(data)
                self._blocks.update(data)
                self._size += len(data)
        is_free = self._behind is None or not self._behind.is_alive()
        if is_free and self._size - self._synced >= SYNC_BYTES:
            self._synced = self._size
            self._behind = Thread(target=self._sync)
            self._behind.start()

    def _sync(self) -> None:
        try:
            os.fdatasync(self._stream.fileno())
        except OSError as error:
            self._refused = error  # the system tells it once, so it is raised by `finish`

    def finish(self) -> dict[str, Any]:
        """Closes the file; returns sha256, bytes and blocks for the manifest."""
        self._end_sync()
        self._stream.close()
        if self._refused is not None:
            raise self._refused
        return {
            "sha256": self._sha256.hexdigest(),
            "bytes": self._size,
            "blocks": self._blocks.finish(),
        }

    def discard(self) -> None:
        """Closes and deletes what was written so far."""
        self._end_sync()
        self._stream.close()
        self.file.unlink(missing_ok=True)

    def _end_sync(self) -> None:
        if self._behind is not None:
            self._behind.join()


def write_whole(stream: FileIO, data: bytes) -> None:
    """Writes all bytes to an unbuffered file, which may take fewer at a time."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[stream.write(rest) :]


def digests_of_file(file: Path) -> dict[str, Any]:
    """What `JoinedFile.finish` states, of a file that is there."""
    digest, blocks = hashlib.sha256(), BlockDigests()
    with open(file, "rb", buffering=0) as stream:
        while data := stream.read(COPY_BYTES):
            digest.update(data)
            blocks.update(data)
    return {
        "sha256": digest.hexdigest(),
        "bytes": file.stat().st_size,
        "blocks": blocks.finish(),
    }


def unit_lengths(folder: Path, receipts: Sequence[Receipt]) -> Iterator[np.ndarray]:
    """The document lengths of units in order, some at a time."""
    for receipt in receipts:
        with open(unit_file(folder, receipt.unit, "lengths"), "rb") as stream:
            while data := stream.read(4 * LENGTHS_AT_A_TIME):
                yield np.frombuffer(data, dtype=np.int32)


def publish(
    prefix: Path,
    *,
    joined: JoinedFile,
    dtype: np.dtype,
    lengths: Callable[[], Iterator[np.ndarray]],
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """Writes index and manifest beside the joined tokens, then gives all three their names."""
    folder = work_folder(prefix)
    index, described = folder / "joined.idx", folder / "manifest.json"
    with disk_told(prefix):
        write_flat_index(index, dtype, lengths)
        for part, stated in (("bin", joined.finish()), ("idx", digests_of_file(index))):
            manifest |= {f"{part}_{name}": value for name, value in stated.items()}
        write_json(described, manifest)
    pair = {joined.file: bin_file(prefix), index: idx_file(prefix)}
    if isinstance(prefix, StorePath):
        publish_files({**pair, described: manifest_file(prefix)})
        return manifest
    publish_files(pair)
    publish_files({described: manifest_file(prefix)})
    return manifest


def drop_counts(receipts: Sequence[Receipt]) -> Counter[str]:
    """Drops of many units by reason."""
    counts: Counter[str] = Counter()
    for receipt in receipts:
        counts.update(receipt.dropped)
    return counts


def describe_parts(plan: WorkPlan, receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    """The units in order: where each lies in its source, and what it holds."""
    parts = []
    for unit, receipt in zip(plan.units, receipts, strict=True):
        parts.append(
            {
                "input": unit.source,
                "start": unit.start,
                "stop": unit.stop,
                "lines": receipt.lines,
                "rows": receipt.rows,
                "documents": receipt.documents,
                "tokens": receipt.tokens,
                "xxh3": receipt.source_xxh3,
            }
        )
        if unit.row_groups is not None:
            parts[-1]["row_groups"] = list(unit.row_groups)
    return parts


def describe_inputs(
    sources: Sequence[dict[str, Any]], parts: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The inputs with the digest of their parts' digests, which of one part is the file's own."""
    described = []
    digests_of: dict[int, list[str]] = {}
    for part in parts:
        digests_of.setdefault(part["input"], []).append(part["xxh3"])
    for number, source in enumerate(sources):
        digests = digests_of.get(number, [])
        whole = (
            digests[0]
            if len(digests) == 1
            else xxhash.xxh3_128("".join(digests).encode()).hexdigest()
        )
        described.append({**source, "xxh3_of_parts": whole if digests else None})
    return described


def write_rejects(file: Path, folder: Path, plan: WorkPlan, receipts: Sequence[Receipt]) -> None:
    """Writes the rows that were dropped, in order, each with file, row, reason and bytes."""
    before: Counter[int] = Counter()
    is_whole = not plan.units or plan.units[0].number == 0
    with disk_told(file), replacing(file, "w") as out:
        for unit, receipt in zip(plan.units, receipts, strict=True):
            with open(unit_file(folder, unit.number, "rejects"), encoding="utf-8") as stream:
                for line in stream:
                    row = json.loads(line)
                    row["file"] = plan.sources[unit.source].name
                    if is_whole or before[unit.source] or unit.start == 0:
                        row["row"] += before[unit.source]
                    else:
                        row["part_start"] = unit.start  # a shard does not know the rows before it
                    out.write(json.dumps(row, sort_keys=True) + "\n")
            before[unit.source] += receipt.lines
