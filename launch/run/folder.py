"""The folder --out of one run outside a store: whose it is, its starts, its finished stages.

run.json                   what the run is; another recipe or other inputs are refused
starts/NNNN.json           of each start: host, versions, environment, layout
work/STAGE/path, scratch   a stage in the making, with its checkpoints
STAGE/                     a finished stage: a checkpoint artifact
finished                   every stage that was asked for is there
error.json                 a failure that would come again
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.launch.ranks.seat import Seat, describe_start
from frontload.launch.run.out_folder import check_out
from frontload.launch.store import MANIFEST, Store, describe_files
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import ArtifactError, RecipeError, Stopped
from frontload.recipes.machines.placement import Placement

RUN, FINISHED, ERROR = "run.json", "finished", "error.json"
SEEN_SECONDS = 300.0  # most time for a folder that rank 0 published to appear on other nodes
ASKED_SECONDS = 5.0  # the same once the rank was asked to stop: rank 0 may have died


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The folder of a run as one rank sees it; rank 0 alone writes what one rank writes."""

    command: str  # train or rl
    name: str  # of the recipe
    out: Path
    seat: Seat

    def work(self, stage: str) -> Path:
        """Where a stage is in the making."""
        return self.out / "work" / stage

    def has(self, stage: str) -> bool:
        """Whether a stage is finished."""
        return (self.out / stage / MANIFEST).is_file()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Rank 0 holds the folder, so that no second run writes into it.

        Raises: RecipeError when the folder is none, can't be made, or another run holds it.
        """
        if not self.seat.is_leader:
            yield
            return
        check_out(self.out, what="a run")
        with Store(self.out).lock("run", wait_seconds=5.0):
            yield

    def open(self, identity: Mapping[str, Any], placement: Placement) -> None:
        """Writes what the run is, or compares it with what is there; records this start.

        For rank 0. `identity` holds, of each stage, its recipe and the digests of its inputs, in
        JSON's types.

        Raises: RecipeError if the folder holds another run.
        """
        (self.out / FINISHED).unlink(missing_ok=True)
        path = self.out / RUN
        found: dict[str, Any] = {}
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            moved = _first_difference(found, identity)
            if moved:
                raise RecipeError(
                    f"{self.command} --out {self.out}",
                    found=f"it holds another run: {moved} differs",
                    rule="a run goes on with the recipe and the data that it began with",
                    do="name another folder, or undo the change",
                )
        starts = self.out / "starts"
        starts.mkdir(parents=True, exist_ok=True)
        write_json(path, {**found, **identity}, is_synced=True)
        number = len(list(starts.glob("*.json")))
        start = describe_start(self.seat, placement)
        write_json(starts / f"{number:04d}.json", start, is_synced=True)

    def publish(self, stage: str, *, stop_asked: Callable[[], bool] = lambda: False) -> None:
        """Rank 0 turns the work into the artifact by one rename; the others wait until they see it.

        Raises: ArtifactError when the folder does not appear on a node in time, Stopped when the
            rank was asked to stop before it did.
        """
        work, folder = self.work(stage), self.out / stage
        if self.seat.is_leader:
            path = work / "path"
            files = describe_files(path)
            identity = json.loads((self.out / RUN).read_text(encoding="utf-8"))[stage]
            write_json(path / MANIFEST, {"files": files, **identity}, is_synced=True)
            path.rename(folder)
            self.forget(stage)
            return
        self._wait_for(stage, stop_asked)

    def _wait_for(self, stage: str, stop_asked: Callable[[], bool]) -> None:
        began, asked_at = time.monotonic(), float("inf")
        while not self.has(stage):
            now = time.monotonic()
            asked_at = min(asked_at, now) if stop_asked() else asked_at
            if now - asked_at > ASKED_SECONDS:
                raise Stopped(
                    f"rank {self.seat.rank}: {self.out / stage}",
                    found="was asked to stop before rank 0 had published it",
                    rule="a run that is asked to stop goes on from its newest checkpoint",
                    do="start it again",
                )
            if now - began > SEEN_SECONDS:
                raise ArtifactError(
                    f"rank {self.seat.rank}: {self.out / stage}",
                    found=f"not seen after {SEEN_SECONDS:.0f} seconds",
                    rule="every node sees the folder of the run",
                    do="put --out on a file system that all nodes share",
                )
            time.sleep(0.02)
            with contextlib.suppress(OSError):
                os.listdir(self.out)  # a network file system looks again

    def forget(self, stage: str) -> None:
        """Rank 0 removes what a stage leaves in the making."""
        if self.seat.is_leader:
            shutil.rmtree(self.work(stage), ignore_errors=True)

    def finish(self) -> None:
        """Rank 0 marks that every stage that was asked for is there, and says it."""
        if self.seat.is_leader:
            (self.out / FINISHED).touch()
        self.say(f"finished: {self.out}")

    def say(self, text: str) -> None:
        """Rank 0 prints a line."""
        if self.seat.is_leader:
            print(f"{self.name}: {text}", flush=True)


def _first_difference(found: Any, asked: Any, path: str = "") -> str:
    """The dotted name of the first value that both have and that is not the same; "" if none."""
    if not (isinstance(found, Mapping) and isinstance(asked, Mapping)):
        return "" if found == asked else path
    for name in sorted(found.keys() & asked.keys()):
        below = _first_difference(found[name], asked[name], f"{path}.{name}".strip("."))
        if below:
            return below
    if path and found.keys() != asked.keys():
        return f"{path}.{min(found.keys() ^ asked.keys())}"
    return ""
