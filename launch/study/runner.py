"""Runs the stages of a study on warm workers. STAGES is the one registry of stage functions."""

import contextlib
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from frontload.launch.jobs import Finished, Job, Tick
from frontload.launch.machine_kind import FIELD
from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import GPU_KINDS, NO_GPU, num_cores
from frontload.launch.study.price import Price
from frontload.launch.study.workers import Worker
from frontload.launch.version import find_commit
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import FrontloadError, StageError
from frontload.recipes.machines.placement import Placement
from frontload.recipes.stage import Stage

STAGES: dict[str, str] = {
    "synthesize": "frontload.data_tools.stages:synthesize",
    "import_own": "frontload.data_tools.stages:import_own",
    "tokenizer": "frontload.data_tools.stages:train_tokenizer",
    "curate": "frontload.data_tools.stages:curate",
    "index": "frontload.data_tools.stages:index",
    "blend": "frontload.data_tools.stages:blend",
    "pack": "frontload.data_tools.stages:pack",
    "rl_prompts": "frontload.data_tools.stages:write_rl_prompts",
    "pretrain": "frontload.megatron_ext.stages:pretrain",
    "sft": "frontload.megatron_ext.stages:sft",
    "grpo": "frontload.rl.stages:grpo",
    "evaluate": "frontload.eval.stages:evaluate",
    "tabulate": "frontload.eval.stages:tabulate",
}
"""Stage kind -> "module:function", imported by the worker that runs it."""

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

RANKED = ("pretrain", "sft")
"""Kinds that use every rank of the placement; the others are one process."""

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

    placement: Placement
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
    blocked: tuple[Stage, ...]  # not run, since an input failed
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


def critical_seconds(stages: Sequence[Stage], seconds: Mapping[str, float]) -> dict[str, float]:
    """Key -> seconds from the start of a stage to the end of the study on the longest path."""
    longest = {stage.key: seconds.get(stage.key, 1.0) for stage in stages}
    for stage in reversed(stages):
        for below in stage.inputs.values():
            path = seconds.get(below.key, 1.0) + longest[stage.key]
            longest[below.key] = max(longest.get(below.key, 0.0), path)
    return longest


def run_stages(
    stages: Sequence[Stage], store: Store, *, settings: Settings, watcher: Watcher
) -> Summary:
    """Makes every stage that is not built; `stages` holds inputs before what needs them.

    Raises: RecipeError if another run holds the store, ArtifactError for a torn artifact.
    """
    built = {stage.key: path for stage in stages if (path := store.find(stage.kind, stage.key))}
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
        self.waiting = {stage.key: stage for stage in todo}
        self.order = list(todo)
        self.running: dict[str, Stage] = {}
        self.failed: dict[str, FrontloadError] = {}
        self.blocked: list[Stage] = []
        self.made: list[Stage] = []
        self.cpu_seconds = self.gpu_seconds = 0.0
        self.workers: list[Worker] = []

    def run(self) -> Summary:
        begin = time.monotonic()
        try:
            self.workers = [self._worker(gpu) for gpu in self._seats()]
            while self.waiting or self.running:
                self._hand_out()
                if not self.running:
                    break
                self._listen()
        finally:
            for worker in self.workers:
                worker.stop()
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
        settings, placement = self.settings, self.settings.placement
        if settings.gpus:
            return min(num_cores(), settings.workers + len(settings.gpus))
        used = settings.workers * placement.ranks_per_node * placement.threads_per_rank
        return min(num_cores(), used)

    def _seats(self) -> list[str]:
        """What each worker sees; no more workers than there are stages for their kind."""
        on_gpu = sum(self._needs_gpu(stage) for stage in self.order)
        plain = min(self.settings.workers, len(self.order) - on_gpu)
        return [*self.settings.gpus[:on_gpu], *[NO_GPU] * plain]

    def _needs_gpu(self, stage: Stage) -> bool:
        return bool(self.settings.gpus) and stage.kind in GPU_KINDS

    def _worker(self, gpu: str) -> Worker:
        settings = self.settings
        if settings.gpus and gpu == NO_GPU:
            return Worker(threads=1, preload=DATA_PRELOAD)
        threads = settings.placement.threads_per_rank
        return Worker(threads=threads, preload=settings.preload, gpu=gpu)

    def _hand_out(self) -> None:
        """Gives idle workers the ready stages, those on the longest path first.

        A stage that computes on a GPU waits for a worker that has one; no other stage takes it.
        """
        self._block_dependants()
        ready = [
            stage
            for stage in self.waiting.values()
            if all(below.key in self.built for below in stage.inputs.values())
        ]
        ready.sort(key=lambda stage: -self.rank[stage.key])
        for stage in ready:
            needs = self._needs_gpu(stage)
            idle = (one for one in self.workers if one.job is None)
            worker = next((one for one in idle if (one.gpu != NO_GPU) == needs), None)
            if worker is None:
                continue
            del self.waiting[stage.key]
            self.running[stage.key] = stage
            self.watcher.started(stage)
            try:
                worker.start(self._job(stage))
            except (BrokenPipeError, ConnectionError):
                self._lost(worker, stage)

    def _block_dependants(self) -> None:
        dead = set(self.failed) | {stage.key for stage in self.blocked}
        for stage in self.order:
            if stage.key in self.waiting and any(b.key in dead for b in stage.inputs.values()):
                dead.add(stage.key)
                self.blocked.append(self.waiting.pop(stage.key))

    def _job(self, stage: Stage) -> Job:
        placement = self.settings.placement
        if stage.kind not in RANKED:
            placement = replace(
                Placement(), name=placement.name, threads_per_rank=placement.threads_per_rank
            )
        return Job(
            ticket=Ticket.of(stage),
            function=self.settings.registry[stage.kind],
            recipe=stage.recipe,
            inputs={role: self.built[below.key] for role, below in stage.inputs.items()},
            placement=placement,
            store=self.store.root,
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
            self._note_failure(stage, end.error)
        else:
            path = self.store.find(stage.kind, stage.key)
            assert path is not None
            self.built[stage.key] = path
            self.made.append(stage)
            write_provenance(self.store, stage, end=end, settings=self.settings)
        self.watcher.finished(stage, end)

    def _note_failure(self, stage: Stage, error: FrontloadError) -> None:
        """Keeps the message for `frontload status`; a full disk must not hide it from the run."""
        path = self.store.error_file(Ticket.of(stage))
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{error}\n", encoding="utf-8")


def write_provenance(store: Store, stage: Stage, *, end: Finished, settings: Settings) -> None:
    """Records when and where a stage was made, beside the artifact and never in it."""
    path = store.provenance_file(Ticket.of(stage))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path,
        {
            "key": stage.key,
            "label": stage.label,
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "work": price.work if (price := settings.prices.get(stage.key)) else 0.0,
            "cpu_seconds": round(end.cpu_seconds, 3),
            "wall_seconds": round(end.wall_seconds, 3),
            "host": socket.gethostname(),
            "cores": num_cores(),
            "python": platform.python_version(),
            FIELD: asdict(end.made_on),
            "commit": find_commit(),
            "placement": asdict(settings.placement),
        },
        is_synced=True,
    )
