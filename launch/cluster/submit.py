"""`frontload launch`: a training recipe on a placement, printed, run here or given to Slurm."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from frontload.launch.cluster.grpo_job import render_grpo
from frontload.launch.cluster.rendered import Rendered
from frontload.launch.cluster.train_job import render_train
from frontload.recipes.errors import RecipeError, StageError
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


def render(recipe: Any, placement: Placement, options: argparse.Namespace) -> Rendered:
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


def run_here(job: Rendered) -> int:
    """Runs the job on this machine until it ends; signals reach it. Returns its exit code."""
    _check_needs(job)
    words = (sys.executable, *job.command[1:])
    with subprocess.Popen(words, env={**os.environ, **job.environment}) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # Ctrl-C reached the ranks as well; SIGTERM did not
            process.terminate()
            return process.wait()


def submit(job: Rendered, *, chain: int = 1) -> list[str]:
    """Gives the job to sbatch, `chain` times, and returns what to tell the user.

    Writes the log folder only.

    Raises: RecipeError without sbatch or an input; StageError if sbatch refuses.
    """
    sbatch = find_sbatch()
    _check_needs(job)
    lines: list[str] = []
    before = ""
    for _ in range(chain):
        after = [f"--dependency=afterany:{before}"] if before else []
        number = submit_script(job, [sbatch, "--parsable", *after])
        waits = f" after job {before}" if before else ""
        lines.append(
            f"job {number} submitted{waits}; its lines go to {job.folder}/logs/{number}.out"
        )
        before = number
    return lines


def find_sbatch() -> str:
    """The program that takes jobs.

    Raises: RecipeError where there is none.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise RecipeError(
            "launch",
            found="no sbatch on the PATH",
            rule="jobs are submitted from a machine of the cluster",
            do="log in there, or add --dry-run to print the job",
        )
    return sbatch


def submit_script(job: Rendered, command: Sequence[str]) -> str:
    """Gives a job to sbatch and returns its number. Makes the log folder: Slurm does not.

    Raises: StageError with Slurm's words if it refuses.
    """
    (job.folder / "logs").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command, input=job.script, text=True, capture_output=True, check=False, env=dict(os.environ)
    )
    if done.returncode:
        raise StageError(
            "sbatch",
            found=f"ended with status {done.returncode}: {done.stderr.strip()}",
            rule="Slurm takes the job",
            do="change the placement's `slurm` section as it says",
        )
    return done.stdout.strip().partition(";")[0]


def _check_needs(job: Rendered) -> None:
    for path in job.needs:
        if not path.exists():
            raise RecipeError(
                f"launch: {path}",
                found="is not there",
                rule="what a job reads is there before it starts, on a cluster's shared folder",
                do=f"name it with {job.flags}",
            )
