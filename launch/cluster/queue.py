"""Slurm's queue: gives it jobs, asks it for their states, and ends them.

What a job asks for stands in its script alone: variables of the submitting shell that sbatch would
put above it are left out.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from frontload.recipes.errors import RecipeError, StageError

INPUT_OF_SBATCH = re.compile(r"(?:SBATCH|SLURM)_")
KEPT = ("SLURM_CONF", "SLURM_JWT")  # where the controller is, and who may talk to it
AFTER_SUCCESS, AFTER_ANY_END = "afterok", "afterany"
JOBS_PER_CALL = 500  # ours: their numbers fit into a command line
FORGOTTEN = "Invalid job id"  # squeue's words for one job that it holds no more


def submit(
    script: str, *, after: Sequence[str] = (), condition: str = AFTER_SUCCESS, name: str = ""
) -> str:
    """Gives a script to sbatch and returns the number of its job.

    It waits for the jobs of `after`: until all of them succeeded, or with AFTER_ANY_END ended. One
    that can never start, because a job before it failed, is cancelled by Slurm.

    Raises: RecipeError where there is no sbatch; StageError with Slurm's words if it refuses.
    """
    words = ["--parsable"]
    if name:
        words.append(f"--job-name={name}")
    if after:
        words.append(f"--dependency={condition}:{':'.join(after)}")
        if condition == AFTER_SUCCESS:
            words.append("--kill-on-invalid-dep=yes")
    done = _call("sbatch", words, text=script)
    if done.returncode:
        raise StageError(
            "sbatch",
            found=f"ended with status {done.returncode}: {done.stderr.strip()}",
            rule="Slurm accepts the job",
            do="change the placement's `slurm` section as it says; num_nodes, gpus and "
            "slurm.partition, header and cpus_per_node state what is requested",
        )
    return done.stdout.strip().partition(";")[0]


def states(numbers: Iterable[str]) -> dict[str, str]:
    """Job -> PENDING, RUNNING, COMPLETED, FAILED, ... as Slurm writes it.

    Slurm forgets a job some minutes after its end; such a job is looked up in the accounting where
    there is one, and is absent from the answer where there is none.

    Raises: RecipeError where there is no squeue; StageError if it does not answer.
    """
    wanted = list(dict.fromkeys(numbers))
    found: dict[str, str] = {}
    for first in range(0, len(wanted), JOBS_PER_CALL):
        some = wanted[first : first + JOBS_PER_CALL]
        done = _call("squeue", ["-h", "-t", "all", f"--jobs={','.join(some)}", "-o", "%i %T"])
        if done.returncode and FORGOTTEN not in done.stderr:
            raise _no_answer("squeue", done)
        found.update(_pairs(done.stdout, " "))
        lost = [number for number in some if number not in found]
        if lost and shutil.which("sacct"):
            words = ["-X", "-n", "-P", f"--jobs={','.join(lost)}", "--format=JobIDRaw,State"]
            done = _call("sacct", words)  # fails where there is no accounting: nothing is known
            for number, state in _pairs(done.stdout, "|").items():
                found[number] = state.partition(" ")[0]  # "CANCELLED by 1000"
    return {number: found[number] for number in wanted if number in found}


def queued() -> dict[str, str]:
    """Folder -> the newest of this user's jobs for it that waits or runs.

    A script names its folder in its comment, so that this holds whoever submitted it, and after a
    submission that was killed before it could write a number down.

    Raises: RecipeError where there is no squeue; StageError if it does not answer.
    """
    done = _call("squeue", ["-h", "--me", "-S", "i", "-o", "%A %k"])
    if done.returncode:
        raise _no_answer("squeue", done)
    return {folder: number for number, folder in _pairs(done.stdout, " ").items()}


def cancel(numbers: Sequence[str]) -> None:
    """Ends jobs that wait or run; those that have ended are let be.

    Raises: RecipeError where there is no scancel; StageError if it refuses.
    """
    if not numbers:
        return
    done = _call("scancel", list(numbers))
    if done.returncode and FORGOTTEN not in done.stderr:
        raise _no_answer("scancel", done)


def left_out(environment: Mapping[str, str]) -> list[str]:
    """The variables of a shell that would change what a job asks for; none reaches sbatch."""
    return sorted(name for name in environment if INPUT_OF_SBATCH.match(name) and name not in KEPT)


def submitting_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a shell that sbatch is given and passes on to the job."""
    dropped = left_out(environment)
    return {name: text for name, text in environment.items() if name not in dropped}


def find_program(name: str) -> str:
    """The path of a command of Slurm.

    Raises: RecipeError where there is none.
    """
    found = shutil.which(name)
    if found is None:
        raise RecipeError(
            "launch",
            found=f"no {name} on the PATH",
            rule="jobs are submitted from a machine of the cluster",
            do="log in there, or add --dry-run to print the job",
        )
    return found


def _call(name: str, words: Sequence[str], *, text: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [find_program(name), *words],
        input=text,
        text=True,
        capture_output=True,
        check=False,
        env=submitting_environment(os.environ),
    )


def _pairs(text: str, separator: str) -> dict[str, str]:
    cut = (line.strip().partition(separator) for line in text.splitlines())
    return {number: state for number, _, state in cut if state}


def _no_answer(name: str, done: "subprocess.CompletedProcess[str]") -> StageError:
    return StageError(
        name,
        found=f"ended with status {done.returncode}: {done.stderr.strip()}",
        rule="Slurm's controller answers",
        do="run the same command again when it does",
    )
