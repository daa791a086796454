"""A study for a cluster as jobs: each run behind the one it starts from; or all of it run here."""

import argparse
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frontload.launch import cluster_show
from frontload.launch.cluster import queue
from frontload.launch.cluster.rendered import Rendered, local_script
from frontload.launch.cluster.slurm import ClusterJob, job_script
from frontload.launch.cluster.slurm_bodies import command_body
from frontload.launch.cluster.submit import OF_ONE_RUN, render, run_here
from frontload.launch.cluster_plan import (
    BUILT,
    JOB,
    ClusterPlan,
    check_shared_phases,
    lacking,
    load_cluster_plan,
    state_of,
)
from frontload.launch.run.folder import FINISHED
from frontload.recipes.cluster_runs import (
    BLENDS,
    INDEX,
    PACKS,
    TRAIN_PROMPTS,
    VALIDATION_PROMPTS,
    Run,
)
from frontload.recipes.cluster_study import CONVERT, GRPO
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import nearest

CLI = ("python", "-m", "frontload.launch.cli")


def launch_study(options: argparse.Namespace) -> int:
    """Prints, submits or runs what is not finished of a study.

    Raises: RecipeError for flags of a single run, labels that are none, and data that is missing.
    """
    _check_flags(options)
    plan = load_cluster_plan(options.recipe, options.overrides)
    runs = choose_runs(plan, options.only)
    if options.dry_run:
        if options.only:
            print("\n".join(f"# ---- {run.label}\n{render_run(plan, run).script}" for run in runs))
        else:
            print("\n".join(cluster_show.job_lines(plan, runs)))
        return 0
    _check_data(plan, runs)
    if all(plan.placements[run.placement].slurm is None for run in runs):
        return _run_all_here(plan, runs)
    _submit_all(plan, runs)
    return 0


def _check_flags(options: argparse.Namespace) -> None:
    given = [flag for flag in ("placement", *OF_ONE_RUN, "out") if getattr(options, flag)]
    if given or options.chain != 1:
        flag = given[0] if given else "chain"
        raise RecipeError(
            f"launch {options.recipe} --{flag}",
            found="is given",
            rule="a study says in its recipe what each run reads and where it runs",
            do="change the recipe, e.g. placements.sft=NAME, or launch one training recipe",
        )


def choose_runs(plan: ClusterPlan, only: Sequence[str]) -> list[Run]:
    """The runs of these labels, or of these kinds; all if none is named."""
    found: list[Run] = []
    for label in only:
        mine = [run for run in plan.runs if label in (run.label, run.kind)]
        if not mine:
            raise RecipeError(
                f"launch --only {label}",
                found="no such run",
                rule="a run is named by its label or its kind, as `frontload plan` prints them",
                do=nearest(label, [run.label for run in plan.runs]),
            )
        found += mine
    return [run for run in plan.runs if run in found or not only]


def _check_data(plan: ClusterPlan, runs: Sequence[Run]) -> None:
    absent = dict.fromkeys(label for run in runs for label in lacking(plan, run))
    if absent:
        raise RecipeError(
            f"launch {plan.name}",
            found=f"no {', '.join(absent)} in {plan.data}",
            rule="the data of a run is there before it starts",
            do=f"make it with the commands that `frontload plan {plan.name}` prints",
        )
    check_shared_phases(plan)


# ---------------------------------------------------------------- one run


def render_run(plan: ClusterPlan, run: Run) -> Rendered:
    """The job of one run."""
    if run.kind == CONVERT:
        return _conversion(plan, run)
    start = plan.start_of(run)
    blends, indexes = (_data(plan, run, kind) for kind in (BLENDS, INDEX))
    packs = _data(plan, run, PACKS)
    is_rl = run.kind == GRPO
    words = argparse.Namespace(
        recipe=run.recipe,
        placement=run.placement,
        overrides=[],
        out=plan.folder(run.label),
        chain=1,
        start=None if is_rl else start,
        until=run.until,
        blend=blends,
        index=indexes,
        pack=packs[0] if packs else None,
        model=start if is_rl else None,
        prompts=plan.data / TRAIN_PROMPTS if is_rl else None,
        validation=plan.data / VALIDATION_PROMPTS if is_rl else None,
    )
    return render(plan.recipe(run), plan.placements[run.placement], words)


