"""The agent's look-out for ranks that stand still: who it is, since when, and their end.

A process that is stopped, or waits for ever, raises nothing and hears no SIGTERM: it is killed, and
to torchrun that is a rank that died. Each agent sees the ranks of its own node.
"""

import contextlib
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from frontload.launch.ranks.beats import (
    ALIVE,
    BEAT,
    COUNT,
    NUM_WORDS,
    PART,
    SHOW_STACKS,
    STACKS,
    STEP,
    STOPPED,
    WORD_BYTES,
    About,
)
from frontload.recipes.artifact import Part
from frontload.recipes.errors import StageError

POLL_SECONDS = 0.5
MOST_GAP_SECONDS = 2 * POLL_SECONDS  # a longer one is a pause of this process
STACKS_SECONDS = 0.5  # for the ranks to write where they stand
LEAVE_SECONDS = 6.0  # ours: for an agent that was itself asked to stop to end with its ranks
SILENT_SHARE = 0.5  # of hang_seconds: a thread that beats ten times in it has missed five

WORDS = {
    Part.STEP: "its own part of step {}",
    Part.EXCHANGE: "the exchange with other ranks in step {}",
    Part.START: "the start, at step {}",
    Part.FIRST_STEP: "the first step of this start, step {}",
    Part.SAVE: "a checkpoint of step {}",
    Part.PUBLISH: "publishing, after step {}",
    Part.END: "its end, after step {}",
}


@dataclass(frozen=True, kw_only=True)
class Beat:
    """One rank as its agent sees it."""

    about: About
    count: int  # marks since its start; ranks of a run pass the same ones
    step: int
    part: Part
    still_seconds: float  # since its main thread passed a mark
    silent_seconds: float  # since any of its threads ran

    @property
    def limit(self) -> tuple[str, float]:
        """The field that says how long it may stand where it is, and its value."""
        if self.part in (Part.STEP, Part.EXCHANGE):
            return "hang_seconds", self.about.hang_seconds
        return "pause_seconds", self.about.pause_seconds

    @property
    def is_late(self) -> bool:
        """Whether it stands still for too long, or its process does not run at all."""
        gone = self.is_silent and self.silent_seconds > self.about.hang_seconds
        return gone or self.still_seconds > self.limit[1]

    @property
    def is_silent(self) -> bool:
        """Whether its process does not run. At its end an interpreter has no threads to show it."""
        return (
            self.part != Part.END and self.silent_seconds > SILENT_SHARE * self.about.hang_seconds
        )


def find_hung(beats: Sequence[Beat]) -> list[Beat]:
    """The ranks that keep the others waiting; all of them if none stands out; mostly none.

    One late rank means that all wait or soon will. To blame are those whose process does not run,
    else those that have passed fewer marks than others: ranks wait for each other at the same one.
    """
    if not any(beat.is_late for beat in beats):
        return []
    silent = [beat for beat in beats if beat.is_silent]
    if silent:
        return silent
    least = min(beat.count for beat in beats)
    return [beat for beat in beats if beat.count == least]


def describe_hang(hung: Sequence[Beat], beats: Sequence[Beat], *, now: float) -> StageError:
    """The message: which ranks, where, since when. `now` is the wall clock's."""
    first = max(hung, key=lambda beat: max(beat.silent_seconds, beat.still_seconds))
    ranks = ", ".join(str(beat.about.rank) for beat in sorted(hung, key=lambda b: b.about.rank))
    knob, limit = first.limit
    where = WORDS[first.part].format(first.step)
    seconds, how = first.still_seconds, "all its ranks stand still in"
    if first.is_silent:
        seconds, how = first.silent_seconds, "no sign of life in"
        knob, limit = "hang_seconds", first.about.hang_seconds
    elif len(hung) < len(beats):
        how = "behind the other ranks, in"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now - seconds))
    missing = first.about.ranks_here - len(beats) if first.part == Part.START else 0
    more = f"; {missing} of its {first.about.ranks_here} ranks have not begun" if missing else ""
    elsewhere = "" if len(hung) < len(beats) or first.is_silent else "the cause may be elsewhere: "
    return StageError(
        f"rank {ranks} on host {first.about.host}",
        found=f"{how} {where} since {since}, for {seconds:.1f} s{more}",
        rule=f"a rank moves on within upkeep.{knob}, {limit:g} s",
        do="it is killed; torchrun, if restarts are left, starts all ranks again from the newest "
        f"whole checkpoint. If it comes again, {elsewhere}look at the hosts with "
        f"`frontload doctor --nodes`, or raise upkeep.{knob}",
    )


