"""Plan of a study on a store: built, ready or blocked, why each key is new, and what it costs."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.launch.origins.made_by import DEFAULT_STORE
from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import GPU_KINDS, Crew
from frontload.launch.study.order import Waiting, critical_seconds
from frontload.launch.study.own_files import changed_files
from frontload.launch.study.price import Price, price_stages, read_measured
from frontload.recipes.machines.placement import Placement
from frontload.recipes.stage import Stage
from frontload.recipes.study.expand import Study

BUILT, READY, BLOCKED = "built", "ready", "blocked"
SHOWN_CHANGES = 3
MOST_COMPARED = 50  # artifacts that a new key is compared with
FIRST_OF_ITS_KIND = "first of its kind"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One stage of a plan."""

    stage: Stage
    state: str
    reason: str  # why the key is not built; empty if it is
    price: Price


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All stages of a study, inputs first, and what the missing ones cost together."""

    study: Study
    entries: tuple[Entry, ...]
    wall_seconds: float  # of the missing stages on these workers; of jobs, if none of them waits
    workers: int  # without a GPU; 0 = the stages are jobs of a cluster
    gpus: int = 0  # workers with one (or with a group of them), if the placement names any
    changed_files: tuple[str, ...] = ()  # of the user, since stages that are built read them

    @property
    def missing(self) -> list[Entry]:
        """What a run would make."""
        return [entry for entry in self.entries if entry.state != BUILT]

    @property
    def are_jobs(self) -> bool:
        """The stages run as jobs of a cluster."""
        return are_jobs(self.study)

    @property
    def seconds(self) -> dict[str, float]:
        """Key -> estimated seconds, of a core or of the GPUs."""
        return {key: price.seconds for key, price in self.prices.items()}

    @property
    def prices(self) -> dict[str, Price]:
        """Key -> price."""
        return {entry.stage.key: entry.price for entry in self.entries}


def are_jobs(study: Study) -> bool:
    """Whether the stages of a study run as jobs: then all do, as `settle` checks."""
    return study.placements.default.slurm is not None


def store_of(placement: Placement, asked: Path | None) -> Store:
    """The store that is named, else `store` here, or on the shared disk of the cluster of jobs."""
    slurm = placement.slurm
    return Store(asked or (Path(slurm.shared_folder) / DEFAULT_STORE if slurm else DEFAULT_STORE))


def plan_study(study: Study, store: Store, *, crew: Crew) -> Plan:
    """Looks every key up in the store and explains and prices the missing ones.

    Without a GPU here, what is placed on one is priced for one GPU worker.
    """
    placements = study.placements
    prices = price_stages(study.stages, read_measured(store, placements), placements=placements)
    built = store.find_all(study.stages)
    explained, changed = Siblings(store), changed_files(study.stages, built)
    entries: list[Entry] = []
    for stage in study.stages:
        state, reason = BUILT, ""
        if stage.key not in built:
            ready = all(below.key in built for below in stage.inputs.values())
            state = READY if ready else BLOCKED
            reason = explained.why(stage)
            if (store.workspace(Ticket.of(stage)) / "path").is_dir():
                reason += "; begun, goes on from where it stopped"
        entries.append(Entry(stage=stage, state=state, reason=reason, price=prices[stage.key]))
    missing = [entry.stage for entry in entries if entry.state != BUILT]
    seconds = {key: price.seconds for key, price in prices.items()}
    if are_jobs(study):
        wall = max(critical_seconds(missing, seconds).values(), default=0.0)
        return Plan(
            study=study,
            entries=tuple(entries),
            wall_seconds=wall,
            workers=0,
            changed_files=changed,
        )
    gpus = max(1, len(crew.gpus)) if placements.default.gpus is not None else 0
    return Plan(
        study=study,
        entries=tuple(entries),
        wall_seconds=schedule_seconds(missing, seconds, workers=crew.workers, gpus=gpus),
        workers=crew.workers,
        gpus=gpus,
        changed_files=changed,
    )


def schedule_seconds(
    stages: Sequence[Stage], seconds: Mapping[str, float], *, workers: int, gpus: int = 0
) -> float:
    """Wall time of `stages` by the runner's own rule: longest path first, GPUs for their kinds."""
    rank = critical_seconds(stages, seconds)
    graph = Waiting(stages)
    free = {True: gpus, False: workers}  # workers with a GPU, and without
    ready: dict[bool, list[tuple[float, int, Stage]]] = {True: [], False: []}
    running: list[tuple[float, str, bool]] = []
    now, place = 0.0, 0
    new = graph.ready()
    while True:
        for stage in new:
            needs = gpus > 0 and stage.kind in GPU_KINDS
            heapq.heappush(ready[needs], (-rank[stage.key], place, stage))
            place += 1
        for needs, queue in ready.items():
            while queue and free[needs]:
                stage = heapq.heappop(queue)[-1]
                free[needs] -= 1
                heapq.heappush(running, (now + seconds[stage.key], stage.key, needs))
        if not running:
            return now
        now, key, had = heapq.heappop(running)
        free[had] += 1
        new = graph.end(key)


