"""Whole-file writing of streams and arrays, by one rename, and reading of JSON and arrays."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from frontload.data_tools.stores.stream import open_binary
from frontload.recipes.errors import ArtifactError

MEND = "put the file back, or delete what it belongs to and run the command that made it again"


@contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` and renames it to `path` when the block ends well."""
    temporary = path.with_name(path.name + ".partial")
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(temporary, mode, encoding=encoding) as stream:
            yield stream
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes."""
    with open_binary(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Reads a JSON file of an artifact.

    Raises: ArtifactError when the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"reading {path}",
            found="there is no such file",
            rule="a finished artifact holds all of its files",
            do=MEND,
        ) from error
    except ValueError as error:
        raise ArtifactError(
            f"reading {path}",
            found=f"not JSON ({error})",
            rule="the file is written whole and never edited",
            do=MEND,
        ) from error


Shape = type | tuple[type, ...] | dict[str, "Shape"] | list["Shape"]
"""What JSON has to be: a type or one of some, an object's fields, a list's one kind of item."""


def read_object(path: Path, shape: dict[str, Shape]) -> dict[str, Any]:
    """Reads a JSON object that describes an artifact, and checks the fields that are read of it.

    Raises: ArtifactError when it is missing, not JSON, or not of that shape.
    """
    value = read_json(path)
    if found := _misfit(value, shape, at=""):
        raise ArtifactError(
            f"reading {path}",
            found=found,
            rule="a description has the fields of its format, and is never edited",
            do=MEND,
        )
    return value


def _misfit(value: object, shape: Shape, *, at: str) -> str:
    """The first place where a value is not of a shape, in words; nothing when it is."""
    parts: list[tuple[object, Shape, str]] = []
    kind = type(shape) if isinstance(shape, dict | list) else shape
    if not isinstance(value, kind):
        return f"{at or 'JSON that'} is a {type(value).__name__}"
    if isinstance(shape, dict) and isinstance(value, dict):
        for name in shape:
            place = f"{at}.{name}".lstrip(".")
            if name not in value:
                return f"no field {place}"
            parts.append((value[name], shape[name], place))
    if isinstance(shape, list) and isinstance(value, list):
        parts += [(one, shape[0], f"{at}.{number}") for number, one in enumerate(value)]
    found = (_misfit(one, inner, at=place) for one, inner, place in parts)
    return next(filter(None, found), "")


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes one array in numpy's .npy form."""
    with replacing(path) as stream:
        np.save(stream, array, allow_pickle=False)


def read_array(path: Path, dtype: type[np.generic]) -> np.ndarray:
    """Maps one .npy file read-only.

    Raises: ArtifactError when it is missing, torn or of another dtype.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(
            f"reading {path}",
            found=f"no readable array ({error})",
            rule="the file is one whole numpy array",
            do=MEND,
        ) from error
    if array.dtype != np.dtype(dtype):
        raise ArtifactError(
            f"reading {path}",
            found=f"dtype {array.dtype}",
            rule=f"the file holds {np.dtype(dtype)}",
            do=MEND,
        )
    return array
