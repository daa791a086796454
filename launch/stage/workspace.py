"""The Workspace of a running stage: its folders, its log, its word to whoever watches."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from frontload.launch.ranks.beats import Beats
from frontload.launch.store import Store, Ticket
from frontload.recipes.artifact import Part
from frontload.recipes.machines.placement import Placement

METRICS = "metrics.jsonl"
PROGRESS_SECONDS = 0.2

Report = Callable[[int, int, str], None]
"""done, total, note."""
Listener = Callable[[int, Mapping[str, float]], None]
"""step, metrics by name."""


class FolderWorkspace:
    """Implements `frontload.recipes.artifact.Workspace` on a folder. Rank 0 alone logs.

    `listeners` hear every metric of rank 0; `stop` says whether the run was asked to end.
    """

    def __init__(
        self,
        work: Path,
        *,
        telemetry: Path,
        placement: Placement,
        key: str,
        report: Report,
        rank: int = 0,
    ) -> None:
        self.path = work / "path"
        self.scratch = work / "scratch"
        self.path.mkdir(parents=True, exist_ok=True)
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.placement = placement
        self.key = key
        self.listeners: list[Listener] = []
        self.rank_log: Path | None = None
        self.beats: Beats | None = None
        self.stop: Callable[[], bool] = bool  # never
        self._telemetry = telemetry
        self._report = report
        self._rank = rank
        self._metrics: IO[str] | None = None
        self._system: IO[str] | None = None
        self._reported = 0.0

    def log(self, step: int, **metrics: float) -> None:
        """One JSON line of metrics; the group `system` goes to the telemetry."""
        if self._rank:
            return
        if self._metrics is None:
            self.rewind(step - 1)  # a run that starts over drops what the killed one had logged
        named = {name.replace("__", "/"): value for name, value in metrics.items()}
        for listener in self.listeners:
            listener(step, named)
        system = {name: value for name, value in named.items() if name.startswith("system/")}
        rest = {name: value for name, value in named.items() if name not in system}
        if rest and self._metrics is not None:
            self._metrics.write(json.dumps({"step": step, **rest}, sort_keys=True) + "\n")
            self._metrics.flush()
        if system:
            if self._system is None:
                self._telemetry.parent.mkdir(parents=True, exist_ok=True)
                self._system = open(self._telemetry, "a", encoding="utf-8")  # noqa: SIM115
            line = {"step": step, "system/time": round(time.time(), 3), **system}
            self._system.write(json.dumps(line, sort_keys=True) + "\n")
            self._system.flush()

    def log_rank(self, step: int, **metrics: float) -> None:
        """One JSON line of this rank's own log, if it has one."""
        if self.rank_log is not None:
            self.rank_log.parent.mkdir(parents=True, exist_ok=True)
            line = {"step": step, "time": round(time.time(), 3), **metrics}
            with open(self.rank_log, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")

    def mark(self, part: Part, *, step: int | None = None) -> None:
        """Says what this rank begins, if an agent looks for hangs."""
        if self.beats is not None:
            self.beats.mark(part, step=step)

    def stop_asked(self) -> bool:
        """Whether this process was asked to end."""
        return self.stop()

    def rewind(self, step: int) -> None:
        """Drops logged lines above `step`, and a line torn by a kill."""
        if self._rank:
            return
        if self._metrics is not None:
            self._metrics.close()
        path = self.path / METRICS
        kept = _lines_up_to(path, step)
        aside = path.with_name(METRICS + ".tmp")
        aside.write_text("".join(kept), encoding="utf-8")
        aside.replace(path)
        self._metrics = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def progress(self, done: int, total: int, *, note: str = "") -> None:
        """Reports progress, at most five times a second and always at the end."""
        now = time.monotonic()
        if self._rank == 0 and (done >= total or now - self._reported >= PROGRESS_SECONDS):
            self._reported = now
            self._report(done, total, note)

    def close(self) -> None:
        """Closes the logs. An artifact without a logged line has no metrics file."""
        for file in (self._metrics, self._system):
            if file is not None:
                file.close()
        path = self.path / METRICS
        if path.is_file() and path.stat().st_size == 0:
            path.unlink()


class LiveWorkspace(FolderWorkspace):
    """The workspace of a stage in a store."""

    def __init__(
        self, store: Store, ticket: Ticket, *, placement: Placement, report: Report, rank: int = 0
    ) -> None:
        super().__init__(
            store.workspace(ticket),
            telemetry=store.telemetry_file(ticket, "jsonl"),
            placement=placement,
            key=ticket.key,
            report=report,
            rank=rank,
        )


def _lines_up_to(path: Path, step: int) -> list[str]:
    if not path.is_file():
        return []
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    return kept