class Lookout:
    """What an agent has seen of the ranks of its node.

    Time is what this process itself has lived through: a job that was suspended as a whole, or a
    machine too busy to let it look, is not taken for a hang.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._at, self._lived = clock(), 0.0
        self._seen: dict[int, _Seen] = {}

    def look(self) -> list[Beat]:
        """The ranks of this node that live."""
        now = self._clock()
        self._lived += min(now - self._at, MOST_GAP_SECONDS)
        self._at = now
        read = [found for path in self._folder.glob(f"*{BEAT}") if (found := _read(path))]
        self._seen = {
            about.pid: _update(self._seen.get(about.pid), words, lived=self._lived)
            for about, words in read
        }
        return [
            Beat(
                about=about,
                count=int(words[COUNT]),
                step=int(words[STEP]),
                part=Part(int(words[PART])),
                still_seconds=self._lived - self._seen[about.pid].moved_at,
                silent_seconds=self._lived - self._seen[about.pid].alive_at,
            )
            for about, words in read
        ]

    def forget(self) -> None:
        """Judges every rank from now on."""
        self._seen = {}


@dataclass(frozen=True, kw_only=True)
class _Seen:
    count: float
    alive: float
    moved_at: float
    alive_at: float


def _update(before: _Seen | None, words: tuple[float, ...], *, lived: float) -> _Seen:
    count, alive = words[COUNT], words[ALIVE]
    return _Seen(
        count=count,
        alive=alive,
        moved_at=before.moved_at if before and before.count == count else lived,
        alive_at=before.alive_at if before and before.alive == alive else lived,
    )


def _read(path: Path) -> tuple[About, tuple[float, ...]] | None:
    content = path.read_bytes()
    size = NUM_WORDS * WORD_BYTES
    about = About(**json.loads(content[size:]))
    if _lives(about.pid):
        return about, struct.unpack(f"={NUM_WORDS}d", content[:size])
    path.unlink()
    path.with_suffix(STACKS).unlink(missing_ok=True)
    return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def watch_ranks(folder: Path) -> None:
    """Ends hung ranks, for as long as this process lives, and this agent once its ranks stopped."""
    lookout = Lookout(folder)
    while True:
        time.sleep(POLL_SECONDS)
        if (folder / STOPPED).exists():
            time.sleep(LEAVE_SECONDS)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        beats = lookout.look()
        hung = find_hung(beats)
        if hung:
            end_ranks(folder, hung, beats)
            lookout.forget()  # the others are about to end, for which they have time


def end_ranks(folder: Path, hung: Sequence[Beat], beats: Sequence[Beat]) -> None:
    """Says who is hung, writes it down with the others' stacks, and kills the process."""
    now = time.time()
    message = describe_hang(hung, beats, now=now)
    print(f"frontload: {message}", file=sys.stderr, flush=True)
    stacks = _stacks(folder, beats)
    for beat in hung:
        with contextlib.suppress(ProcessLookupError):
            os.kill(beat.about.pid, signal.SIGKILL)
        (folder / f"{beat.about.pid}{BEAT}").unlink()
    line = {
        "time": round(now, 3),
        "host": hung[0].about.host,
        "ranks": [beat.about.rank for beat in hung],
        "step": hung[0].step,
        "part": hung[0].part.name.lower(),
        "still_seconds": round(hung[0].still_seconds, 3),
        "silent_seconds": round(hung[0].silent_seconds, 3),
        "message": str(message),
        "stacks": stacks,
    }
    if hung[0].about.log:
        with contextlib.suppress(OSError):  # a full disk: the message is said and the rank ended
            Path(hung[0].about.log).parent.mkdir(parents=True, exist_ok=True)
            with open(hung[0].about.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _stacks(folder: Path, beats: Sequence[Beat]) -> dict[str, str]:
    """Rank -> where its threads stand, of those that still hear a signal."""
    asked = [beat.about for beat in beats if not beat.is_silent]
    for about in asked:
        with contextlib.suppress(ProcessLookupError):
            os.kill(about.pid, SHOW_STACKS)
    if asked:
        time.sleep(STACKS_SECONDS)
    files = {str(about.rank): folder / f"{about.pid}{STACKS}" for about in asked}
    return {rank: path.read_text(encoding="utf-8") for rank, path in files.items()}
