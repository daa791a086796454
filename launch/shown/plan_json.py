"""Plans and states of a study as JSON, for scripts."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from frontload.launch.cluster.job_state import JobState
from frontload.launch.shown.show import stage_state
from frontload.launch.store import Store
from frontload.launch.study.plan import Entry, Plan, most_gpus


def plan_json(plan: Plan, store: Store) -> dict[str, Any]:
    """A plan. Seconds are of one core, or of all GPUs that a stage holds at once."""
    prices = [entry.price for entry in plan.missing]
    return {
        "study": plan.study.name,
        "store": str(store.root),
        "stages": [_stage_json(entry) for entry in plan.entries],
        "missing": len(plan.missing),
        "changed_files": list(plan.changed_files),
        "price": {
            "flops": sum(price.flops for price in prices),
            "cpu_seconds": sum(price.seconds for price in prices if not price.on_gpu),
            "gpu_hours": sum(price.gpu_hours for price in prices),
            "dollars": sum(price.dollars for price in prices),
            "wall_seconds": plan.wall_seconds,
            "most_gpus_at_once": most_gpus(plan.missing),
        },
    }


def status_json(plan: Plan, store: Store, jobs: Mapping[str, JobState]) -> dict[str, Any]:
    """The state of every stage, and of its job if it has one."""
    stages: list[dict[str, Any]] = []
    for entry in plan.entries:
        job = jobs.get(entry.stage.key)
        state, note = stage_state(entry, store, job)
        stage = {"folder": entry.stage.folder, "key": entry.stage.key, "state": state}
        stage |= {"note": note.strip(), "job": asdict(job) if job is not None else None}
        stages.append(stage)
    return {"study": plan.study.name, "store": str(store.root), "stages": stages}


def _stage_json(entry: Entry) -> dict[str, Any]:
    return {
        "folder": entry.stage.folder,
        "kind": entry.stage.kind,
        "label": entry.stage.label,
        "key": entry.stage.key,
        "inputs": {role: below.key for role, below in entry.stage.inputs.items()},
        "state": entry.state,
        "reason": entry.reason,
        "price": asdict(entry.price) | {"gpu_hours": entry.price.gpu_hours},
    }
