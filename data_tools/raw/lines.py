"""Lines of a byte stream in bounded memory, whole files or byte ranges, packed or not."""

import io
from collections.abc import Buffer, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from frontload.data_tools.raw.inputs import Format, file_format
from frontload.data_tools.raw.plain import open_plain
from frontload.data_tools.stores.stream import open_binary
from frontload.recipes.errors import RecipeError

BLOCK_BYTES = 1 << 20  # ours: read at a time; a block's lines are what a worker holds
HEAD_BYTES = 4096  # ours: how much of a line that is over size is kept to show

Read = Callable[[int], bytes]
"""At most that many bytes from where the last call ended; none at the end."""


@dataclass(frozen=True, slots=True)
class OverSizeLine:
    """A line that was too long to hold: its size without the line break, and its beginning."""

    num_bytes: int
    head: bytes


def split_lines(
    read: Read, *, max_row_bytes: int
) -> Iterator[list[bytes | memoryview | OverSizeLine]]:
    """Yields the lines of each block, without line breaks; holds a block and one line at most.

    A line within a block is a view of it, so that nothing is copied before it is parsed.
    """
    held: list[bytes] = []
    held_bytes = 0
    while block := read(BLOCK_BYTES):
        lines: list[bytes | memoryview | OverSizeLine] = []
        view, find, at = memoryview(block), block.find, 0
        while (end := find(b"\n", at)) >= 0:
            lines.append(view[at:end])
            at = end + 1
        if lines and held:
            first = bytes(view[: block.index(b"\n")])
            lines[0] = _joined([*held, first], held_bytes + len(first), max_row_bytes=max_row_bytes)
            held, held_bytes = [], 0
        if max_row_bytes < BLOCK_BYTES:
            lines = [_checked(line, max_row_bytes) for line in lines]
        if lines:
            yield lines
        if last := block[at:]:
            held_bytes += len(last)
            if held_bytes <= max_row_bytes or not held:
                held.append(last)
            else:
                held = [b"".join(held)[:HEAD_BYTES]]
    if held:
        yield [_joined(held, held_bytes, max_row_bytes=max_row_bytes)]


def _joined(parts: list[bytes], num_bytes: int, *, max_row_bytes: int) -> bytes | OverSizeLine:
    if num_bytes > max_row_bytes:
        return OverSizeLine(num_bytes, b"".join(parts)[:HEAD_BYTES])
    return b"".join(parts)


def _checked(
    line: bytes | memoryview | OverSizeLine, max_row_bytes: int
) -> bytes | memoryview | OverSizeLine:
    if not isinstance(line, OverSizeLine) and len(line) > max_row_bytes:
        return OverSizeLine(len(line), bytes(line[:HEAD_BYTES]))
    return line


class RangeReader:
    """Reads the lines that begin in the bytes [start, stop) of a plain file, each to its end.

    Ranges that tile a file give every line exactly once. `seen` is told each byte of the range
    itself, in order, and no other: digests of tiling ranges cover the file.
    """

    def __init__(
        self, file: Path, *, start: int, stop: int, seen: Callable[[Buffer], object] | None = None
    ) -> None:
        self._stream = open_binary(file)  # closed by `close`
        self._stop = stop
        self._seen = seen or (lambda data: None)
        self._at = start
        self._first = b""
        self._ends_line = True
        self._stream.seek(max(start - 1, 0))
        if start > 0 and self._stream.read(1) != b"\n":
            self._skip_line()

    def _skip_line(self) -> None:
        """Leaves the rest of a line that began before the range."""
        while block := self._in_range(BLOCK_BYTES):
            if (end := block.find(b"\n")) >= 0:
                self._first = block[end + 1 :]
                return

    def _in_range(self, size: int) -> bytes:
        block = self._stream.read(min(size, self._stop - self._at)) or b""
        self._at += len(block)
        self._seen(block)
        return block

    def __call__(self, size: int) -> bytes:
        block, self._first = self._first, b""
        if block := block or self._in_range(size):
            self._ends_line = block.endswith(b"\n")
            return block
        if self._ends_line:
            return b""
        block = self._stream.read(size) or b""  # behind the range: to the end of the open line
        if (end := block.find(b"\n")) >= 0:
            self._ends_line = True
            return block[: end + 1]
        return block

    def close(self) -> None:
        self._stream.close()


@contextmanager
def open_packed(
    file: Path,
    form: Format,
    *,
    report: Callable[[int], object] | None = None,
    seen: Callable[[Buffer], object] | None = None,
) -> Iterator[Read]:
    """A function that reads the lines of JSON of a file that is no plain JSONL.

    Of .gz and .zst, several members or one, the unpacked bytes; of plain text its documents.

    `report` is told how many packed bytes each call took; `seen` each packed byte, in order, when
    the block has read to the end.

    Raises: RecipeError naming file and offset when it is cut short or damaged.
    """
    if form is Format.TEXT:
        yield open_plain(file, report=report, seen=seen)
        return
    import pyarrow  # here, since only packed files and Parquet need it and it takes 0.4 s to load

    codec = {Format.GZIP: "gzip", Format.ZSTD: "zstd"}[form]
    num_bytes = file.stat().st_size
    packed = SeenStream(open_binary(file), seen or (lambda data: None))
    try:
        unpacked = pyarrow.CompressedInputStream(pyarrow.PythonFile(packed, "r"), codec)

        told = 0

        def read(size: int) -> bytes:
            nonlocal told
            try:
                data = unpacked.read(size)
                if report is not None:
                    report(packed.tell() - told)
                    told = packed.tell()
                return data
            except OSError as error:
                raise RecipeError(
                    f"reading {file} near byte {packed.tell()} of {num_bytes}",
                    found=f"a damaged or cut {codec} stream ({error})",
                    rule="a packed file is whole",
                    do=f"test it with {codec} -t (gzip passes over what follows its end); fetch it"
                    " again, pack it anew, or leave it out",
                ) from error

        yield read
        while packed.read(BLOCK_BYTES):  # behind the last member
            pass
    finally:
        packed.close()


class SeenStream:
    """A binary stream whose every byte is told when it is read."""

    def __init__(self, stream: io.RawIOBase, seen: Callable[[Buffer], object]) -> None:
        self._stream, self._seen = stream, seen
        self.closed = False

    def read(self, size: int) -> bytes:
        data = self._stream.read(size) or b""
        self._seen(data)
        return data

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self.closed = True
        self._stream.close()


@contextmanager
def open_lines(file: Path) -> Iterator[Read]:
    """A function that reads the lines of JSON of a file, whatever its format but Parquet."""
    form = file_format(file)
    if form is not Format.JSONL:
        with open_packed(file, form) as read:
            yield read
        return
    with open_binary(file) as stream:
        yield lambda size: stream.read(size) or b""
