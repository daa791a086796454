"""How far a run is: rate and time left, as a bar in a terminal and as plain lines elsewhere."""

import sys
import time
from typing import IO, Any, Protocol

LINE_SECONDS = 10.0  # ours: a line of a log file says something new


class Progress(Protocol):
    """Is told of bytes read."""

    def start(self, total_bytes: int, *, done: int) -> None: ...
    def advance(self, num_bytes: int) -> None: ...
    def note(self, text: str) -> None: ...
    def stop(self) -> None: ...


class _Quiet:
    def start(self, total_bytes: int, *, done: int) -> None: ...
    def advance(self, num_bytes: int) -> None: ...
    def note(self, text: str) -> None: ...
    def stop(self) -> None: ...


class Lines:
    """A line every ten seconds: share, bytes, rate, time left."""

    def __init__(self, stream: IO[str], *, every: float = LINE_SECONDS) -> None:
        self._stream, self._every = stream, every
        self._total = self._done = self._kept = 0
        self._began = self._said = 0.0

    def start(self, total_bytes: int, *, done: int) -> None:
        self._total, self._done, self._kept = total_bytes, done, done
        self._began = self._said = time.monotonic()

    def advance(self, num_bytes: int) -> None:
        self._done += num_bytes
        now = time.monotonic()
        if now - self._said >= self._every:
            self._said = now
            rate = (self._done - self._kept) / (now - self._began)
            self.note(describe(self._done, self._total, rate))

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def stop(self) -> None: ...


class Bar:
    """rich's bar, redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as RichProgress

        self._columns = (
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._make = lambda: RichProgress(*self._columns, console=Console(stderr=True))
        self._bar: RichProgress | None = None
        self._task: Any = None

    def start(self, total_bytes: int, *, done: int) -> None:
        self._bar = self._make()
        self._task = self._bar.add_task("", total=total_bytes, completed=done)
        self._drawn = 0.0
        self._waiting = 0

    def advance(self, num_bytes: int) -> None:
        if self._bar is None:
            return
        if not self._bar.live.is_started:  # its thread starts after the processes were made
            self._bar.start()
        self._bar.advance(self._task, num_bytes)

    def note(self, text: str) -> None:
        if self._bar is not None and self._bar.live.is_started:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr)

    def stop(self) -> None:
        if self._bar is not None and self._bar.live.is_started:
            self._bar.stop()


def quiet() -> Progress:
    """No progress, for callers in a program."""
    return _Quiet()


def progress_for(stream: IO[str]) -> Progress:
    """A bar where a person looks, lines where a file is written."""
    return Bar() if stream.isatty() else Lines(stream)


def describe(done: int, total: int, rate: float) -> str:
    """`12% 1.2 of 10.0 GB, 84 MB/s, 1:45 left`; GB and MB are powers of ten."""
    share = min(done / total, 1.0) if total else 1.0
    left = max(total - done, 0) / rate if rate > 0 else 0.0
    minutes, seconds = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    unit, size = ("GB", 1e9) if total >= 1e9 else ("MB", 1e6)
    amount = f"{done / size:.1f} of {total / size:.1f} {unit}"
    return f"{share:4.0%} {amount}, {rate / 1e6:.0f} MB/s, {shown} left"
