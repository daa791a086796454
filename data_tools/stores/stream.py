"""Bytes of a file wherever it lies: a store's are read ahead, asked for again, of one version."""

import io
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from frontload.data_tools.stores.errors import StoreFault, fault_of, moved, refusal, told
from frontload.data_tools.stores.path import StorePath, asked_now, open_store
from frontload.recipes.errors import FrontloadError

AHEAD_BYTES = 4 << 20  # ours: of a stream, asked for at once; 80 MB/s where an answer takes 50 ms
AHEAD_BLOCKS = 4  # ours: held, the next one fetched meanwhile: 16 MiB a stream
TABLE_BLOCK_BYTES = 1 << 20  # ours: of a table, whose columns are read side by side
TABLE_BLOCKS = 32
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)  # ours: 31 s, beside what the libraries try themselves


def open_binary(file: Path, *, is_table: bool = False) -> io.RawIOBase:
    """An unbuffered stream of a file of this machine or of a store.

    Raises: RecipeError, StageError for a file in a store that is not, or no longer, as it was.
    """
    if isinstance(file, StorePath):
        return StoreStream(file, is_table=is_table)
    return open(file, "rb", buffering=0)


def check_unmoved(file: Path) -> None:
    """Refuses a file in a store that was written anew since it was first looked at.

    Raises: RecipeError, StageError.
    """
    if isinstance(file, StorePath):
        with told(file):
            _compare(file)


def _compare(file: StorePath) -> None:
    was, now = file.stored(), asked_now(file)
    if (now.version, now.size_bytes) != (was.version, was.size_bytes):
        raise moved(file, was=was.version, now=now.version)


class StoreStream(io.RawIOBase):
    """The bytes of a file in a store, of the version that its path is pinned to.

    The version is looked at when the file is opened. A store of S3 is asked for that version only;
    of others who reads calls `check_unmoved` at the end.
    """

    def __init__(self, file: StorePath, *, is_table: bool) -> None:
        self._file, self._is_table = file, is_table
        self._at = 0
        self._stored = file.stored()
        self._open: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stored.size_bytes}
        self._at = begin[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        block = TABLE_BLOCK_BYTES if self._is_table else AHEAD_BYTES
        left = max(self._stored.size_bytes - self._at, 0)
        wanted = min(len(target), left, block - self._at % block)  # of more the first is forgotten
        if not wanted:
            return 0
        data = self._read(wanted)
        target[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._leave()
        super().close()

    def _read(self, wanted: int) -> bytes:
        """At most that many bytes; asks again after a failure that may pass."""
        waits = list(WAITS_SECONDS)
        while True:
            try:
                if self._open is None:
                    _compare(self._file)
                    self._open = self._opened()
                self._open.seek(self._at)
                data = self._open.read(wanted)
                if not data:
                    raise EOFError(f"no byte behind {self._at} of {self._stored.size_bytes}")
                return data
            except FrontloadError:
                raise
            except Exception as error:
                self._leave()
                if not waits or fault_of(error) is not StoreFault.UNREACHABLE:
                    raise refusal(self._file, error, at=self._at) from None
                time.sleep(waits.pop(0))

    def _opened(self) -> Any:
        kind, size, blocks = "background", AHEAD_BYTES, AHEAD_BLOCKS
        if self._is_table:
            kind, size, blocks = "blockcache", TABLE_BLOCK_BYTES, TABLE_BLOCKS
        return open_store(self._file.scheme).open(
            self._file.url,
            "rb",
            block_size=size,
            cache_type=kind,
            cache_options={"maxblocks": blocks},
        )

    def _leave(self) -> None:
        """Forgets the connection; what it says at its end is of no use."""
        opened, self._open = self._open, None
        if opened is not None:
            with suppress(Exception):
                opened.close()
