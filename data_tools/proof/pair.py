"""Proves a .bin/.idx pair in one pass of each file, in bounded memory, and names what is wrong.

Unlike `IndexedReader`, which refuses a broken pair at its first fault, this looks at everything
that can still be looked at, and tells apart which of two entries that disagree is the wrong one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from frontload.data_tools.disk.indexed import DTYPE_CODES, HEADER, MAGIC, bin_file, idx_file
from frontload.data_tools.proof.checks import Check, check, equal

CHUNK = 1 << 16  # entries of the .idx held at once: 1.3 MB


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What is known of a pair from elsewhere; None for what is not."""

    num_documents: int | None = None
    num_tokens: int | None = None
    dtype: str | None = None
    vocab_size: int | None = None
    end: int | None = None  # id that ends every document
    is_flat: bool = False  # every document is one sequence


@dataclass(frozen=True, kw_only=True)
class PairLayout:
    """Where the parts of an .idx lie, by its own header."""

    file: Path
    dtype: np.dtype
    num_sequences: int
    num_indices: int

    @property
    def pointers_at(self) -> int:
        return HEADER.size + 4 * self.num_sequences

    @property
    def documents_at(self) -> int:
        return HEADER.size + 12 * self.num_sequences

    @property
    def size_bytes(self) -> int:
        return self.documents_at + 8 * self.num_indices

    def lengths(self, stream: IO[bytes], first: int, last: int) -> np.ndarray:
        """Lengths of sequences [first, last), int64."""
        return _read(stream, HEADER.size + 4 * first, last - first, "<i4").astype(np.int64)

    def pointers(self, stream: IO[bytes], first: int, last: int) -> np.ndarray:
        """Byte pointers of sequences [first, last), int64."""
        return _read(stream, self.pointers_at + 8 * first, last - first, "<i8")

    def documents(self, stream: IO[bytes], first: int, last: int) -> np.ndarray:
        """Document indices [first, last), int64."""
        return _read(stream, self.documents_at + 8 * first, last - first, "<i8")


def _read(stream: IO[bytes], at: int, count: int, dtype: str) -> np.ndarray:
    stream.seek(at)
    return np.frombuffer(stream.read(count * np.dtype(dtype).itemsize), dtype)


def prove_index(prefix: Path, stated: Stated) -> tuple[list[Check], PairLayout | None]:
    """Checks an .idx against itself, its .bin's size and what is stated.

    The layout is None when the header is too broken to say where things are.
    """
    file = idx_file(prefix)
    checks, layout = _prove_header(file, stated)
    if layout is None:
        return checks, None
    with open(file, "rb") as stream:
        sizes = _prove_sequences(stream, layout, bin_file(prefix), stated)
        documents = _prove_documents(stream, layout, is_flat=stated.is_flat)
    checks += [*sizes, *documents]
    structure_holds = all(one.holds for one in [*sizes, *documents])
    return checks, layout if structure_holds else None


def _prove_header(file: Path, stated: Stated) -> tuple[list[Check], PairLayout | None]:
    size = file.stat().st_size
    with open(file, "rb") as stream:
        head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        short = check("idx header is whole", f"{size} bytes", False, where=f"{file} byte {size}")
        return [short], None
    magic, version, code, num_sequences, num_indices = HEADER.unpack(head)
    at_magic = next((at for at, byte in enumerate(magic) if byte != MAGIC[at]), 0)
    dtype = DTYPE_CODES.get(code)
    is_dtype = dtype is not None and stated.dtype in (None, dtype.name)
    checks = [
        check("idx magic", magic, magic == MAGIC, where=f"{file} byte {at_magic}"),
        check("idx version is 1", version, version == 1, where=f"{file} byte 9"),
        check(
            "idx dtype",
            f"code {code}, {dtype or 'unknown'}"
            + ("" if is_dtype or not stated.dtype else f"; the manifest states {stated.dtype}"),
            is_dtype,
            where=f"{file} byte 17",
        ),
    ]
    known = dtype if dtype is not None and is_dtype else np.dtype(stated.dtype or np.uint16)
    layout = PairLayout(
        file=file, dtype=known, num_sequences=num_sequences, num_indices=num_indices
    )
    is_as_long = layout.size_bytes == size
    claim = f"{num_sequences} sequences and {num_indices} document indices fill the .idx"
    found = f"{size} bytes" + ("" if is_as_long else f"; they take {layout.size_bytes}")
    where = f"{file} byte {_wrong_count(layout, size, stated)}"
    checks.append(check(claim, found, is_as_long, where=where))
    is_usable = is_as_long and (is_dtype or stated.dtype is not None)
    return checks, layout if is_usable else None


def _wrong_count(layout: PairLayout, size: int, stated: Stated) -> int:
    """The byte to blame when counts and size disagree: a count, or the end of the file."""
    if stated.num_documents is not None and layout.num_indices != stated.num_documents + 1:
        return 26
    if stated.num_documents is not None and stated.is_flat:
        is_count = layout.num_sequences != stated.num_documents
        return 18 if is_count else min(size, layout.size_bytes)
    return min(size, layout.size_bytes) if layout.size_bytes < 1 << 62 else 18


