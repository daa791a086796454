"""What `explain --json` prints: the facts of a stage or of a training sample as plain values."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from frontload.data_tools.shown.explain import SampleOrigin
from frontload.launch.origins.machine_kind import MachineKind
from frontload.launch.store import read_manifest
from frontload.launch.study.plan import BUILT, Entry
from frontload.recipes.stage import Stage

PAYLOAD = ("kind", "revision", "recipe", "inputs")


def stage_json(
    stage: Stage | None, folder: Path | None, *, entry: Entry | None, made_on: MachineKind
) -> dict[str, Any]:
    """A stage of a study, a built folder, or both. `payload` is what the key is the sha256 of."""
    manifest = read_manifest(folder) if stage is None and folder is not None else {}
    return {
        "folder": str(folder) if folder else None,
        "state": entry.state if entry else BUILT,
        "reason": entry.reason if entry else "",
        "price": asdict(entry.price) if entry else None,
        "made_on": asdict(made_on) if folder else None,
        "inputs": {role: below.folder for role, below in stage.inputs.items()}
        if stage
        else manifest["inputs"],
        "payload": stage.payload() if stage else {name: manifest[name] for name in PAYLOAD},
    }


def sample_json(blend: Path, origin: SampleOrigin) -> dict[str, Any]:
    """Where one training sample of a blend came from."""
    return {"blend": f"blend/{blend.name}", **asdict(origin)}
