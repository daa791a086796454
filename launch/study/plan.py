"""Plan of a study on a store: built, ready or blocked, why each key is new, and what it costs."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import GPU_KINDS, Crew
from frontload.launch.study.price import Price, price_stages, read_measured
from frontload.launch.study.runner import critical_seconds
from frontload.recipes.stage import Stage
from frontload.recipes.study.expand import Study

BUILT, READY, BLOCKED = "built", "ready", "blocked"
SHOWN_CHANGES = 3


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
    wall_seconds: float  # of the missing stages on these workers
    workers: int  # without a GPU
    gpus: int = 0  # with one (or with a group of them), if the placement names any

    @property
    def missing(self) -> list[Entry]:
        """What a run would make."""
        return [entry for entry in self.entries if entry.state != BUILT]

    @property
    def seconds(self) -> dict[str, float]:
        """Key -> estimated seconds, of a core or of a GPU."""
        return {key: price.seconds for key, price in self.prices.items()}

    @property
    def prices(self) -> dict[str, Price]:
        """Key -> price."""
        return {entry.stage.key: entry.price for entry in self.entries}


def plan_study(study: Study, store: Store, *, crew: Crew) -> Plan:
    """Looks every key up in the store and explains and prices the missing ones.

    Without a GPU here, what is placed on one is priced for one GPU worker.
    """
    placement = study.placement
    prices = price_stages(study.stages, read_measured(store, placement), placement=placement)
    gpus = max(1, len(crew.gpus)) if placement.gpus is not None else 0
    built = {stage.key for stage in study.stages if store.find(stage.kind, stage.key) is not None}
    siblings: dict[str, list[tuple[Path, Mapping[str, Any]]]] = {}
    entries: list[Entry] = []
    for stage in study.stages:
        state, reason = BUILT, ""
        if stage.key not in built:
            ready = all(below.key in built for below in stage.inputs.values())
            state = READY if ready else BLOCKED
            if stage.kind not in siblings:
                siblings[stage.kind] = list(store.manifests(stage.kind))
            reason = explain_key(stage, siblings[stage.kind])
            if (store.workspace(Ticket.of(stage)) / "path").is_dir():
                reason += "; begun, goes on from where it stopped"
        entries.append(Entry(stage=stage, state=state, reason=reason, price=prices[stage.key]))
    missing = [entry.stage for entry in entries if entry.state != BUILT]
    seconds = {key: price.seconds for key, price in prices.items()}
    return Plan(
        study=study,
        entries=tuple(entries),
        wall_seconds=schedule_seconds(missing, seconds, workers=crew.workers, gpus=gpus),
        workers=crew.workers,
        gpus=gpus,
    )


def schedule_seconds(
    stages: Sequence[Stage], seconds: Mapping[str, float], *, workers: int, gpus: int = 0
) -> float:
    """Wall time of `stages` by the runner's own rule: longest path first, GPUs for their kinds."""
    rank = critical_seconds(stages, seconds)
    waiting = {stage.key: stage for stage in stages}
    free = {True: gpus, False: workers}  # workers with a GPU, and without
    running: list[tuple[float, str, bool]] = []
    pending = set(waiting)
    now = 0.0
    while waiting or running:
        ready = [
            stage
            for stage in waiting.values()
            if not any(below.key in pending for below in stage.inputs.values())
        ]
        for stage in sorted(ready, key=lambda one: -rank[one.key]):
            needs = gpus > 0 and stage.kind in GPU_KINDS
            if free[needs]:
                del waiting[stage.key]
                free[needs] -= 1
                heapq.heappush(running, (now + seconds[stage.key], stage.key, needs))
        now, key, had = heapq.heappop(running)
        free[had] += 1
        pending.discard(key)
    return now


def explain_key(stage: Stage, siblings: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    """What differs from the nearest built artifact of the kind, the same label preferred."""
    ours = flatten(stage.payload())
    best: tuple[bool, int, str, dict[str, tuple[Any, Any]]] | None = None
    for folder, manifest in siblings:
        label = folder.name[: -len(manifest["key"]) - 1]
        theirs = flatten({name: manifest[name] for name in stage.payload()})
        changes = {
            name: (theirs.get(name), ours.get(name))
            for name in sorted(set(ours) | set(theirs))
            if ours.get(name) != theirs.get(name)
        }
        candidate = (label != stage.label, len(changes), folder.name, changes)
        if best is None or candidate[:3] < best[:3]:
            best = candidate
    if best is None:
        return "first of its kind"
    return f"{show_changes(best[3])} (against {best[2]})"


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
