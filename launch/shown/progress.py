"""Shows a run: a live view in a terminal, plain lines elsewhere. Decides nothing."""

import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from frontload.launch.stage.jobs import Finished, Tick
from frontload.launch.text.words import show_seconds
from frontload.recipes.stage import Stage

PLAIN_SECONDS = 10.0
LIVE_SECONDS = 0.25


class StudyProgress:
    """A Watcher of the runner. ETA: what the estimates leave, at the pace measured so far."""

    def __init__(self, todo: Sequence[Stage], seconds: Mapping[str, float]) -> None:
        self.seconds = {stage.key: seconds.get(stage.key, 1.0) for stage in todo}
        self.total = sum(self.seconds.values())
        self.count = len(todo)
        self.done = 0
        self.failed = 0
        self.done_seconds = 0.0
        self.ticks: dict[str, Tick] = {}
        self.running: dict[str, tuple[Stage, float]] = {}
        self.begin = self.shown = time.monotonic()
        self.live: Live | None = None
        self.console = Console(highlight=False)
        if sys.stdout.isatty():
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()

    def started(self, stage: Stage) -> None:
        self.running[stage.key] = (stage, time.monotonic())
        if self.live is None:
            self._say(f"start   {stage.folder}")
        self._refresh()

    def ticked(self, stage: Stage, tick: Tick) -> None:
        self.ticks[stage.key] = tick

    def finished(self, stage: Stage, end: Finished) -> None:
        self.running.pop(stage.key, None)
        self.ticks.pop(stage.key, None)
        self.done += 1
        self.done_seconds += self.seconds[stage.key]
        if end.error is not None:
            self.failed += 1
            self._say(f"FAILED  {stage.folder}\n        {end.error}")
        else:
            took = f"{end.wall_seconds:.1f} s, {end.cpu_seconds:.1f} CPU s"
            self._say(f"done    {stage.folder}  ({self.done} of {self.count}; {took})")
        self._refresh()

    def waited(self) -> None:
        """Called about twice a second: refreshes the view, or prints a line every ten seconds."""
        every = PLAIN_SECONDS if self.live is None else LIVE_SECONDS
        now = time.monotonic()
        if now - self.shown < every:
            return
        self.shown = now
        if self.live is None:
            self._say(f"        {self._overall()}; now {', '.join(self._now())}")
        self._refresh()

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()

    # ------------------------------------------------------------ what is shown

    def share(self) -> float:
        """Share of the estimated work that is done, running stages by their own word."""
        under_way = sum(self.seconds[key] * self._share_of(key) for key in self.running)
        return min(1.0, (self.done_seconds + under_way) / max(self.total, 1e-9))

    def _share_of(self, key: str) -> float:
        tick = self.ticks.get(key)
        return 0.0 if tick is None or tick.total <= 0 else min(1.0, tick.done / tick.total)

    def _overall(self) -> str:
        share, spent = self.share(), time.monotonic() - self.begin
        text = f"{100 * share:.0f}% after {show_seconds(spent)}"
        if share > 0.02:
            text += f", about {show_seconds(spent / share - spent)} left"
        return text

    def _now(self) -> list[str]:
        found = []
        for key, (stage, _) in self.running.items():
            share = f" {100 * self._share_of(key):.0f}%" if key in self.ticks else ""
            found.append(f"{stage.kind}/{stage.label}{share}")
        return found

    def _say(self, line: str) -> None:
        if self.live is None:
            print(line, flush=True)
        else:
            self.live.console.print(Text(line))

    def _refresh(self) -> None:
        if self.live is None:
            return
        table = Table.grid(padding=(0, 2))
        for key, (stage, since) in self.running.items():
            tick = self.ticks.get(key)
            table.add_row(
                Text(f"{stage.kind}/{stage.label}"),
                ProgressBar(total=1.0, completed=self._share_of(key), width=30),
                Text(show_seconds(time.monotonic() - since)),
                Text(tick.note if tick else ""),
            )
        overall = Table.grid(padding=(0, 2))
        failed = f", {self.failed} failed" if self.failed else ""
        overall.add_row(
            Text(f"{self.done} of {self.count} stages{failed}"),
            ProgressBar(total=1.0, completed=self.share(), width=30),
            Text(self._overall()),
        )
        self.live.update(Group(table, overall), refresh=True)
