"""Arrays that grow while they are written, as `.npy` files with the bytes that numpy.save gives."""

import io
import os
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np


class Sink(Protocol):
    """Takes the parts of one long array, in order."""

    def append(self, part: np.ndarray) -> None: ...


class ArrayWriter:
    """Writes `path` part by part, without holding more than one; renamed at the end.

    `row` is the shape of one item: () for a plain array.
    """

    def __init__(self, path: Path, dtype: type[np.generic], row: tuple[int, ...] = ()) -> None:
        self._path, self._dtype, self._row = path, np.dtype(dtype), row
        self._partial = path.with_name(path.name + ".partial")
        self._stream = open(self._partial, "wb")  # noqa: SIM115 - closed in __exit__
        self._items = 0
        self._header_bytes = self._stream.write(self._header())

    def append(self, part: np.ndarray) -> None:
        """Adds items of any integer dtype that the file's holds."""
        assert part.shape[1:] == self._row, f"items of shape {part.shape[1:]}, not {self._row}"
        self._stream.write(np.ascontiguousarray(part, dtype=self._dtype).data)
        self._items += len(part)

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._stream.close()
            self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        header = self._header()
        assert len(header) == self._header_bytes, "numpy leaves room in a header for the length"
        self._stream.seek(0)
        self._stream.write(header)
        self._stream.close()
        os.replace(self._partial, self._path)

    def _header(self) -> bytes:
        text = io.BytesIO()
        about = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._items, *self._row),
        }
        np.lib.format.write_array_header_1_0(text, about)
        return text.getvalue()
