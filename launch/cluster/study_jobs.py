"""The executor `slurm`: every missing stage of a study as a job behind those that it needs.

store/.jobs/<kind>/<label>-<key>/   one stage's job, beside the artifact that it makes:
stage.json    what to make, as it was submitted
job           the number that Slurm gave it
job.sh        its script
work/stage    the stage's workspace, where its checkpoints are
logs/         what its processes print
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frontload.launch.cluster import queue
from frontload.launch.cluster.grpo_job import run_folder, stage_job
from frontload.launch.cluster.job_state import JobState
from frontload.launch.cluster.ranks_job import ranks_job, stage_environment
from frontload.launch.cluster.rendered import CLI
from frontload.launch.cluster.slurm import ClusterJob, job_script
from frontload.launch.cluster.slurm_bodies import command_body
from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import GPU_KINDS, RANKED, TORCHRUN_KINDS
from frontload.launch.study.plan import Entry, Plan
from frontload.recipes.artifact import write_json
from frontload.recipes.machines.placement import Placement
from frontload.recipes.stage import Stage
from frontload.recipes.stage_file import StageFile, to_json
from frontload.rl.cluster.files import read_steps

STAGE_FILE, JOB, SCRIPT = "stage.json", "job", "job.sh"


def submit_missing(plan: Plan, store: Store, missing: Sequence[Entry]) -> None:
    """Submits what is neither built nor in the queue; says of each stage which it is.

    Raises: RecipeError where there is no Slurm, or for a placement that Slurm would refuse.
    """
    states = read_jobs(plan, store)
    numbers = {key: job.number for key, job in states.items() if job.is_alive}
    scripts = {
        entry.stage.key: _scripts(plan, store, entry)
        for entry in missing
        if entry.stage.key not in numbers
    }
    for entry in missing:
        stage = entry.stage
        if stage.key in numbers:
            job = states[stage.key]
            print(f"{stage.folder}: job {job.number} is in the queue ({job.state})")
            continue
        after = [numbers[one.key] for one in stage.inputs.values() if one.key in numbers]
        number = _submit(plan, store, entry, scripts=scripts[stage.key], after=after)
        numbers[stage.key] = number
        print(f"{stage.folder}: job {number}" + (f" after {', '.join(after)}" if after else ""))


def print_jobs(plan: Plan, store: Store, missing: Sequence[Entry], *, is_whole: bool) -> None:
    """What would be submitted: of a whole study one line per job, else every script."""
    for entry in missing:
        stage, placement = entry.stage, placed(plan, entry.stage)
        if not is_whole:
            for script in _scripts(plan, store, entry):
                print(f"# ---- {stage.folder}\n{script}")
            continue
        if is_ray_stage(plan, stage):
            placement = plan.study.placements.of(stage.kind)
        ranks = f"{placement.num_nodes} x {placement.ranks_per_node} ranks of {placement.name}"
        after = [one.folder for one in stage.inputs.values() if one.key in plan.prices]
        waits = [name for name in after if _is_missing(plan, name)]
        print(f"{stage.folder}: {ranks}" + (f", after {', '.join(waits)}" if waits else ""))
    if is_whole:
        print("nothing was started; the script of a job: --dry-run --only KIND/LABEL")


def read_jobs(plan: Plan, store: Store) -> dict[str, JobState]:
    """Key -> the newest job that was submitted for a stage that is not built.

    A job names its folder, so that one is found whose submitter was killed before it noted it.
    """
    folders = {entry.stage.key: job_folder(store, entry.stage) for entry in plan.missing}
    known = {key: folder for key, folder in folders.items() if (folder / STAGE_FILE).is_file()}
    if not known:
        return {}
    alive = queue.queued()
    numbers = {key: alive.get(str(folder), "") or _noted(folder) for key, folder in known.items()}
    states = queue.states(number for number in numbers.values() if number)
    found: dict[str, JobState] = {}
    for entry in plan.missing:
        number = numbers.get(entry.stage.key)
        if number:
            state = JobState(number=number, state=states.get(number, ""))
            found[entry.stage.key] = _with_pace(state, entry.stage, store)
    return found


def _noted(folder: Path) -> str:
    path = folder / JOB
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def job_folder(store: Store, stage: Stage) -> Path:
    """Where the job of a stage keeps its script, number and logs."""
    return store.root.absolute() / ".jobs" / stage.folder


def placed(plan: Plan, stage: Stage) -> Placement:
    """Where a stage runs: one process unless its kind has ranks, with GPUs only if it uses them."""
    placement = plan.study.placements.of(stage.kind)
    if stage.kind not in GPU_KINDS:
        placement = replace(placement, gpus=None)
    if stage.kind in RANKED and not is_ray_stage(plan, stage):
        return placement
    return replace(placement, num_nodes=1, ranks_per_node=1)


def is_ray_stage(plan: Plan, stage: Stage) -> bool:
    """Whether a job with Ray on every node comes before the stage's own, which publishes."""
    return stage.kind == "grpo" and plan.study.placements.of(stage.kind).gpus is not None


