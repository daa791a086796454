"""`frontload stage FILE`: one stage of a study, made by a job: alone, or as a rank of torchrun."""

import argparse
import json
from pathlib import Path

from frontload.launch.run.listeners import ProgressTeller, Teller
from frontload.launch.stage.as_rank import as_rank, make_as_rank
from frontload.launch.stage.jobs import Job
from frontload.launch.stage.provenance import write_provenance
from frontload.launch.stage.registry import STAGES
from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import TORCHRUN_KINDS
from frontload.launch.study.workers import run_job
from frontload.recipes.errors import ArtifactError
from frontload.recipes.stage_file import StageFile, from_json

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
        store=store,
    )
    if stage.kind in TORCHRUN_KINDS:
        num_steps = stage.recipe.num_samples // stage.recipe.training.global_batch_sequences
        teller = Teller(stage.folder, num_steps=num_steps)
        with as_rank(file.parent, stage.placement.upkeep) as rank:
            make_as_rank(job, rank, listeners=[teller], work=stage.work)
        return 0
    end = run_job(job, ProgressTeller(f"{stage.folder}:"))
    if end.error is not None:
        store.note_failure(job.ticket, end.error)
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
