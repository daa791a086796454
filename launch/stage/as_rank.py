"""A rank's part in a stage: it runs the function; rank 0 publishes, the others wait to see that."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from frontload.launch.ranks.beats import FOLDER, HANGS, Beats, start_beats
from frontload.launch.ranks.rank_run import ended, heard_signals, told_failures
from frontload.launch.ranks.seat import Seat, take_seat
from frontload.launch.stage.alone import LOCK_WAIT_SECONDS, Meter, check_once
from frontload.launch.stage.jobs import Job, die_with_parent, load_function
from frontload.launch.stage.provenance import write_provenance
from frontload.launch.stage.workspace import Listener, LiveWorkspace
from frontload.launch.store import MANIFEST
from frontload.recipes.errors import ArtifactError, FrontloadError, Stopped
from frontload.recipes.machines.upkeep import Upkeep

ERROR = "error.json"  # of a run's or a job's folder: a failure that would come again
SEEN_SECONDS = 300.0  # most time for a folder that rank 0 published to appear on other nodes
ASKED_SECONDS = 5.0  # the same once the rank was asked to stop: rank 0 may have died
CPU = "cpu"  # folder of the workspace: what each other rank spent


@dataclass(frozen=True, kw_only=True)
class Rank:
    """This process among those that make a stage together; alone, it is rank 0 of 1."""

    seat: Seat
    stop: list[str]  # the signal that asked this process to end, once one did
    beats: Beats | None  # for the agent that started this rank
    logs: Path | None  # where each rank writes its own pace


@contextmanager
def as_rank(folder: Path, upkeep: Upkeep) -> Iterator[Rank]:
    """Takes this process's seat; until the end it hears signals and shows its agent that it lives.

    A failure that would come again is written into `folder`, so that a restart does not repeat it.
    """
    seat, logs = take_seat(os.environ), folder / "logs"
    if seat.world > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    beats = start_beats(os.environ.get(FOLDER, ""), seat, upkeep=upkeep, log=logs / HANGS)
    stop: list[str] = []
    with ended(beats), heard_signals(stop), told_failures(folder / ERROR, seat):
        yield Rank(seat=seat, stop=stop, beats=beats, logs=logs)


def make_as_rank(
    job: Job, rank: Rank, *, listeners: Sequence[Listener] = (), work: float = 0.0
) -> None:
    """Makes and publishes a stage unless it is there; returns when this node sees it.

    `work` are the units that its price is made of, for the provenance.
    """
    with _held(job, rank.seat):
        if job.store.find_made(job.ticket) is not None:
            return
        meter, spent = Meter(), job.store.workspace(job.ticket) / CPU
        if rank.seat.is_leader:
            shutil.rmtree(spent, ignore_errors=True)
            for path in job.inputs.values():
                check_once(job.store, path)
        run_function(job, rank, listeners=listeners)
        publish_stage(job, rank, meter=meter, work=work)


def run_function(job: Job, rank: Rank, *, listeners: Sequence[Listener] = ()) -> None:
    """Runs the stage function on this rank's view of the shared workspace."""
    number = rank.seat.rank
    work = LiveWorkspace(
        job.store,
        job.ticket,
        placement=rank.seat.place(job.placement),
        report=lambda *_: None,
        rank=number,
    )
    work.stop = lambda: bool(rank.stop)
    work.beats = rank.beats
    work.rank_log = rank.logs / f"rank-{number:05d}.jsonl" if rank.logs else None
    work.listeners.extend(listeners)
    try:
        load_function(job.function)(job.recipe, job.inputs, work)
    finally:
        work.close()


def publish_stage(job: Job, rank: Rank, *, meter: Meter, work: float) -> None:
    """Rank 0 publishes and records the stage; the others say what they spent, and wait.

    Raises: as `_wait_for`.
    """
    seat, store = rank.seat, job.store
    spent = store.workspace(job.ticket) / CPU
    if not seat.is_leader:
        with contextlib.suppress(OSError):  # rank 0 counts who wrote
            spent.mkdir(exist_ok=True)
            aside = spent / f".{seat.rank}"
            aside.write_text(repr(meter.cpu_seconds()))
            aside.replace(spent / str(seat.rank))
        _wait_for(job, rank)
        return
    others = _read_spent(spent, count=seat.world - 1)
    store.publish(job.ticket)
    end = meter.end()
    end = replace(
        end,
        cpu_seconds=end.cpu_seconds + sum(others),
        uncounted_ranks=seat.world - 1 - len(others),
    )
    write_provenance(store, job.ticket, end=end, placement=job.placement, work=work)


def _read_spent(folder: Path, *, count: int) -> list[float]:
    """The CPU seconds of the other ranks, which end the function when this one does."""
    end = time.monotonic() + ASKED_SECONDS
    while True:
        files = [path for path in folder.glob("[0-9]*") if path.name.isdigit()]
        if len(files) >= count or time.monotonic() > end:
            return [float(path.read_text()) for path in files]
        time.sleep(0.02)


@contextmanager
def _held(job: Job, seat: Seat) -> Iterator[None]:
    """Rank 0 holds the stage's lock, and keeps the message of a failure for `frontload status`."""
    if not seat.is_leader:
        yield
        return
    with job.store.lock(job.ticket.key, wait_seconds=LOCK_WAIT_SECONDS):
        job.store.error_file(job.ticket).unlink(missing_ok=True)
        try:
            yield
        except Stopped:
            raise
        except FrontloadError as error:
            job.store.note_failure(job.ticket, error)
            raise


def _wait_for(job: Job, rank: Rank) -> None:
    """Waits until this node sees what rank 0 publishes.

    Raises: Stopped when the rank was asked to stop before, ArtifactError when it never appears.
    """
    began, asked_at = time.monotonic(), float("inf")
    who = f"rank {rank.seat.rank}: {job.store.root / job.ticket.folder}"
    most_seconds = max(SEEN_SECONDS, job.placement.upkeep.pause_seconds)  # digests take minutes
    while not (job.store.root / job.ticket.folder / MANIFEST).is_file():
        now = time.monotonic()
        asked_at = min(asked_at, now) if rank.stop else asked_at
        if now - asked_at > ASKED_SECONDS:
            raise Stopped(
                who,
                found="was asked to stop before rank 0 had published it",
                rule="a stage that is asked to stop goes on from its newest checkpoint",
                do="start it again",
            )
        if now - began > most_seconds:
            raise ArtifactError(
                who,
                found=f"not seen after {most_seconds:.0f} seconds",
                rule="every node sees the folder that rank 0 publishes into",
                do=f"put {job.store.flag} on a file system that all nodes share",
            )
        time.sleep(0.02)
        with contextlib.suppress(OSError):
            os.listdir(job.store.root)  # a network file system looks again
