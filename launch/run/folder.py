"""The folder --out of one run: a store laid out for people, with a record of what it is.

run.json                   what its stages are made of; another recipe or other inputs are refused
starts/NNNN.json           of each start: host, versions, environment, layout
work/STAGE/path, scratch   a stage in the making, with its checkpoints
STAGE/                     a finished stage: an artifact as any store has it
provenance/STAGE.json      when and where it was made, and what that took
finished                   every stage that was asked for is there
error.json                 a failure that would come again
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frontload.launch.ranks.seat import Seat, describe_start
from frontload.launch.run.inputs import digest_input
from frontload.launch.run.out_folder import check_out
from frontload.launch.stage.jobs import Job
from frontload.launch.stage.registry import STAGES
from frontload.launch.store import (
    LARGEST_INPUT_BYTES,
    MANIFEST,
    Store,
    Ticket,
    check_given,
    check_sizes,
)
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.placement import Placement
from frontload.recipes.stage import key_of, payload_of

RUN, FINISHED = "run.json", "finished"
LOCK_SECONDS = 5.0


class RunFolder(Store):
    """The stages of one run by name: a graph whose inputs are paths that a user gave.

    Raises: RecipeError when the folder is none, or can't be made.
    """

    flag = "--out"

    def __init__(self, root: Path, *, command: str, name: str) -> None:
        super().__init__(check_out(root, what="a run"))
        self.command, self.name = command, name  # train or rl; of the recipe

    def find_made(self, ticket: Ticket) -> Path | None:
        folder = self.root / ticket.folder
        if not (folder / MANIFEST).is_file():
            return None
        check_sizes(folder, ticket.key)
        return folder

    def workspace(self, ticket: Ticket) -> Path:
        return self.root / "work" / ticket.folder

    def telemetry_file(self, ticket: Ticket, suffix: str) -> Path:
        """One file of all stages."""
        return self.root / "logs" / f"telemetry.{suffix}"

    def check_input(self, path: Path) -> None:
        """As a store does, as far as the folder's maker states what is in it."""
        check_given(path, largest_bytes=LARGEST_INPUT_BYTES)

    def job(
        self,
        stage: str,
        *,
        kind: str,
        recipe: Any,
        inputs: Mapping[str, Path],
        before: Job | None,
        placement: Placement,
    ) -> Job:
        """The making of one stage; it goes on from `before`, a stage of this run, if there is one.

        An input's part of the key is the digest of the small file that names its bytes.
        """
        keys = {role: digest_input(role, path) for role, path in inputs.items()}
        paths = dict(inputs)
        if before is not None:
            keys["start"] = before.ticket.key
            paths["start"] = self.root / before.ticket.folder
        payload = payload_of(kind, recipe, keys)
        return Job(
            ticket=Ticket(
                kind=kind, label=stage, key=key_of(payload), folder=stage, payload=payload
            ),
            function=STAGES[kind],
            recipe=recipe,
            inputs=paths,
            placement=placement,
            store=self,
        )

    @contextmanager
    def opened(self, jobs: Sequence[Job], seat: Seat) -> Iterator[None]:
        """Rank 0 holds the folder, so that no second run writes into it, and records this start.

        Raises: RecipeError if another run holds the folder, or if it is of other stages.
        """
        if not seat.is_leader:
            yield
            return
        with self.lock("run", wait_seconds=LOCK_SECONDS):
            self._record(jobs, seat)
            yield
            (self.root / FINISHED).touch()
            self.say(f"finished: {self.root}")

    def _record(self, jobs: Sequence[Job], seat: Seat) -> None:
        (self.root / FINISHED).unlink(missing_ok=True)
        asked = {job.ticket.label: json.loads(json.dumps(job.ticket.payload)) for job in jobs}
        path = self.root / RUN
        found: dict[str, Any] = {}
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            moved = _first_difference(found, asked)
            if moved:
                raise RecipeError(
                    f"{self.command} --out {self.root}",
                    found=f"it holds another run: {moved} differs",
                    rule="a run goes on with the recipe and the data that it began with",
                    do="name another folder, or undo the change",
                )
        starts = self.root / "starts"
        starts.mkdir(parents=True, exist_ok=True)
        write_json(path, {**found, **asked}, is_synced=True)
        number = len(list(starts.glob("*.json")))
        start = describe_start(seat, jobs[0].placement)
        write_json(starts / f"{number:04d}.json", start, is_synced=True)

    def say(self, text: str) -> None:
        """Prints a line of this run."""
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