def _data(plan: ClusterPlan, run: Run, kind: str) -> list[Path]:
    return [plan.data / label for label in run.data if label.startswith(f"{kind}/")]


def _conversion(plan: ClusterPlan, run: Run) -> Rendered:
    """The checkpoint as the Hugging Face folder that RL starts from, on one node."""
    start, folder = plan.start_of(run), plan.folder(run.label)
    assert start is not None
    placement = replace(plan.placements[run.placement], num_nodes=1)
    made, tokenizer = folder / "model", plan.data / plan.study.data.tokenizer
    words = (*CLI, "convert", "to-hf", str(start), str(made), "--tokenizer", str(tokenizer))
    script = ""
    if placement.slurm is not None:
        job = ClusterJob(
            name=CONVERT, folder=folder, environment={}, body=command_body(words, made=made)
        )
        script = job_script(job, placement)
    return Rendered(
        script=script or local_script(words, {}),
        command=words,
        environment={},
        folder=folder,
        needs=(start,),
        flags="--only, to make it first",
    )


# ---------------------------------------------------------------- all of them


def _submit_all(plan: ClusterPlan, runs: Sequence[Run]) -> None:
    """Gives every run that is not finished to Slurm, once; what it starts from first."""
    queue.find_program("sbatch")
    numbers: dict[str, str] = {}
    for run in runs:
        if state_of(plan, run)[0] == BUILT:
            print(f"{run.label}: finished")
            continue
        number = queued_job(plan.folder(run.label))
        if number:
            print(f"{run.label}: job {number} is in the queue")
            numbers[run.label] = number
            continue
        before = numbers.get(run.start, "") or _before(plan, run)
        job = render_run(plan, run)
        (job.folder / "logs").mkdir(parents=True, exist_ok=True)
        name = f"{plan.name}/{run.label}"
        number = queue.submit(job.script, after=[before] if before else [], name=name)
        (job.folder / JOB).write_text(f"{number}\n", encoding="utf-8")
        numbers[run.label] = number
        print(f"{run.label}: job {number} submitted" + (f" after job {before}" if before else ""))


def _before(plan: ClusterPlan, run: Run) -> str:
    """The queued job of the run that this one starts from; "" if that is finished.

    Raises: RecipeError if it is neither finished nor queued.
    """
    if not run.start or state_of(plan, plan.run(run.start))[0] == BUILT:
        return ""
    number = queued_job(plan.folder(run.start))
    if not number:
        raise RecipeError(
            f"launch --only {run.label}",
            found=f"{run.start} is neither finished nor in the queue",
            rule=f"{run.label} goes on from what it leaves",
            do=f"add --only {run.start}, or leave --only out",
        )
    return number


def queued_job(folder: Path) -> str:
    """The number of a run's job that Slurm still holds; "" if there is none."""
    path, squeue = folder / JOB, shutil.which("squeue")
    if not path.is_file() or squeue is None:
        return ""
    number = path.read_text(encoding="utf-8").strip()
    command = [squeue, "--noheader", f"--jobs={number}", "--format=%T"]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    return number if done.returncode == 0 and done.stdout.strip() else ""


def _run_all_here(plan: ClusterPlan, runs: Sequence[Run]) -> int:
    """Runs everything on this machine, one after the other; the first failure ends it."""
    for run in runs:
        if state_of(plan, run)[0] == BUILT:
            print(f"{run.label}: finished", flush=True)
            continue
        job = render_run(plan, run)
        print(f"{run.label}: starts", flush=True)
        if run.kind == CONVERT:  # what it makes appears whole; only the mark may be missing
            shutil.rmtree(job.folder, ignore_errors=True)
            job.folder.mkdir(parents=True)
        code = run_here(job)
        if code:
            return code
        (job.folder / FINISHED).touch()
    return 0
