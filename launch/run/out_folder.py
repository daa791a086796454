"""The folder that a command writes into, looked at before anything runs."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from frontload.recipes.errors import RecipeError


def check_out(out: Path, *, what: str) -> Path:
    """Returns `out`; `what` is what goes there, for the message.

    Raises: RecipeError when the folder is none, or can't be made.
    """
    place = [out.absolute(), *out.absolute().parents]
    there = next(one for one in place if one.exists())
    found = ""
    if not there.is_dir() or not os.access(there, os.W_OK):
        found = f"{there} is {'not writable' if there.is_dir() else 'not a folder'}"
    else:
        found = _try(out, made=[one for one in place if not one.exists()])
    if found:
        raise RecipeError(
            f"--out {out}",
            found=found,
            rule=f"{what} goes into a folder that exists or can be made",
            do="name another folder with --out",
        )
    return out


def _try(out: Path, *, made: Sequence[Path]) -> str:
    """Why the folder can't be made, as below /proc; "" if it can: then it is taken away again."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"no folder can be made there ({error.strerror})"
    for folder in made:
        with suppress(OSError):  # somebody has put something into it meanwhile
            folder.rmdir()
    return ""
