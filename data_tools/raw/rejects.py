"""Where dropped rows may be written: never over a file that somebody needs."""

import json
from collections.abc import Iterable
from pathlib import Path

from frontload.recipes.errors import RecipeError


def check_rejects(file: Path | None, *, read: Iterable[Path], written: Iterable[Path] = ()) -> None:
    """Refuses a place for rejects before anything is read or written.

    `read` are files that the command reads; `written` are files and folders that it makes itself.

    Raises: RecipeError.
    """
    if file is None:
        return
    folder = file.absolute().parent
    if file.is_dir() or not folder.is_dir():
        raise _refusal(file, "a folder" if file.is_dir() else f"no folder {folder}")
    place = file.resolve()
    if any(path.resolve() in (place, *place.parents) for path in written):
        raise _refusal(file, "a file that this command writes itself")
    if not file.exists():
        return
    if any(path.exists() and file.samefile(path) for path in read):
        raise RecipeError(
            f"--rejects {file}",
            found="a file that is read",
            rule="an input is never written over",
            do="name another file",
        )
    if not _holds_rejects(file):
        raise RecipeError(
            f"--rejects {file}",
            found="a file that holds no rejects",
            rule="only the rejects of an earlier run are written over",
            do="name a new file",
        )


def _refusal(file: Path, found: str) -> RecipeError:
    return RecipeError(
        f"--rejects {file}",
        found=found,
        rule="rejects are one JSONL file in a folder that exists, outside of the output",
        do="name such a file",
    )


def _holds_rejects(file: Path) -> bool:
    """Whether a file is empty, or its first line is a row that was dropped."""
    if not file.is_file():
        return False
    with open(file, "rb") as stream:
        first = stream.readline()
    try:
        row = json.loads(first or b'{"row": 0, "reason": ""}')
    except ValueError:
        return False
    return isinstance(row, dict) and {"row", "reason"} <= set(row)
