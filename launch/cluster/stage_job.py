"""`frontload stage FILE`: one stage of a study, made by a job: alone, or as a rank of torchrun."""

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frontload.launch.jobs import Finished, Job, die_with_parent, load_function
from frontload.launch.machine_kind import machine_kind
from frontload.launch.ranks.beats import FOLDER, HANGS, start_beats
from frontload.launch.ranks.rank_run import ended, heard_signals, told_failures
from frontload.launch.ranks.seat import Seat, take_seat
from frontload.launch.run.folder import ASKED_SECONDS, ERROR, SEEN_SECONDS
from frontload.launch.run.listeners import Teller
from frontload.launch.store import LARGEST_INPUT_BYTES, Store, Ticket, check_content
from frontload.launch.study.crew import TORCHRUN_KINDS
from frontload.launch.study.provenance import write_provenance
from frontload.launch.study.registry import STAGES
from frontload.launch.study.workers import cpu_seconds, run_job
from frontload.launch.workspace import LiveWorkspace
from frontload.recipes.errors import ArtifactError, FrontloadError, Stopped
from frontload.recipes.stage_file import StageFile, from_json

LOCK_SECONDS = 30.0  # a killed job's ranks may need a moment to leave
SAY_SECONDS = 10.0
STORE_DEPTH = 4  # store/.jobs/kind/folder/stage.json


def make_stage(options: argparse.Namespace) -> int:
    """Makes the stage that a file of a job's folder describes, and publishes it into its store."""
    file: Path = options.file.absolute()
    stage = read_stage_file(file)
    store = Store(file.parents[STORE_DEPTH - 1])
    job = Job(
        ticket=_ticket(stage),
        function=STAGES[stage.kind],
        recipe=stage.recipe,
        inputs={role: store.root / folder for role, folder in stage.inputs.items()},
        placement=stage.placement,
        store=store.root,
    )
    if stage.kind in TORCHRUN_KINDS:
        _make_as_rank(job, stage, store, folder=file.parent)
        return 0
    end = run_job(job, _Teller(stage.folder))
    if end.error is not None:
        store.error_file(job.ticket).parent.mkdir(parents=True, exist_ok=True)
        store.error_file(job.ticket).write_text(f"{end.error}\n", encoding="utf-8")
        raise end.error
    write_provenance(store, job.ticket, end=end, placement=stage.placement, work=stage.work)
    print(f"{stage.folder}: finished in {end.wall_seconds:.1f} s", flush=True)
    return 0


def read_stage_file(file: Path) -> StageFile:
    """The stage that a job is to make.

    Raises: ArtifactError if the file is none, or another version of this project wrote it.
    """
    try:
        return from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"stage {file}",
            found=f"no stage that can be made ({error})",
            rule="`frontload run` writes it when it submits the job, with this version",
            do="run `frontload run` of the study again: it submits the stage anew",
        ) from error


def _ticket(stage: StageFile) -> Ticket:
    return Ticket(
        kind=stage.kind,
        label=stage.label,
        key=stage.key,
        folder=stage.folder,
        payload=stage.payload,
    )


class _Teller:
    """Prints how far a stage is, at most every few seconds."""

    def __init__(self, folder: str) -> None:
        self._folder, self._said = folder, 0.0

    def __call__(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_SECONDS:
            self._said = now
            print(f"{self._folder}: {done} of {total} {note}".rstrip(), flush=True)


# ---------------------------------------------------------------- as a rank


def _make_as_rank(job: Job, stage: StageFile, store: Store, *, folder: Path) -> None:
    """One rank's part: rank 0 holds the stage's lock, and publishes when all ranks are done."""
    seat = take_seat(os.environ)
    if seat.world > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    upkeep = stage.placement.upkeep
    beats = start_beats(
        os.environ.get(FOLDER, ""), seat, upkeep=upkeep, log=folder / "logs" / HANGS
    )
    stop: list[str] = []
    failure = folder / ERROR
    began = time.monotonic()
    with ended(beats), heard_signals(stop), told_failures(failure, seat), _held(store, job, seat):
        if store.find(stage.kind, stage.key) is not None:
            return
        if seat.is_leader:
            for path in job.inputs.values():
                check_content(path, largest_bytes=LARGEST_INPUT_BYTES)
        work = LiveWorkspace(
            store,
            job.ticket,
            placement=seat.place(stage.placement),
            report=lambda *_: None,
            rank=seat.rank,
        )
        work.stop = lambda: bool(stop)
        work.beats = beats
        work.rank_log = folder / "logs" / f"rank-{seat.rank:05d}.jsonl"
        if seat.is_leader:
            num_steps = stage.recipe.num_samples // stage.recipe.training.global_batch_sequences
            work.listeners.append(
                Teller(stage.folder, num_steps=num_steps, every_seconds=SAY_SECONDS)
            )
        try:
            load_function(job.function)(job.recipe, job.inputs, work)
        finally:
            work.close()
        if not seat.is_leader:
            _wait_for(store, stage, seat=seat, stop=stop)
            return
        store.publish(job.ticket)
        end = Finished(
            cpu_seconds=cpu_seconds(),
            wall_seconds=time.monotonic() - began,
            error=None,
            made_on=machine_kind(),
        )
        write_provenance(store, job.ticket, end=end, placement=stage.placement, work=stage.work)
        print(f"{stage.folder}: finished", flush=True)


@contextmanager
def _held(store: Store, job: Job, seat: Seat) -> Iterator[None]:
    """Rank 0 holds the stage's lock, and keeps the message of a failure for `frontload status`."""
    if not seat.is_leader:
        yield
        return
    with store.lock(job.ticket.key, wait_seconds=LOCK_SECONDS):
        path = store.error_file(job.ticket)
        path.unlink(missing_ok=True)
        try:
            yield
        except Stopped:
            raise
        except FrontloadError as error:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{error}\n", encoding="utf-8")
            raise


def _wait_for(store: Store, stage: StageFile, *, seat: Seat, stop: list[str]) -> None:
    """Waits until this node sees what rank 0 publishes.

    Raises: Stopped when the rank was asked to stop before, ArtifactError when it never appears.
    """
    began, asked_at = time.monotonic(), float("inf")
    target = store.root / stage.folder
    most_seconds = max(SEEN_SECONDS, stage.placement.upkeep.pause_seconds)  # digests take minutes
    while not target.is_dir():
        now = time.monotonic()
        asked_at = min(asked_at, now) if stop else asked_at
        if now - asked_at > ASKED_SECONDS:
            raise Stopped(
                f"rank {seat.rank}: {target}",
                found="was asked to stop before rank 0 had published it",
                rule="a stage that is asked to stop goes on from its newest checkpoint",
                do="start it again",
            )
        if now - began > most_seconds:
            raise ArtifactError(
                f"rank {seat.rank}: {target}",
                found=f"not seen after {most_seconds:.0f} seconds",
                rule="every node sees the store",
                do="put --store on a file system that all nodes share",
            )
        time.sleep(0.05)
        os.listdir(store.root)  # a network file system looks again
