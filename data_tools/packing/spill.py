"""Encoded sequences in input order, appended shard by shard, each with a line in a journal.

A killed run goes on behind the last whole line: what the files hold beyond it is cut off first.
"""

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from frontload.data_tools.packing.encode import Counts, EncodedSequence

ORIGIN_FIELDS = ("file", "row", "part")  # input number from 0, row from 1, cut from 0
PARTS = ("tokens", "mask", "lengths", "origin")


class Spill:
    """Appends sequences; a shard is there or not. Use as a context."""

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        self._folder, self._dtype = folder, np.dtype(dtype)
        self.counts = Counts()
        self.num_shards = self.num_sequences = 0
        self._files: dict[str, IO[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Spill":
        self._folder.mkdir(parents=True, exist_ok=True)
        sizes = self._read_journal()
        for part in PARTS:
            path = self._folder / part
            path.touch()
            self._files[part] = self._stack.enter_context(open(path, "r+b"))
            self._files[part].truncate(sizes.get(part, 0))
            self._files[part].seek(0, os.SEEK_END)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _read_journal(self) -> dict[str, int]:
        """Counts the whole lines that the files can back; returns the files' sizes behind them."""
        path, sizes, kept = self._folder / "journal", {}, 0
        if not path.is_file():
            return sizes
        on_disk = {
            part: file.stat().st_size if (file := self._folder / part).is_file() else 0
            for part in PARTS
        }
        with open(path, "r+b") as stream:
            for line in stream:
                entry = _parsed(line)
                if entry is None or any(on_disk[part] < entry["sizes"][part] for part in PARTS):
                    break
                kept += len(line)
                sizes = entry["sizes"]
                self._count(entry)
            stream.truncate(kept)
        return sizes

    def _count(self, entry: dict[str, Any]) -> None:
        self.num_shards += 1
        self.num_sequences += entry["sequences"]
        self.counts.add(entry["counts"])

    def add_shard(
        self, sequences: Iterable[tuple[tuple[int, int], EncodedSequence]], counts: Counts
    ) -> None:
        """Appends the sequences of a shard, ((file, row), sequence), and seals it."""
        number = 0
        for (file, row), one in sequences:
            number += 1
            self._files["tokens"].write(one.tokens.astype(self._dtype).tobytes())
            self._files["mask"].write(one.mask.tobytes())
            self._files["lengths"].write(np.array([len(one.tokens)], dtype="<i4").tobytes())
            self._files["origin"].write(np.array([file, row, one.part], dtype="<i8").tobytes())
        for stream in self._files.values():
            stream.flush()
            os.fsync(stream.fileno())
        sizes = {part: stream.tell() for part, stream in self._files.items()}
        entry = {"sizes": sizes, "sequences": number, "counts": counts.as_dicts()}
        with open(self._folder / "journal", "ab") as stream:
            stream.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._count(entry)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The entry of a journal's line; None for one that was torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


class SpillReader:
    """The sequences of a finished spill by number, mapped."""

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        self.lengths = np.fromfile(folder / "lengths", dtype="<i4")
        self.origin = np.fromfile(folder / "origin", dtype="<i8").reshape(-1, len(ORIGIN_FIELDS))
        self._starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self._tokens = np.memmap(folder / "tokens", dtype=dtype, mode="r")
        self._mask = np.memmap(folder / "mask", dtype=np.uint8, mode="r")

    def tokens(self, number: int) -> np.ndarray:
        """Tokens of one sequence."""
        return np.asarray(self._tokens[self._starts[number] : self._starts[number + 1]])

    def mask(self, number: int) -> np.ndarray:
        """Loss mask of one sequence."""
        return np.asarray(self._mask[self._starts[number] : self._starts[number + 1]])
