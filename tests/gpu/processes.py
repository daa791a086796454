"""A process of several checks: what it says while it runs, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from tests.gpu.findings import FAIL, NO_TIME, Finding

LOOK_SECONDS = 0.1


class Ended(NamedTuple):
    """A check that is over."""

    check: str
    findings: list[Finding]
    seconds: float


class Answers:
    """The file of a process: a line for each check that begins or ends, and each finding."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _write(self, kind: str, content: Any) -> None:
        self._file.write(json.dumps([kind, content]) + "\n")
        self._file.flush()

    def begin(self, check: str) -> None:
        """The time of a check begins."""
        self._write("begin", check)

    def add(self, finding: Finding) -> None:
        """What it found, as soon as it is known."""
        self._write("finding", asdict(finding))

    def end(self, check: str) -> None:
        """It is over."""
        self._write("end", check)


class Process:
    """A started process, in a session of its own, so that what it started ends with it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, start_new_session=True, stderr=self._errors, env={**os.environ, **environment}
        )

    def poll(self) -> int | None:
        """Its exit code, once it has one."""
        return self._process.poll()

    def stop(self) -> None:
        """Ends it and what it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def last_words(self) -> str:
        """The last line that it wrote to stderr, all of which is passed on when it failed."""
        self._errors.seek(0)
        text = self._errors.read()
        if self._process.returncode != 0:
            sys.stderr.write(text[-4_000:])
        return (text.strip().splitlines() or ["no message"])[-1]

    def finish(self, seconds: float) -> tuple[int | None, str]:
        """Waits for it; its exit code (None: it was stopped) and its last words."""
        try:
            code: int | None = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            self.stop()
        return code, self.last_words()


def start(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Process:
    """Starts a command."""
    return Process(command, environment or {})


def watch(
    process: Process, answers: Path, checks: Sequence[str], most_seconds: Mapping[str, float],
    until: float,
) -> Iterator[Ended]:  # fmt: skip
    """Each check when it is over; a check in which the process ends is its last one here."""
    todo, found, began, read = list(checks), list[Finding](), time.monotonic(), 0
    try:
        while todo:
            code = process.poll()  # before the file: what an ended process wrote is there
            lines = answers.read_text().splitlines(keepends=True) if answers.exists() else []
            lines = [line for line in lines if line.endswith("\n")]
            for kind, content in (json.loads(line) for line in lines[read:]):
                if kind == "finding":
                    found.append(Finding(**content))
                elif kind == "end":
                    yield Ended(todo.pop(0), found, time.monotonic() - began)
                    found, began = [], time.monotonic()
                else:
                    began = time.monotonic()
            read = len(lines)
            if not todo:
                return
            why = _why_over(process, code, time.monotonic() - began, most_seconds[todo[0]], until)
            if why is not None:
                result, figure = why
                found.append(Finding(check=todo[0], result=result, figure=figure))
                yield Ended(todo.pop(0), found, time.monotonic() - began)
                return
            time.sleep(LOOK_SECONDS)
    finally:
        process.stop()


def _why_over(
    process: Process, code: int | None, seconds: float, most_seconds: float, until: float
) -> tuple[str, str] | None:
    """Result and reason if the check that runs will say no more."""
    if code is not None:
        return FAIL, f"its process ended with {code}: {process.last_words()}"
    if time.monotonic() >= until:
        return NO_TIME, f"stopped after {seconds:.0f} s: the budget was spent"
    if seconds >= most_seconds:
        return FAIL, f"stopped after {seconds:.0f} s: at most {most_seconds:.0f} s are given to it"
    return None
