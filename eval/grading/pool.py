"""A pool of warm processes that compare expressions; what overruns its limits is killed.

math-verify's own timeouts use signals, which threads cannot have, and stop no C code: here they are
off, and the limits are the operating system's.
"""

import json
import os
import queue
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from frontload.eval.grading import algebra
from frontload.recipes.errors import StageError

START_SECONDS = 120.0  # ours: importing sympy took 4 s on two busy cores; this is a dead process
GRACE_SECONDS = 2.0  # ours: what a process may take beyond an item's limit before it is replaced

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:];"
    " from frontload.eval.grading.algebra import serve; serve(sys.stdin, sys.stdout)"
)


@dataclass(frozen=True, kw_only=True)
class MathLimits:
    """What one comparison may cost.

    The clock of the processor decides on a machine with idle cores, so that the load of others does
    not turn a right answer into a timeout; the clock on the wall is the bound that always holds.
    """

    cpu_seconds: float = 3.0  # ours: 25 times the slowest honest pair of 150 of MATH-500
    seconds: float = 10.0  # on the wall
    size_bytes: int = 1 << 30  # of address space; sympy itself takes a quarter


class MathPool:
    """Compares expressions in up to `size` processes, each started when it is first needed.

    Calls may come from several threads. `close` (or the end of a `with` block) ends the processes;
    they also end by themselves when this process is gone.
    """

    def __init__(self, *, size: int = 1, limits: MathLimits | None = None) -> None:
        self.limits = limits or MathLimits()
        self._slots: queue.LifoQueue[_Comparer | None] = queue.LifoQueue()
        for _ in range(size):
            self._slots.put(None)
        self._size = size

    def compare(self, gold: str, prediction: str) -> str:
        """A verdict of `grade_math`: same, different, unreadable, timeout, out of memory or crash.

        Raises: StageError when the processes cannot be started at all.
        """
        comparer = self._slots.get()
        try:
            if comparer is None or not comparer.is_alive():
                comparer = _Comparer()
            verdict = comparer.ask(gold, prediction, limits=self.limits)
            if verdict is None:
                comparer.kill()
                comparer, verdict = None, algebra.CRASH
            return verdict
        except BaseException:
            if comparer is not None:
                comparer.kill()
            comparer = None
            raise
        finally:
            self._slots.put(comparer)

    def start(self) -> None:
        """Starts every process now, so that no answer waits for one."""
        comparers = [self._slots.get() or _Comparer() for _ in range(self._size)]
        for comparer in comparers:
            comparer.await_ready()
            self._slots.put(comparer)

    def close(self) -> None:
        """Ends the processes; the next comparison would start new ones."""
        for _ in range(self._size):
            comparer = self._slots.get()
            if comparer is not None:
                comparer.kill()
        for _ in range(self._size):
            self._slots.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Comparer:
    """One process that runs `grade_math.serve`."""

    def __init__(self) -> None:
        paths = [path for path in sys.path if path]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the one who waits
        )
        self._is_ready = False
        self._received = b""

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def await_ready(self) -> None:
        """Waits until math-verify is imported.

        Raises: StageError when it cannot be.
        """
        if self._is_ready:
            return
        message = self._read(START_SECONDS) or {"failed": "the process ended or hung at its start"}
        if "failed" in message:
            self.kill()
            raise StageError(
                "starting the process that compares expressions",
                found=message["failed"],
                rule="LaTeX is graded by math-verify, which the extra `eval` installs",
                do="install the packages of constraints.txt again (`make environment`)",
            )
        self._is_ready = True

    def ask(self, gold: str, prediction: str, *, limits: MathLimits) -> str | None:
        """The verdict, or None when the process itself is lost."""
        self.await_ready()
        request = {
            "gold": gold,
            "prediction": prediction,
            "cpu_seconds": limits.cpu_seconds,
            "seconds": limits.seconds,
            "bytes": limits.size_bytes,
        }
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        message = self._read(limits.seconds + GRACE_SECONDS)
        return None if message is None else message["verdict"]

    def _read(self, seconds: float) -> dict[str, Any] | None:
        """The next message, or None when none comes in time."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        waiter = select.poll()  # select() refuses descriptors beyond 1023, which a veRL worker has
        waiter.register(descriptor, select.POLLIN)
        while b"\n" not in self._received:
            left = max(0.0, deadline - time.monotonic())
            block = os.read(descriptor, 1 << 16) if waiter.poll(1000 * left) else b""
            if not block:
                return None
            self._received += block
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def kill(self) -> None:
        """Ends the process, and the comparison it may be in, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
