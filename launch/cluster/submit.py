"""`frontload launch`: a training recipe on a placement, printed, run here or given to Slurm."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from frontload.launch.cluster import queue
from frontload.launch.cluster.grpo_job import render_grpo
from frontload.launch.cluster.rendered import RenderedJob
from frontload.launch.cluster.train_job import render_train
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.runs.load import (
    KINDS,
    load_placement,
    load_training,
    split_overrides,
    with_place,
)

READS: dict[str, tuple[str, ...]] = {
    "grpo": ("model", "prompts", "validation"),
    "pretrain": ("blend", "index", "start", "until"),
    "sft": ("pack", "start"),
}
"""Kind -> the options that name what its job reads and how far it goes."""

OF_ONE_RUN = tuple(dict.fromkeys(name for names in READS.values() for name in names))
"""Those of all kinds."""


def launch(options: argparse.Namespace) -> int:
    """Prints the job, runs it on this machine, or submits it and prints its number.

    Raises: RecipeError for a recipe or a placement that is none, and for what does not fit.
    """
    mine, placements = split_overrides(options.overrides)
    recipe = load_training(options.recipe, mine)
    placement = load_placement(options.placement, placements)
    if options.chain < 1 or (options.chain > 1 and placement.value.slurm is None):
        raise RecipeError(
            f"launch --chain {options.chain}",
            found="below 1" if options.chain < 1 else "a placement without a `slurm` section",
            rule="a chain is a number of Slurm jobs, each waiting for the one before",
            do="write --chain 2 or more, or leave it out",
        )
    _refuse_unread(recipe.value, options)
    try:
        job = render(recipe.value, placement.value, options)
    except RecipeError as error:
        raise with_place(error, recipe, placement) from error
    if options.dry_run:
        print(job.script, end="")
        return 0
    if placement.value.slurm is None:
        return run_here(job)
    print("\n".join(submit(job, chain=options.chain)))
    return 0


def render(recipe: Any, placement: Placement, options: argparse.Namespace) -> RenderedJob:
    """The job of a recipe: a Slurm script, or the command of this machine."""
    if isinstance(recipe, GrpoRecipe):
        return render_grpo(recipe, placement, options)
    return render_train(recipe, placement, options)


def _refuse_unread(recipe: Any, options: argparse.Namespace) -> None:
    kind = next(name for name, held in KINDS.items() if isinstance(recipe, held))
    for name in OF_ONE_RUN:
        if name not in READS[kind] and getattr(options, name):
            raise RecipeError(
                f"launch {options.recipe} --{name}",
                found="is given",
                rule=f"a job of kind '{kind}' reads "
                + ", ".join(f"--{one}" for one in READS[kind])
                + "; another option would be ignored",
                do="leave it out, or launch a recipe of the kind that reads it",
            )


def run_here(job: RenderedJob) -> int:
    """Runs the job on this machine until it ends; signals reach it. Returns its exit code."""
    _check_needs(job)
    words = (sys.executable, *job.command[1:])
    with subprocess.Popen(words, env={**os.environ, **job.environment}) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # Ctrl-C reached the ranks as well; SIGTERM did not
            process.terminate()
            return process.wait()


def submit(job: RenderedJob, *, chain: int = 1) -> list[str]:
    """Gives the job to Slurm, `chain` times, and returns what to say to the user.

    A run that has a job in the queue gets no other. Writes the log folder only.

    Raises: RecipeError without sbatch or an input; StageError if sbatch refuses.
    """
    queue.find_program("sbatch")
    _check_needs(job)
    there = queue.queued().get(str(job.folder), "")
    if there:
        return [f"job {there} is in the queue for {job.folder}; nothing was submitted"]
    lines: list[str] = []
    if ignored := queue.left_out(os.environ):
        lines.append(f"left out of the job: {', '.join(ignored)} of this shell")
    before = ""
    for _ in range(chain):
        number = submit_script(job, after=[before] if before else [])
        waits = f" after job {before}" if before else ""
        lines.append(
            f"job {number} submitted{waits}; its lines go to {job.folder}/logs/{number}.out"
        )
        before = number
    return lines


def submit_script(job: RenderedJob, *, after: Sequence[str] = ()) -> str:
    """Gives a job to Slurm and returns its number. Makes the log folder: Slurm does not.

    Raises: StageError with Slurm's words if it refuses.
    """
    (job.folder / "logs").mkdir(parents=True, exist_ok=True)
    return queue.submit(job.script, after=after, condition=queue.AFTER_ANY_END)


def _check_needs(job: RenderedJob) -> None:
    for path in job.needs:
        if not path.exists():
            raise RecipeError(
                f"launch: {path}",
                found="is not there",
                rule="what a job reads is there before it starts, on a cluster's shared folder",
                do=f"name it with {job.flags}",
            )