def _is_missing(plan: Plan, folder: str) -> bool:
    return any(entry.stage.folder == folder for entry in plan.missing)


def _submit(
    plan: Plan, store: Store, entry: Entry, *, scripts: Sequence[str], after: Sequence[str]
) -> str:
    """Writes what the job reads, then gives it to Slurm and notes its number.

    A Ray job that is in the queue is waited for, not submitted again; nor is one that has finished.
    """
    stage, folder = entry.stage, job_folder(store, entry.stage)
    for name in ("logs", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("finished", "error.json"):
        (folder / name).unlink(missing_ok=True)
    link = folder / "work" / "stage"
    link.unlink(missing_ok=True)
    link.symlink_to(store.workspace(Ticket.of(stage)).absolute())
    write_json(folder / STAGE_FILE, to_json(_stage_file(plan, entry)))
    *first, script = scripts
    (folder / SCRIPT).write_text(script, encoding="utf-8")
    for ray in first:
        run = run_folder(stage, store)
        if (run / "finished").exists():
            continue
        (run / "logs").mkdir(parents=True, exist_ok=True)
        name = f"{plan.study.name}/{stage.kind}/{stage.label}/ray"
        after = [queue.queued().get(str(run)) or queue.submit(ray, after=after, name=name)]
    number = queue.submit(script, after=after, name=f"{plan.study.name}/{stage.kind}/{stage.label}")
    (folder / JOB).write_text(f"{number}\n", encoding="utf-8")
    return number


def _stage_file(plan: Plan, entry: Entry) -> StageFile:
    stage = entry.stage
    return StageFile(
        kind=stage.kind,
        label=stage.label,
        key=stage.key,
        payload=stage.payload(),
        recipe=stage.recipe,
        inputs={role: below.folder for role, below in stage.inputs.items()},
        placement=placed(plan, stage),
        work=entry.price.work,
    )


def _scripts(plan: Plan, store: Store, entry: Entry) -> tuple[str, ...]:
    """The jobs of one stage, each behind the one before; the last one publishes it.

    Raises: RecipeError for a placement that Slurm would refuse, or settings that veRL would run
        wrongly.
    """
    own = _script(plan, store, entry)
    if not is_ray_stage(plan, entry.stage):
        return (own,)
    placement = plan.study.placements.of(entry.stage.kind)
    return job_script(stage_job(entry.stage, store, placement), placement), own


def _script(plan: Plan, store: Store, entry: Entry) -> str:
    """The job that makes one stage.

    Raises: RecipeError for a placement that Slurm would refuse.
    """
    stage, placement = entry.stage, placed(plan, entry.stage)
    root, folder = store.root.absolute(), job_folder(store, stage)
    words = ("stage", str(folder / STAGE_FILE))
    name = f"{stage.kind}-{stage.key}"
    if stage.kind in TORCHRUN_KINDS:
        job = ranks_job(words, placement, name=name, folder=folder, disk=root)
    else:
        job = ClusterJob(
            name=name,
            folder=folder,
            environment=stage_environment(placement),
            body=command_body((*CLI, *words), made=root / stage.folder),
            needs_gpus=stage.kind in GPU_KINDS,
        )
    return job_script(job, placement)


def _with_pace(job: JobState, stage: Stage, store: Store) -> JobState:
    """The last step that a training stage has logged, and its rate; of a Ray job the step."""
    if stage.kind == "grpo":
        done = max(read_steps(run_folder(stage, store)), default=0)
        return replace(job, step=done, steps=stage.recipe.steps)
    path = store.telemetry_file(Ticket.of(stage), "jsonl")
    if stage.kind not in TORCHRUN_KINDS or not path.is_file():
        return job
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().splitlines()
    whole = [line for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    if not whole:
        return job
    last = json.loads(whole[-1])
    steps = stage.recipe.num_samples // stage.recipe.training.global_batch_sequences
    rate = float(last.get("system/tokens_per_second", 0.0))
    return replace(job, step=int(last["step"]), steps=steps, tokens_per_second=rate)
