"""Whole-file writing of streams and arrays, by one rename, and reading of JSON and arrays."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from frontload.recipes.errors import ArtifactError


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
            do="delete the artifact's folder and run the stage again",
        ) from error
    except ValueError as error:
        raise ArtifactError(
            f"reading {path}",
            found=f"not JSON ({error})",
            rule="the file is written whole and never edited",
            do="delete the artifact's folder and run the stage again",
        ) from error


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
            do="delete the artifact's folder and run the stage again",
        ) from error
    if array.dtype != np.dtype(dtype):
        raise ArtifactError(
            f"reading {path}",
            found=f"dtype {array.dtype}",
            rule=f"the file holds {np.dtype(dtype)}",
            do="delete the artifact's folder and run the stage again",
        )
    return array
