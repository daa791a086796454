"""What a rank does around its stages: hears signals, writes failures, tells that it ends."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frontload.launch.ranks.beats import FOLDER, Beats, say_stopped
from frontload.launch.ranks.seat import Seat
from frontload.recipes.artifact import Part, write_json
from frontload.recipes.errors import FrontloadError, StageError, Stopped


@contextmanager
def ended(beats: Beats | None) -> Iterator[None]:
    """Tells the agent that this rank is exiting, on success or failure."""
    try:
        yield
    finally:
        if beats is not None:
            beats.mark(Part.END)


@contextmanager
def heard_signals(asked: list[str]) -> Iterator[None]:
    """After SIGTERM or SIGUSR1 the list holds its name, and the loop ends with a checkpoint."""
    before = {
        number: signal.signal(number, lambda got, _: asked.append(signal.Signals(got).name))
        for number in (signal.SIGTERM, signal.SIGUSR1)
    }
    try:
        yield
    finally:
        for number, act in before.items():
            signal.signal(number, act)


@contextmanager
def told_failures(path: Path, seat: Seat) -> Iterator[None]:
    """Writes a failure that would come again to `path`, so that a restart does not try it again.

    Raises: StageError with the failure that an earlier start of the ranks wrote.
    """
    if seat.restarts and path.is_file():
        raise StageError(**json.loads(path.read_text(encoding="utf-8")))
    if seat.is_leader:
        path.unlink(missing_ok=True)
    try:
        yield
    except Stopped:
        say_stopped(os.environ.get(FOLDER, ""))
        raise
    except FrontloadError as error:
        if comes_again(error) and path.parent.is_dir():
            parts = {"asked": error.asked, "found": error.found, "rule": error.rule, "do": error.do}
            aside = path.with_name(f"{path.name}.{seat.rank}")
            write_json(aside, parts, is_synced=True)
            aside.replace(path)
        raise


def comes_again(error: BaseException | None) -> bool:
    """Whether a verdict stands by itself, without a failure of machine or network behind it."""
    while error is not None:
        if not isinstance(error, FrontloadError):
            return False
        error = error.__cause__
    return True
