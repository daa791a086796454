"""Warm worker processes: started once, they run ready stages in process, one at a time.

Both sides pickle to each other over a socket pair that nobody else holds.
A worker imports what stages need while it waits, and dies with its parent: no orphan holds a lock
after the runner was killed. It sees the GPU that it was given, or none.
"""

import contextlib
import faulthandler
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from frontload.launch import torchrun
from frontload.launch.stage.alone import Meter, make_alone
from frontload.launch.stage.jobs import Finished, Job, Tick, die_with_parent
from frontload.launch.stage.workspace import Report
from frontload.launch.store import FULL_DISK, Store, Ticket
from frontload.launch.study.crew import NO_GPU, VISIBLE
from frontload.recipes.errors import DiskFull, FrontloadError, StageError

STOPPED = "T"  # state of a process, proc(5)
STOP_SECONDS = 5.0
STOPPED_SECONDS = 60.0  # ours: a process that a signal stopped for so long is ended
LOOK_SECONDS = 5.0  # between two looks for one


class Worker:
    """The parent's side of one worker process."""

    def __init__(self, *, threads: int, preload: Sequence[str], gpu: str = NO_GPU) -> None:
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "frontload.launch.study.workers",
            str(theirs.fileno()),
            *preload,
        ]
        self.process = subprocess.Popen(
            command,
            pass_fds=(theirs.fileno(),),
            env=worker_environment(threads, gpu),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the parent, which stops the workers
        )
        theirs.close()
        self.gpu = gpu
        self.connection = Connection(ours.detach())
        self.job: Job | None = None
        self._ended = threading.Event()
        self._stopped_seconds = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def start(self, job: Job) -> None:
        """Sends a job to an idle worker."""
        self.job = job
        self.connection.send(job)

    def receive(self) -> Tick | Finished | None:
        """The next message, or None if the process is gone."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            return None

    def death(self) -> str:
        """Why the process is gone, in words."""
        code = self.process.wait()
        self._ended.set()
        if self._stopped_seconds >= STOPPED_SECONDS:
            return (
                f"its worker process was stopped by a signal for {STOPPED_SECONDS:g} s, and ended"
            )
        if code >= 0:
            return f"its worker process ended with status {code}"
        name = signal.Signals(-code).name
        hint = " (often: out of memory)" if -code == signal.SIGKILL else ""
        return f"its worker process was killed by {name}{hint}"

    def stop(self) -> None:
        """Ends the process and everything it started."""
        self._ended.set()
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self.connection.close()

    def _watch(self) -> None:
        """Ends a worker that does not run because a signal stopped it, or the agent of its ranks.

        It raises nothing, and all that needs its stage would wait. Time is what this process lived
        through itself.
        """
        before = time.monotonic()
        while not self._ended.wait(LOOK_SECONDS):
            now = time.monotonic()
            lived, before = min(now - before, 2 * LOOK_SECONDS), now
            is_stopped = STOPPED in states_of_group(self.process.pid)
            self._stopped_seconds = self._stopped_seconds + lived if is_stopped else 0.0
            if self._stopped_seconds >= STOPPED_SECONDS:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                return


def states_of_group(group: int) -> set[str]:
    """The states of the processes of a process group, as /proc writes them; T is stopped."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group:
                found.add(state)
    return found


def worker_environment(threads: int, gpu: str = NO_GPU) -> dict[str, str]:
    """The environment of a worker: libraries read threads and devices when they are imported."""
    count = str(threads)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHASHSEED": "0",
        VISIBLE: gpu,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "RAYON_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "false",
    }


# ---------------------------------------------------------------- the process itself


def serve(handle: int, preload: Sequence[str]) -> None:
    """Runs jobs until the parent closes the connection."""
    die_with_parent()
    connection = Connection(handle)
    for name in preload:
        if connection.poll():
            break
        _import_quietly(name)
    while True:
        try:
            job = connection.recv()
        except (EOFError, ConnectionError):
            return
        connection.send(
            run_job(job, lambda done, total, note: _tick(connection, done, total, note))
        )


def run_job(job: Job, report: Report) -> Finished:
    """Makes one stage and publishes it. Errors come back as values, in four parts."""
    meter, store = Meter(), job.store
    error: FrontloadError | None = None
    instead = torchrun.run_on_ranks if job.placement.world_size > 1 else None
    try:
        with _own_output(store.telemetry_file(job.ticket, "log")):
            try:
                make_alone(job, report, instead=instead)
            except Exception as caught:
                error = explain_failure(job.ticket, caught, store=store)
                traceback.print_exc()
    except OSError as caught:  # the log cannot be written: what failed before it is the reason
        error = error or explain_failure(job.ticket, caught, store=store)
    return meter.end(error)


def explain_failure(ticket: Ticket, error: Exception, *, store: Store) -> FrontloadError:
    """Any exception of a stage as a four-part error."""
    if isinstance(error, FrontloadError):
        return error
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno in FULL_DISK
        if full or "No space left on device" in str(cause):
            return DiskFull(
                f"stage {ticket.folder}",
                found=f"the disk of {store.root} is full ({cause})",
                rule="an artifact is published only when whole, so nothing of it was",
                do="free space and run the same command again; it goes on from here",
            )
        cause = cause.__cause__ or cause.__context__
    return StageError(
        f"stage {ticket.folder}",
        found=f"{type(error).__name__}: {error}",
        rule="a stage ends without an error",
        do=f"read {store.telemetry_file(ticket, 'log')}, mend the cause and run again",
    )


@contextmanager
def _own_output(path: Path) -> Iterator[None]:
    """Sends this process's stdout and stderr to a file while a stage runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file, _redirected(file.fileno(), 1, 2):
        yield


@contextmanager
def _redirected(target: int, *numbers: int) -> Iterator[None]:
    saved = [os.dup(number) for number in numbers]
    for number in numbers:
        os.dup2(target, number)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            for number, handle in zip(numbers, saved, strict=True):
                os.dup2(handle, number)
                os.close(handle)


def _tick(connection: Connection, done: int, total: int, note: str) -> None:
    connection.send(Tick(done=done, total=total, note=note))


def _import_quietly(name: str) -> None:
    """Imports ahead of need. What cannot be imported is told by the stage that needs it."""
    with open(os.devnull, "wb") as null, _redirected(null.fileno(), 2):
        try:
            module, _, function = name.partition(":")
            found = importlib.import_module(module)
            if function:
                getattr(found, function)()
        except (ImportError, FrontloadError):
            return


if __name__ == "__main__":
    # so that messages are of the module the parent knows
    from frontload.launch.study import workers

    faulthandler.enable()
    workers.serve(int(sys.argv[1]), sys.argv[2:])
