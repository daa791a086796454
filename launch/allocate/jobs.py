"""The cells of a block as jobs of a cluster: submitted once, and waited for by the loop."""

import time
from collections.abc import Mapping, Sequence

from frontload.launch.allocate.question import Allocation
from frontload.launch.cluster import study_jobs
from frontload.launch.cluster.job_state import JobState
from frontload.launch.store import Store
from frontload.launch.study.crew import Crew
from frontload.launch.study.plan import plan_study
from frontload.recipes.errors import StageError
from frontload.recipes.stage import Stage
from frontload.recipes.study.expand import Study

POLL_SECONDS = 10.0  # between two looks at the queue, which others ask too
LOST_LOOKS = 3  # at an ended job whose artifact a shared disk does not show yet


def run_as_jobs(allocation: Allocation, store: Store, stages: Sequence[Stage]) -> None:
    """Submits what is neither built nor in the queue, and returns when all is built.

    A loop that is killed leaves its jobs in the queue; the same command finds them there.

    Raises: RecipeError where there is no Slurm; StageError for a job that ended without its stage.
    """
    study = Study(
        name=allocation.name,
        recipe=allocation.recipe.study,
        points=(),
        stages=tuple(stages),
        tabulate=stages[-1],
    )
    plan = plan_study(study, store, crew=Crew(workers=0))
    study_jobs.submit_missing(plan, store, plan.missing)
    print(
        f"waiting for {len(plan.missing)} jobs; this command may be ended and run again", flush=True
    )
    lost = 0
    while True:
        plan = plan_study(study, store, crew=Crew(workers=0))
        if not plan.missing:
            return
        jobs = study_jobs.read_jobs(plan, store)
        ended = [one.stage for one in plan.missing if not _is_alive(jobs, one.stage)]
        lost = lost + 1 if ended else 0
        if lost >= LOST_LOOKS:
            raise _ended(store, ended, jobs)
        time.sleep(POLL_SECONDS)


def _is_alive(jobs: Mapping[str, JobState], stage: Stage) -> bool:
    return stage.key in jobs and jobs[stage.key].is_alive


def _ended(store: Store, ended: Sequence[Stage], jobs: Mapping[str, JobState]) -> StageError:
    stage = ended[0]
    job = jobs.get(stage.key)
    state = f"job {job.number} ended ({job.state or 'forgotten'})" if job else "it has no job"
    more = f"; {len(ended)} stages have none that waits or runs" if len(ended) > 1 else ""
    return StageError(
        f"stage {stage.folder}",
        found=f"{state}, and it is not built{more}",
        rule="a job ends with its artifact in the store",
        do=f"read {study_jobs.job_folder(store, stage) / 'logs'}, mend the cause and run again: "
        "what is built stays, what is not is submitted anew",
    )
