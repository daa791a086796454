"""Processes that encode units, and the messages between them and the process that asked.

A process whose parent is gone ends by itself: it sees the end of its pipe.
"""

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from frontload.data_tools.preprocess.encoder import Encoder, EncoderRecipe, ParityError
from frontload.data_tools.preprocess.unit import Receipt, UnitJob, encode_unit
from frontload.recipes.errors import FrontloadError, StageError

START = "fork" if sys.platform == "linux" else "spawn"  # a fork shares the loaded tokenizer
Task = UnitJob | list[str]
"""A unit to encode, or texts to compare gigatoken with `tokenizers` on."""


@dataclass
class _Member:
    """One process, the pipe to it, and whether it has a task."""

    process: Any
    pipe: Connection


class Crew:
    """Runs tasks in `workers` processes, or in this one when there is one worker."""

    def __init__(
        self, recipe: EncoderRecipe, *, workers: int, report: Callable[[int], object]
    ) -> None:
        self._recipe, self._report = recipe, report
        self._encoder: Encoder | None = None
        self._members: list[_Member] = []
        if workers > 1:
            context: Any = multiprocessing.get_context(START)
            for _ in range(workers):
                here, there = context.Pipe()
                others = [member.pipe for member in self._members]
                process = context.Process(
                    target=_serve, args=(there, [here, *others], recipe), daemon=True
                )
                process.start()
                there.close()
                self._members.append(_Member(process, here))

    def run(self, tasks: Iterable[Task]) -> Iterator[Receipt | None]:
        """Yields what each task gave, in the order in which they end.

        Raises: whatever a task raised; StageError when a process died.
        """
        if not self._members:
            self._encoder = self._encoder or Encoder(self._recipe)
            for task in tasks:
                yield _work(task, self._encoder, self._recipe, self._report)
            return
        waiting = deque(tasks)
        busy: dict[Connection, _Member] = {}
        for member in self._members:
            if waiting:
                member.pipe.send(waiting.popleft())
                busy[member.pipe] = member
        while busy:
            for pipe in wait(list(busy)):
                member = busy[pipe]  # type: ignore[index]
                kind, value = self._receive(member)
                if kind == "read":
                    self._report(value)
                    continue
                if kind == "failed":
                    raise value
                if waiting:
                    member.pipe.send(waiting.popleft())
                else:
                    del busy[member.pipe]
                yield value

    def _receive(self, member: _Member) -> tuple[str, Any]:
        try:
            return member.pipe.recv()
        except (EOFError, OSError) as error:
            member.process.join(5)
            code = member.process.exitcode
            raise StageError(
                f"worker process {member.process.pid}",
                found=f"it ended with code {code}" + (", killed" if (code or 0) < 0 else ""),
                rule="a worker lives until the run ends",
                do="look for a lack of memory (dmesg), lower --workers or --max-row-bytes, then"
                " run the same command: finished parts are kept",
            ) from error

    def close(self) -> None:
        """Ends the processes."""
        for member in self._members:
            with suppress(OSError):
                member.pipe.close()
        for member in self._members:
            member.process.terminate()
        for member in self._members:
            member.process.join()


def _work(
    task: Task, encoder: Encoder, recipe: EncoderRecipe, report: Callable[[int], object]
) -> Receipt | None:
    if isinstance(task, UnitJob):
        return encode_unit(task, encoder, encoder_name=str(recipe.choice), report=report)
    encoder.check(task)
    return None


def _serve(pipe: Connection, foreign: Sequence[Connection], recipe: EncoderRecipe) -> None:
    """What a process does: task by task until its pipe ends."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the command line's own would raise in here
    if START == "fork":
        for other in foreign:  # the parent's ends: kept open here, its death would go unseen
            other.close()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a process
    with suppress(EOFError, OSError, KeyboardInterrupt):
        encoder = Encoder(recipe)
        while True:
            task = pipe.recv()
            try:
                answer = ("done", _work(task, encoder, recipe, _telling(pipe)))
            except Exception as error:
                answer = ("failed", _portable(error))
            pipe.send(answer)


def _telling(pipe: Connection) -> Callable[[int], None]:
    def tell(num_bytes: int) -> None:
        try:
            pipe.send(("read", num_bytes))
        except OSError:
            os._exit(1)  # the parent is gone

    return tell


def _portable(error: Exception) -> Exception:
    if isinstance(error, FrontloadError | ParityError):
        return error
    return RuntimeError(f"{type(error).__name__} in a worker process: {error}")


def split_evenly(texts: Sequence[str], parts: int) -> list[list[str]]:
    """The texts dealt out in turns, so that each part costs about the same."""
    dealt = [list(texts[part::parts]) for part in range(parts)]
    return [part for part in dealt if part]
