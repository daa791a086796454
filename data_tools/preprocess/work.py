"""The folder beside the output that holds finished parts: locked by one run, told by a plan key."""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frontload.data_tools.files import read_json
from frontload.data_tools.indexed import bin_file, idx_file
from frontload.data_tools.preprocess.plan import Plan
from frontload.data_tools.preprocess.request import manifest_file
from frontload.data_tools.preprocess.unit import disk_told
from frontload.recipes.errors import RecipeError

REFUSED = "refused"  # of parts whose run ended with a refusal: no one is going to finish them


def work_folder(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".work")


@contextmanager
def locked(prefix: Path) -> Iterator[Path]:
    """Makes and locks the work folder.

    Raises: RecipeError when another run has it.
    """
    folder = work_folder(prefix)
    file = folder / "lock"
    while True:
        with disk_told(folder):
            folder.mkdir(exist_ok=True)
            try:
                number = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                continue  # the run that had it ended, and took the folder with it
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(number, 200).decode("utf-8", "replace").strip() or "another process"
            os.close(number)
            raise RecipeError(
                f"--output-prefix {prefix}",
                found=f"a run that is writing it ({holder})",
                rule="one run writes an output at a time",
                do="wait until it ends, or choose another prefix",
            ) from None
        if file.exists() and os.fstat(number).st_ino == file.stat().st_ino:
            break
        os.close(number)
    try:
        os.ftruncate(number, 0)
        os.write(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield folder
    finally:
        os.close(number)


def enter_plan(folder: Path, prefix: Path, plan: Plan) -> None:
    """Makes the folder this plan's, or goes on with what an earlier run of it left.

    Raises: RecipeError when the folder or the output is another request's.
    """
    file, refused = folder / "plan.json", folder / REFUSED
    if file.is_file():
        stated = read_json(file)
        if stated["key"] == plan.key:
            refused.unlink(missing_ok=True)
            return
        if not refused.exists() and any(folder.glob("unit-*.json")):
            raise RecipeError(
                f"--output-prefix {prefix}",
                found=f"{folder}, unfinished parts of another request: {_change(stated, plan)}",
                rule="parts of two requests are never mixed",
                do=f"run the earlier command to its end, or delete them with rm -r {folder}",
            )
        _empty(folder)
    for path in (manifest_file(prefix), bin_file(prefix), idx_file(prefix)):
        if path.exists():
            shutil.rmtree(folder)
            raise RecipeError(
                f"--output-prefix {prefix}",
                found=f"{path} is there, of another request or origin",
                rule="a finished output is never overwritten",
                do="delete it, or choose another prefix",
            )
    temporary = folder / "plan.json.partial"
    with disk_told(file):
        temporary.write_text(json.dumps(_described(plan), sort_keys=True, indent=1) + "\n")
        os.replace(temporary, file)


def mark_refused(folder: Path) -> None:
    """Notes that the run was refused for its rows: a corrected request may have the folder."""
    with disk_told(folder):
        (folder / REFUSED).touch()


def _empty(folder: Path) -> None:
    """Deletes everything but the lock, the plan last: no part is left without one to name it."""
    last = [folder / "plan.json", folder / REFUSED]
    for file in folder.iterdir():
        if file.name != "lock" and file not in last:
            file.unlink()
    for file in last:
        file.unlink(missing_ok=True)


def _described(plan: Plan) -> dict:
    sources = [[source.name, source.size_bytes, source.mtime_ns] for source in plan.sources]
    return {"key": plan.key, "request": plan.request, "sources": sources}


def _change(stated: dict, plan: Plan) -> str:
    now = _described(plan)
    names = [name for name in now["request"] if stated["request"].get(name) != now["request"][name]]
    if [*map(list, stated["sources"])] != now["sources"]:
        names.append("the inputs")
    return ", ".join(names) + " changed" if names else "--shard or --rejects changed"