def most_gpus(entries: Sequence[Entry]) -> int:
    """The most GPUs that stages hold at once, were each started as soon as it could be."""
    seconds = {entry.stage.key: entry.price.seconds for entry in entries}
    gpus = {entry.stage.key: entry.price.gpus for entry in entries}
    ends: dict[str, float] = {}
    events: list[tuple[float, int]] = []
    for entry in entries:
        stage = entry.stage
        begin = max((ends.get(below.key, 0.0) for below in stage.inputs.values()), default=0.0)
        ends[stage.key] = begin + seconds[stage.key]
        events += [(begin, gpus[stage.key]), (ends[stage.key], -gpus[stage.key])]
    held = most = 0
    for _, change in sorted(events):
        held += change
        most = max(most, held)
    return most


class Siblings:
    """The built artifacts of each kind, to say what differs from the nearest of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_label: dict[str, dict[str, list[tuple[str, dict[str, Any]]]]] = {}

    def why(self, stage: Stage) -> str:
        """What differs from the nearest built artifact of the kind, the same label preferred."""
        if stage.kind not in self._by_label:
            self._by_label[stage.kind] = self._read(stage)
        known = self._by_label[stage.kind]
        near = known.get(stage.label) or [one for label in known for one in known[label]]
        ours = flatten(stage.payload())
        best: tuple[int, str, dict[str, tuple[Any, Any]]] | None = None
        for name, theirs in near[:MOST_COMPARED]:
            changes = {
                path: (theirs.get(path), ours.get(path))
                for path in sorted(set(ours) | set(theirs))
                if ours.get(path) != theirs.get(path)
            }
            if best is None or (len(changes), name) < best[:2]:
                best = len(changes), name, changes
        return f"{show_changes(best[2])} (against {best[1]})" if best else FIRST_OF_ITS_KIND

    def _read(self, stage: Stage) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        fields = tuple(stage.payload())
        for folder, manifest in self._store.manifests(stage.kind):
            label = folder.name.removesuffix(f"-{manifest['key']}")
            payload = flatten({name: manifest[name] for name in fields})
            found.setdefault(label, []).append((folder.name, payload))
        return found


def show_changes(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """The changed fields in words, fields of the recipe before inputs."""
    own = [name for name in changes if not name.startswith("inputs.")]
    inputs = [name.removeprefix("inputs.") for name in changes if name.startswith("inputs.")]
    parts = [
        f"{name.removeprefix('recipe.')}: {changes[name][0]} -> {changes[name][1]}" for name in own
    ]
    if len(parts) > SHOWN_CHANGES:
        parts = [*parts[:SHOWN_CHANGES], f"{len(parts) - SHOWN_CHANGES} more fields"]
    if inputs and not own:
        more = f" and {len(inputs) - SHOWN_CHANGES} more" if len(inputs) > SHOWN_CHANGES else ""
        parts.append("new input " + ", ".join(inputs[:SHOWN_CHANGES]) + more)
    return "; ".join(parts)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> leaf of a JSON value."""
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for key, below in value.items():
            found.update(flatten(below, f"{prefix}.{key}" if prefix else str(key)))
        return found
    if isinstance(value, (list, tuple)) and any(isinstance(one, (Mapping, list)) for one in value):
        return flatten({str(place): one for place, one in enumerate(value)}, prefix)
    return {prefix: list(value) if isinstance(value, tuple) else value}
