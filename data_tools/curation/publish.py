"""A folder that appears whole: made beside its name, one writer at a time, published by a rename.

What a killed run had finished is found again by the next one, if it was made from the same things.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frontload.recipes.errors import ArtifactError, RecipeError

WORK = "work"  # what is removed before the folder is published


def partial_folder(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def check_out(out: Path) -> None:
    """Refuses a name under which no folder can appear.

    Raises: RecipeError.
    """
    if not out.absolute().parent.is_dir():
        raise RecipeError(
            f"--out {out}",
            found=f"no folder {out.absolute().parent}",
            rule="the result is one new folder in a folder that exists",
            do="make the folder first",
        )
    if out.exists() and not (out / "manifest.json").is_file():
        raise RecipeError(
            f"--out {out}",
            found="something that is no curation is there",
            rule="a result never replaces what it did not make",
            do="name another folder, or remove this one",
        )


@contextmanager
def published_folder(out: Path) -> Iterator[Path]:
    """The folder to write in; it becomes `out` when the block ends well.

    Raises: ArtifactError when another run writes the same folder.
    """
    folder = partial_folder(out)
    folder.mkdir(exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, out)
        (folder / WORK).mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder / WORK)
        for file in sorted(folder.iterdir()):
            sync(file)
        sync(folder)
        os.rename(folder, out)
        sync(out.absolute().parent)
    finally:
        os.close(handle)


def _lock(handle: int, out: Path) -> None:
    """Locks the folder itself, so that the lock goes where it goes and ends with the process."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.path.samestat(os.fstat(handle), os.stat(partial_folder(out)))
    except OSError:
        is_there = False
    if not is_there:
        raise ArtifactError(
            f"--out {out}",
            found="another run is writing it now",
            rule="a folder has one writer",
            do="wait for it, or name another folder",
        )


def sync(path: Path) -> None:
    """Waits until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
