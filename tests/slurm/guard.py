"""The process above all processes of a cluster: whatever becomes of its parent, it ends them.

It reads one JSON line per command from stdin: {"start": [words], "log": path} starts a daemon and
answers with its process id. When stdin ends, because the parent closed it or is gone, it kills
every process below itself. Steps of Slurm, which leave their parents, come to it: it is their
reaper.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
REAP_SECONDS = 0.2


def below(pid: int) -> list[int]:
    """The processes below `pid` that live, at any depth."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found: list[int] = []
    ahead = [pid]
    while ahead:
        ahead = [child for one in ahead for child in children.get(one, [])]
        found += ahead
    return found


def _follow_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(words: list[str], log: str) -> int:
    with open(log, "ab") as file:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=_follow_parent,
        ).pid


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_all() -> None:
    """Kills until nothing is left: a process may start another while it is looked at."""
    end = time.monotonic() + 10.0
    while (left := below(os.getpid())) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        _reap()


def main() -> None:
    """Serves until stdin ends."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    text = b""
    try:
        while True:
            ready, _, _ = select.select([sys.stdin.fileno()], [], [], REAP_SECONDS)
            _reap()
            if not ready:
                continue
            chunk = os.read(sys.stdin.fileno(), 65_536)
            if not chunk:
                return
            *lines, text = (text + chunk).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                print(_start(asked["start"], asked["log"]), flush=True)
    finally:
        _end_all()


if __name__ == "__main__":
    main()