def _prove_sequences(
    stream: IO[bytes], layout: PairLayout, data: Path, stated: Stated
) -> list[Check]:
    """Lengths and pointers follow from each other, and end where the .bin ends."""
    width, count = layout.dtype.itemsize, layout.num_sequences
    total, bad_pointer, bad_length, end = 0, -1, -1, 0
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count)
        lengths = layout.lengths(stream, first, last)
        pointers = layout.pointers(stream, first, min(last + 1, count))
        if first == 0 and pointers[0] != 0:
            bad_pointer = 0
        steps = np.diff(pointers)
        off = (steps != lengths[: len(steps)] * width) | (lengths[: len(steps)] < 0)
        if off.any() and bad_pointer < 0 and bad_length < 0:
            at = first + int(np.argmax(off))
            is_pointer = _is_pointer_wrong(stream, layout, at)
            bad_pointer, bad_length = (at + 1, -1) if is_pointer else (-1, at)
        total += int(lengths.sum())
        end = int(pointers[last - first - 1] + lengths[-1] * width)
    size = data.stat().st_size
    if count and bad_pointer < 0 and bad_length < 0 and end != size:
        is_last_length = stated.num_tokens is not None and stated.num_tokens * width == size
        bad_length = count - 1 if is_last_length else -1
    checks = [
        check(
            "idx pointers rise by the lengths",
            f"{count} sequences" if bad_pointer < 0 else f"sequence {bad_pointer} points elsewhere",
            bad_pointer < 0,
            where=f"{layout.file} byte {layout.pointers_at + 8 * bad_pointer}",
        ),
        check(
            "idx lengths are those between the pointers",
            f"{total} tokens" if bad_length < 0 else f"sequence {bad_length} has another length",
            bad_length < 0,
            where=f"{layout.file} byte {HEADER.size + 4 * bad_length}",
        ),
    ]
    if bad_length >= 0 or bad_pointer >= 0:
        return checks
    found = f"{size} bytes" + ("" if end == size else f"; the .idx counts {end}")
    where = f"{data} byte {min(size, end)}"
    checks.append(check("bin is as long as the .idx counts", found, end == size, where=where))
    if stated.num_tokens is not None:
        checks.append(equal("tokens", total, stated.num_tokens, where=layout.file))
    return checks


def _is_pointer_wrong(stream: IO[bytes], layout: PairLayout, at: int) -> bool:
    """Whether pointer at + 1 is wrong, and not length `at`: skipping it makes the sum right."""
    if at + 2 >= layout.num_sequences:
        return layout.lengths(stream, at, at + 1)[0] >= 0 and _ends_well(stream, layout, at)
    lengths = layout.lengths(stream, at, at + 2)
    pointers = layout.pointers(stream, at, at + 3)
    skipped = int(lengths.sum()) * layout.dtype.itemsize
    return bool(lengths.min() >= 0 and pointers[2] - pointers[0] == skipped)


def _ends_well(stream: IO[bytes], layout: PairLayout, at: int) -> bool:
    """For the last pointer: whether the .bin ends where both lengths put its end."""
    lengths = layout.lengths(stream, at, layout.num_sequences)
    start = int(layout.pointers(stream, at, at + 1)[0])
    end = start + int(lengths.sum()) * layout.dtype.itemsize
    return layout.file.with_suffix(".bin").stat().st_size == end


def _prove_documents(stream: IO[bytes], layout: PairLayout, *, is_flat: bool) -> list[Check]:
    """Document indices run from 0 to the sequences and never fall."""
    count, before, bad = layout.num_indices, 0, -1
    for first in range(0, count, CHUNK):
        found = layout.documents(stream, first, min(first + CHUNK, count))
        if is_flat:
            off = found != np.arange(first, first + len(found))
        else:
            off = np.diff(found, prepend=before) < 0
            off |= (found < 0) | (found > layout.num_sequences)
        if off.any():
            bad = first + int(np.argmax(off))
            break
        before = int(found[-1])
    if bad < 0 and (count == 0 or layout.documents(stream, 0, 1)[0] != 0):
        bad = 0
    if bad < 0 and before != layout.num_sequences:
        bad = count - 1
    if bad > 0 and not is_flat and _is_one_before_wrong(stream, layout, bad):
        bad -= 1
    shown = f"{count - 1} documents"
    if bad >= 0 and count:
        shown = f"index {bad} is {layout.documents(stream, bad, bad + 1)[0]}"
    return [
        check(
            "idx document indices rise from 0 to the sequences",
            shown,
            bad < 0,
            where=f"{layout.file} byte {layout.documents_at + 8 * max(bad, 0)}",
        )
    ]


def _is_one_before_wrong(stream: IO[bytes], layout: PairLayout, at: int) -> bool:
    """Whether the entry before a fall is the wrong one: without it nothing falls."""
    found = layout.documents(stream, max(at - 2, 0), at + 1)
    is_in_range = 0 <= found[-1] <= layout.num_sequences
    return bool(is_in_range and len(found) == 3 and found[0] <= found[2])


def document_ends(stream: IO[bytes], layout: PairLayout) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (document numbers, byte of each one's last token), empty documents left out."""
    width, step = layout.dtype.itemsize, CHUNK // 16
    for first in range(0, layout.num_indices - 1, step):
        last = min(first + step, layout.num_indices - 1)
        indices = layout.documents(stream, first, last + 1)
        low, high = int(indices[0]), int(indices[-1])
        if low == high:
            continue
        pointers = layout.pointers(stream, low, high)
        end = pointers[-1] + layout.lengths(stream, high - 1, high) * width
        starts = np.append(pointers, end)[indices - low]
        numbers = np.flatnonzero(np.diff(starts) > 0)
        yield first + numbers, starts[numbers + 1] - width
