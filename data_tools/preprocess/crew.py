"""Processes that encode units, and the messages between them and the process that asked.

A process whose parent is gone ends by itself: it sees the end of its pipe.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
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


@dataclass
class Member:
    """One process, and the pipe to it."""

    process: Any
    pipe: Connection


def start_member(
    target: Callable[..., None], arguments: tuple[Any, ...], *, others: Sequence[Member] = ()
) -> Member:
    """Starts a process that runs `target` with its end of a pipe and the arguments."""
    context: Any = multiprocessing.get_context(START)
    here, there = context.Pipe()
    foreign = [here, *(member.pipe for member in others)] if START == "fork" else []
    process = context.Process(target=_begin, args=(there, foreign, target, arguments), daemon=True)
    process.start()
    there.close()
    return Member(process, here)


def _begin(
    pipe: Connection,
    foreign: Sequence[Connection],
    target: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the command line's own would raise in here
    for other in foreign:  # the parent's ends: kept open here, its death would go unseen
        other.close()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a process
    gc.freeze()  # a collection would write to every page that the parent shares, and so copy it
    work = threading.Thread(target=_until_the_end, args=(target, pipe, arguments), daemon=True)
    with suppress(KeyboardInterrupt):
        work.start()  # a thread has a heap of its own; that of the parent is full of holes
        work.join()


def _until_the_end(
    target: Callable[..., None], pipe: Connection, arguments: tuple[Any, ...]
) -> None:
    with suppress(EOFError, OSError):
        target(pipe, *arguments)


def receive(member: Member) -> tuple[str, Any]:
    """The next message of a process.

    Raises: StageError when it died.
    """
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


def end_members(members: Sequence[Member]) -> None:
    """Ends processes, whatever they do."""
    for member in members:
        with suppress(OSError):
            member.pipe.close()
    for member in members:
        member.process.terminate()
    for member in members:
        member.process.join()


class EncoderCrew:
    """Encodes units in `workers` processes, or in this one when there is one worker."""

    def __init__(
        self, recipe: EncoderRecipe, *, workers: int, report: Callable[[int], object]
    ) -> None:
        self._recipe, self._report = recipe, report
        self._encoder: Encoder | None = None
        self._members: list[Member] = []
        if workers > 1:
            for _ in range(workers):
                self._members.append(start_member(_serve, (recipe,), others=self._members))

    def run(self, jobs: Iterable[UnitJob]) -> Iterator[Receipt]:
        """Yields what each unit gave, in the order in which they end.

        Raises: whatever a unit raised; StageError when a process died.
        """
        if not self._members:
            self._encoder = self._encoder or Encoder(self._recipe)
            for job in jobs:
                yield _work(job, self._encoder, self._recipe, self._report)
            return
        waiting = deque(jobs)
        busy: dict[Connection, Member] = {}
        for member in self._members:
            if waiting:
                member.pipe.send(waiting.popleft())
                busy[member.pipe] = member
        while busy:
            for pipe in wait(list(busy)):
                member = busy[pipe]  # type: ignore[index]
                kind, value = receive(member)
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

    def close(self) -> None:
        """Ends the processes."""
        end_members(self._members)


def _work(
    job: UnitJob, encoder: Encoder, recipe: EncoderRecipe, report: Callable[[int], object]
) -> Receipt:
    return encode_unit(job, encoder, encoder_name=str(recipe.choice), report=report)


def _serve(pipe: Connection, recipe: EncoderRecipe) -> None:
    """What a process does: job by job until its pipe ends."""
    encoder = Encoder(recipe)
    while True:
        job = pipe.recv()
        try:
            answer = ("done", _work(job, encoder, recipe, _telling(pipe)))
        except Exception as error:
            answer = ("failed", portable(error))
        pipe.send(answer)


def _telling(pipe: Connection) -> Callable[[int], None]:
    def tell(num_bytes: int) -> None:
        try:
            pipe.send(("read", num_bytes))
        except OSError:
            os._exit(1)  # the parent is gone

    return tell


def portable(error: Exception) -> Exception:
    """An error that another process can read."""
    if isinstance(error, FrontloadError | ParityError):
        return error
    return RuntimeError(f"{type(error).__name__} in a worker process: {error}")
