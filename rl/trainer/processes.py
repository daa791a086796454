"""Starts veRL's trainer and ends every process that it started, whatever happened."""

import contextlib
import ctypes
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from frontload.recipes.errors import StageError
from frontload.rl.plugins.lean_ray import start_lean_nodes
from frontload.rl.plugins.lean_start import prepare
from frontload.rl.trainer.local_run import RUN_MARK
from frontload.rl.trainer.settings import TrainerSettings

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0
REAP_SECONDS = 2.0  # for children asked to end, before they are made to
SOCKET_ROOM = 70  # bytes Ray adds to its folder for a socket's path, which ends at 107
SHORT_FOLDER = Path("/tmp")


@contextmanager
def ray_folder(note: Path) -> Iterator[Path]:
    """A short private folder for Ray's sockets and logs; `note` remembers it for after a kill."""
    if note.is_file():
        earlier = note.read_text()
        end_processes(earlier.rpartition("/")[2])  # of a killed run, which end by themselves late
        shutil.rmtree(earlier, ignore_errors=True)
    base = Path(tempfile.gettempdir())
    if len(str(base)) + len("/frontload-12345678") + SOCKET_ROOM > 107:
        base = SHORT_FOLDER
    folder = Path(tempfile.mkdtemp(prefix="frontload-", dir=base))
    note.write_text(str(folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)


@contextmanager
def running_trainer(settings: TrainerSettings) -> Iterator[subprocess.Popen[bytes]]:
    """veRL's `main_ppo` in its own process, which dies with this one; its log is our output."""
    process = subprocess.Popen(
        [sys.executable, "-m", "frontload.rl.trainer.processes", *settings.overrides],
        env={**os.environ, **settings.environment},
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        end_run(settings.environment[RUN_MARK], first=process)


def check_end(process: subprocess.Popen[bytes], log: str) -> None:
    """Refuses a trainer that failed.

    Raises: StageError with its status.
    """
    if process.returncode:
        raise StageError(
            "veRL's trainer",
            found=f"it ended with status {process.returncode}",
            rule="main_ppo ends without an error",
            do=f"read {log}, mend the cause and run again; it goes on from its last checkpoint",
        )


def end_run(mark: str, *, first: subprocess.Popen[bytes]) -> None:
    """Ends the trainer, then whatever carries the run's mark, and waits until all are gone."""
    if first.poll() is None:
        first.terminate()  # Ray's driver takes its processes with it
        try:
            first.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            first.kill()
    first.wait()
    end_processes(mark)


def end_processes(mark: str) -> None:
    """Ends whatever carries a run's mark, and waits until all are gone."""
    deadline = time.monotonic() + GRACE_SECONDS
    for number in (signal.SIGTERM, signal.SIGKILL):
        while left := processes_of(mark):
            for process in left:
                _signal(process, number)
            psutil.wait_procs(left, timeout=0.5)
            if number == signal.SIGTERM and time.monotonic() > deadline:
                break


def processes_of(mark: str) -> list[psutil.Process]:
    """The processes that inherited the run's mark, this one and the dead left out."""
    found = []
    for process in psutil.process_iter():
        try:
            carries = process.environ().get(RUN_MARK) == mark
            if carries and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for process in found if process.pid != os.getpid()]


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def run_main_ppo(arguments: list[str]) -> None:
    """Runs `python -m verl.trainer.main_ppo` in this process, which ends with its parent."""
    import ray

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prepare()
    start_lean_nodes()
    sys.argv = ["main_ppo", *arguments]
    with waited_for():
        try:
            runpy.run_module("verl.trainer.main_ppo", run_name="__main__")
        finally:
            ray.shutdown()


@contextmanager
def waited_for() -> Iterator[None]:
    """Ends and waits for everything the block started, orphans too: their CPU time is counted.

    The system adds a process's time to the one that waits for it, so each level has to: Ray's node
    for its workers (lean_ray.py), this process for the node and for what the node leaves, the
    stage's worker for this process. It waits for any child, so it is for a process of its own.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        own, begin = psutil.Process(), time.monotonic()
        with contextlib.suppress(ChildProcessError):  # there is none left
            while True:
                if os.waitpid(-1, os.WNOHANG)[0]:
                    continue
                late = time.monotonic() - begin > REAP_SECONDS
                for process in own.children(recursive=True):
                    _signal(process, signal.SIGKILL if late else signal.SIGTERM)
                time.sleep(0.1)


if __name__ == "__main__":
    run_main_ppo(sys.argv[1:])
