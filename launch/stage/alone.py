"""A process makes a stage alone: checked inputs, the stage's lock, its function, one rename."""

import resource
import time
from collections.abc import Callable
from pathlib import Path

from frontload.launch.origins.machine_kind import machine_kind
from frontload.launch.stage.jobs import Finished, Job, load_function
from frontload.launch.stage.workspace import LiveWorkspace, Report
from frontload.launch.store import Store
from frontload.recipes.errors import FrontloadError

LOCK_WAIT_SECONDS = 30.0  # a killed run's processes may need a moment to leave


class Meter:
    """Measures what this process, and its children that have ended, spend from now on."""

    def __init__(self) -> None:
        self._cpu, self._wall = cpu_seconds(), time.monotonic()

    def cpu_seconds(self) -> float:
        """CPU time until now."""
        return cpu_seconds() - self._cpu

    def end(self, error: FrontloadError | None = None) -> Finished:
        """The end of a job."""
        return Finished(
            cpu_seconds=self.cpu_seconds(),
            wall_seconds=time.monotonic() - self._wall,
            error=error,
            made_on=machine_kind(),
        )


def make_alone(
    job: Job, report: Report, *, instead: Callable[[Job, Path], None] | None = None
) -> None:
    """Makes and publishes a stage, unless it is there.

    `instead` is given the job and the scratch folder, and runs the function in other processes.
    """
    store = job.store
    with store.lock(job.ticket.key, wait_seconds=LOCK_WAIT_SECONDS):
        if store.find_made(job.ticket) is not None:
            return
        store.error_file(job.ticket).unlink(missing_ok=True)
        for path in job.inputs.values():
            check_once(store, path)
        work = LiveWorkspace(store, job.ticket, placement=job.placement, report=report)
        try:
            if instead is not None:
                instead(job, work.scratch)
            else:
                load_function(job.function)(job.recipe, job.inputs, work)
        finally:
            work.close()
        store.publish(job.ticket)


_CHECKED: set[Path] = set()


def check_once(store: Store, path: Path) -> None:
    """Compares an input with its checksums; a process reads each input once.

    Raises: ArtifactError naming the file that differs.
    """
    if path not in _CHECKED:
        store.check_input(path)
        _CHECKED.add(path)


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    found = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        found += usage.ru_utime + usage.ru_stime
    return found
