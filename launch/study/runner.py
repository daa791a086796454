"""Runs the stages of a study on warm worker processes of this machine."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from frontload.launch.origins.machine_kind import num_cores
from frontload.launch.stage.jobs import Finished, Job, Tick
from frontload.launch.stage.provenance import write_provenance
from frontload.launch.stage.registry import STAGES
from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import GPU_KINDS, NO_GPU, TORCHRUN_KINDS
from frontload.launch.study.order import Waiting, critical_seconds
from frontload.launch.study.price import Price
from frontload.launch.study.workers import Worker
from frontload.recipes.errors import DiskFull, FrontloadError, StageError
from frontload.recipes.machines.placement import Placement, Placements
from frontload.recipes.stage import Stage

PRELOAD = (
    "torch",
    "frontload.megatron_ext.cpu:prepare",
    "frontload.megatron_ext.training.loop",
    "frontload.megatron_ext.inference.language_model",
    "frontload.eval.stages",
    "frontload.eval.asking.harness",
)
"""What an idle worker imports (or calls) while it waits: seconds that no stage then pays."""

DATA_PRELOAD = ("frontload.data_tools.stages",)
"""The same of a worker beside those with a GPU: it makes data, and is one of many."""

POLL_SECONDS = 0.5


class Watcher(Protocol):
    """Whoever shows a run."""

    def started(self, stage: Stage) -> None: ...
    def ticked(self, stage: Stage, tick: Tick) -> None: ...
    def finished(self, stage: Stage, end: Finished) -> None: ...
    def waited(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run: nothing here changes an artifact."""

    placements: Placements
    workers: int  # without a GPU
    gpus: tuple[str, ...] = ()  # one more worker each, as `crew.Crew` has them
    prices: Mapping[str, Price] = field(default_factory=dict)  # by key, for the order
    registry: Mapping[str, str] = field(default_factory=lambda: STAGES)
    preload: Sequence[str] = PRELOAD


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did."""

    made: tuple[Stage, ...]
    failed: Mapping[str, FrontloadError]  # key -> error, of stages that ran
    blocked: tuple[Stage, ...]  # not run, since an input failed or the disk is full
    wall_seconds: float
    cpu_seconds: float  # of the stages, waiting and importing ahead left out
    cores: int
    gpu_seconds: float = 0.0  # that stages held a GPU worker
    gpus: int = 0  # GPU workers

    @property
    def utilisation(self) -> float:
        """Stage CPU time over cores x wall time."""
        return self.cpu_seconds / max(self.cores * self.wall_seconds, 1e-9)

    @property
    def gpu_share(self) -> float:
        """Time that stages held a GPU worker over workers x wall time."""
        return self.gpu_seconds / max(self.gpus * self.wall_seconds, 1e-9)


def run_stages(
    stages: Sequence[Stage], store: Store, *, settings: Settings, watcher: Watcher
) -> Summary:
    """Makes every stage that is not built; `stages` holds inputs before what needs them.

    Raises: RecipeError if another run holds the store, ArtifactError for a torn artifact.
    """
    built = store.find_all(stages)
    todo = [stage for stage in stages if stage.key not in built]
    if not todo:
        return Summary(
            made=(), failed={}, blocked=(), wall_seconds=0.0, cpu_seconds=0.0, cores=num_cores()
        )
    with store.lock("run", wait_seconds=0.2):
        run = _Run(todo, store, settings=settings, watcher=watcher, built=built)
        return run.run()


class _Run:
    """The state of one run: who is busy, what is made, what failed."""

    def __init__(
        self,
        todo: Sequence[Stage],
        store: Store,
        *,
        settings: Settings,
        watcher: Watcher,
        built: dict[str, Path],
    ) -> None:
        self.store, self.settings, self.watcher, self.built = store, settings, watcher, built
        seconds = {key: price.seconds for key, price in settings.prices.items()}
        self.rank = critical_seconds(todo, seconds)
        self.graph = Waiting(todo)
        self.ready = self.graph.ready()
        self.num_stages = Counter(self._needs_gpu(stage) for stage in todo)
        self.running: dict[str, Stage] = {}
        self.failed: dict[str, FrontloadError] = {}
        self.blocked: list[Stage] = []
        self.made: list[Stage] = []
        self.is_disk_full = False
        self.cpu_seconds = self.gpu_seconds = 0.0
        self.workers: list[Worker] = []

    def run(self) -> Summary:
        begin = time.monotonic()
        try:
            self.workers = [self._worker(gpu) for gpu in self._seats()]
            while self.ready or self.running:
                if not self.is_disk_full:
                    self._hand_out()
                if not self.running:
                    break
                self._listen()
        finally:
            for worker in self.workers:
                worker.stop()
        for stage in self.ready:  # the disk is full: nothing was begun any more
            self.blocked.append(stage)
            self._block(stage)
        return Summary(
            made=tuple(self.made),
            failed=self.failed,
            blocked=tuple(self.blocked),
            wall_seconds=time.monotonic() - begin,
            cpu_seconds=self.cpu_seconds,
            cores=self._cores(),
            gpu_seconds=self.gpu_seconds,
            gpus=len(self.settings.gpus),
        )

    def _cores(self) -> int:
        settings, placement = self.settings, self.settings.placements.default
        if settings.gpus:
            return min(num_cores(), settings.workers + len(settings.gpus))
        used = settings.workers * placement.ranks_per_node * placement.threads_per_rank
        return min(num_cores(), used)

    def _seats(self) -> list[str]:
        """What each worker sees; no more workers than there are stages for their kind."""
        plain = min(self.settings.workers, self.num_stages[False])
        return [*self.settings.gpus[: self.num_stages[True]], *[NO_GPU] * plain]

    def _needs_gpu(self, stage: Stage) -> bool:
        return bool(self.settings.gpus) and stage.kind in GPU_KINDS

    def _worker(self, gpu: str) -> Worker:
        settings = self.settings
        if settings.gpus and gpu == NO_GPU:
            return Worker(threads=1, preload=DATA_PRELOAD)
        threads = settings.placements.default.threads_per_rank
        return Worker(threads=threads, preload=settings.preload, gpu=gpu)

    def _hand_out(self) -> None:
        """Gives idle workers the ready stages, those on the longest path first.

        A stage that computes on a GPU waits for a worker that has one; no other stage takes it.
        """
        self.ready.sort(key=lambda stage: -self.rank[stage.key])
        for stage in list(self.ready):
            needs = self._needs_gpu(stage)
            idle = (one for one in self.workers if one.job is None)
            worker = next((one for one in idle if (one.gpu != NO_GPU) == needs), None)
            if worker is None:
                continue
            self.ready.remove(stage)
            self.running[stage.key] = stage
            self.watcher.started(stage)
            try:
                worker.start(self._job(stage))
            except (BrokenPipeError, ConnectionError):
                self._lost(worker, stage)

    def _job(self, stage: Stage) -> Job:
        placement = self.settings.placements.of(stage.kind)
        if stage.kind not in TORCHRUN_KINDS:
            placement = replace(
                Placement(), name=placement.name, threads_per_rank=placement.threads_per_rank
            )
        return Job(
            ticket=Ticket.of(stage),
            function=self.settings.registry[stage.kind],
            recipe=stage.recipe,
            inputs={role: self.built[below.key] for role, below in stage.inputs.items()},
            placement=placement,
            store=self.store,
        )

    def _listen(self) -> None:
        busy = {worker.connection: worker for worker in self.workers if worker.job}
        for connection in wait(list(busy), timeout=POLL_SECONDS):
            worker = next(one for one in busy.values() if one.connection is connection)
            assert worker.job is not None
            stage = self.running[worker.job.ticket.key]
            message = worker.receive()
            if isinstance(message, Tick):
                self.watcher.ticked(stage, message)
            elif isinstance(message, Finished):
                worker.job = None
                self._end(stage, message)
            else:
                self._lost(worker, stage)
        self.watcher.waited()

    def _lost(self, worker: Worker, stage: Stage) -> None:
        """A worker died in mid-stage: its stage failed, a fresh worker takes its place."""
        log = self.store.telemetry_file(Ticket.of(stage), "log")
        error = StageError(
            f"stage {stage.folder}",
            found=worker.death(),
            rule="a stage ends without an error",
            do=f"read {log}, mend the cause and run again; it goes on from here",
        )
        worker.stop()
        self.workers[self.workers.index(worker)] = self._worker(worker.gpu)
        self._end(stage, Finished(cpu_seconds=0.0, wall_seconds=0.0, error=error))

    def _end(self, stage: Stage, end: Finished) -> None:
        del self.running[stage.key]
        self.cpu_seconds += end.cpu_seconds
        self.gpu_seconds += end.wall_seconds if self._needs_gpu(stage) else 0.0
        if end.error is not None:
            self.failed[stage.key] = end.error
            self.is_disk_full |= isinstance(end.error, DiskFull)
            self.store.note_failure(Ticket.of(stage), end.error)
            self._block(stage)
        else:
            path = self.store.find(stage.kind, stage.key)
            assert path is not None
            self.built[stage.key] = path
            self.made.append(stage)
            self.ready += self.graph.end(stage.key)
            price = self.settings.prices.get(stage.key)
            write_provenance(
                self.store,
                Ticket.of(stage),
                end=end,
                placement=self.settings.placements.of(stage.kind),
                work=price.work if price is not None else 0.0,
            )
        self.watcher.finished(stage, end)

    def _block(self, stage: Stage) -> None:
        """What needs a stage that failed is not run."""
        known = {one.key for one in self.blocked}
        self.blocked += [one for one in self.graph.behind(stage.key) if one.key not in known]
