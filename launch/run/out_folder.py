"""The folder that a command writes into, looked at before anything runs."""

import os
from pathlib import Path

from frontload.recipes.errors import RecipeError


def check_out(out: Path, *, what: str) -> Path:
    """Returns `out`; `what` is what goes there, for the message.

    Raises: RecipeError when the folder is none, or can't be made.
    """
    there = next(one for one in (out, *out.absolute().parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise RecipeError(
            f"--out {out}",
            found=f"{there} is {'not writable' if there.is_dir() else 'not a folder'}",
            rule=f"{what} goes into a folder that exists or can be made",
            do="name another folder with --out",
        )
    return out
