"""A rank's beats: where it is and that it lives, in memory that the agent of its node reads."""

import faulthandler
import json
import mmap
import os
import select
import signal
import socket
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from frontload.launch.ranks.seat import Seat
from frontload.recipes.artifact import Part
from frontload.recipes.errors import Stopped
from frontload.recipes.machines.upkeep import Upkeep

FOLDER = "FRONTLOAD_BEATS"  # variable in which an agent names the folder of its ranks' beats
HANGS = "hangs.jsonl"  # of a run: ranks that stood still, with the stacks of the others
BEAT, STACKS = ".beat", ".stacks"
STOPPED = "stopped"  # file of a rank that was asked to stop and has saved
COUNT, STEP, PART, ALIVE = range(4)  # words of a beat, float64
NUM_WORDS, WORD_BYTES = 4, 8
BEATS_A_LIMIT = 10  # of the thread, in hang_seconds
MOST_SECONDS = 1.0  # between two of them
SHOW_STACKS = signal.SIGUSR2


@dataclass(frozen=True, kw_only=True)
class About:
    """What the agent must know of a rank to judge its beats."""

    rank: int
    ranks_here: int
    host: str
    pid: int
    hang_seconds: float
    pause_seconds: float
    log: str  # file that is told of a hang; "" = none


class Beats:
    """The rank's side. A mark is a few stores into shared memory: no call of the system, no clock.

    A thread shows that the process runs at all. It also ends a process that is asked to end while
    it waits for other ranks to begin: there is nothing to save, and nothing else would hear it.
    """

    def __init__(self, folder: Path, about: About) -> None:
        path = folder / f"{about.pid}{BEAT}"
        aside = path.with_suffix(".tmp")
        size = NUM_WORDS * WORD_BYTES
        aside.write_bytes(bytes(size) + json.dumps(asdict(about)).encode())
        with open(aside, "r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), size)).cast("d")
        self._stacks = open(path.with_suffix(STACKS), "w", encoding="utf-8")  # noqa: SIM115
        faulthandler.register(SHOW_STACKS, file=self._stacks, all_threads=True)
        self.mark(Part.START, step=0)
        aside.rename(path)
        heard, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        every = min(MOST_SECONDS, about.hang_seconds / BEATS_A_LIMIT)
        threading.Thread(target=self._live, args=(heard, every), daemon=True).start()

    def mark(self, part: Part, *, step: int | None = None) -> None:
        """Says what the main thread begins; the step stays if none is named."""
        words = self._words
        if step is not None:
            words[STEP] = step
        words[PART] = part
        words[COUNT] += 1.0

    def _live(self, heard: int, every: float) -> None:
        while True:
            self._words[ALIVE] += 1.0
            if select.select([heard], [], [], every)[0]:
                signals = os.read(heard, 64)
                if {signal.SIGTERM, signal.SIGUSR1} & set(signals) and self._words[
                    PART
                ] == Part.START:
                    os._exit(Stopped.exit_code)


def say_stopped(folder: str) -> None:
    """Says to the agent, if one listens, that this rank ends because it was asked to stop.

    All ranks of a run stop together, whoever was asked: an agent that was not would start its own
    again.
    """
    if folder:
        (Path(folder) / STOPPED).touch()


def start_beats(folder: str, seat: Seat, *, upkeep: Upkeep, log: Path | None) -> Beats | None:
    """The beats of this process, if an agent listens and the recipe looks for hangs."""
    if not folder or not upkeep.hang_seconds:
        return None
    about = About(
        rank=seat.rank,
        ranks_here=seat.ranks_here,
        host=socket.gethostname(),
        pid=os.getpid(),
        hang_seconds=upkeep.hang_seconds,
        pause_seconds=upkeep.pause_seconds,
        log=str(log or ""),
    )
    return Beats(Path(folder), about)
