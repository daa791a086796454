"""Whose the finished parts in a work folder are: those of one plan, told by its key."""

from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_json, read_object
from frontload.data_tools.disk.indexed import bin_file, idx_file, manifest_file
from frontload.data_tools.disk.publish import check_there, clear, disk_told
from frontload.data_tools.preprocess.plan import WorkPlan
from frontload.data_tools.preprocess.publish import MANIFEST
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError

PLAN = "plan.json"
ENCODERS = "encoders.json"  # why parts were encoded as they were; gigatoken: its gate is passed
REFUSED = "refused"  # of parts whose run ended with a refusal: no one is going to finish them


def describe_plan(plan: WorkPlan) -> dict[str, Any]:
    """What `enter_plan` notes of a plan."""
    sources = [[source.name, source.size_bytes, source.mtime_ns] for source in plan.sources]
    return {"key": plan.key, "request": plan.request, "sources": sources}


def find_published(prefix: Path, key: str) -> dict[str, Any] | None:
    """The manifest of an earlier run of the same plan, when it has published.

    Raises: ArtifactError when a file of the pair is gone or cut since.
    """
    if not manifest_file(prefix).is_file():
        return None
    manifest = read_json(manifest_file(prefix))
    made_by = manifest.get("made_by") if isinstance(manifest, dict) else None
    if not isinstance(made_by, dict) or made_by.get("plan") != key:
        return None
    manifest = read_object(manifest_file(prefix), MANIFEST)
    pair = {"bin": bin_file(prefix), "idx": idx_file(prefix)}
    check_there({file: manifest[f"{part}_bytes"] for part, file in pair.items()})
    return manifest


def enter_plan(folder: Path, prefix: Path, plan: dict[str, Any]) -> None:
    """Makes the folder this plan's, or goes on with what an earlier run of it left.

    Raises: RecipeError when the folder or the output is another request's.
    """
    file, refused = folder / PLAN, folder / REFUSED
    if file.is_file():
        stated = read_json(file)
        if stated["key"] == plan["key"]:
            refused.unlink(missing_ok=True)
            return
        if not refused.exists() and any(folder.glob("unit-*.json")):
            raise RecipeError(
                f"--output-prefix {prefix}",
                found=f"{folder}, unfinished parts of another request: {_change(stated, plan)}",
                rule="parts of two requests are never mixed",
                do=f"run the earlier command to its end, or delete them with rm -r {folder}",
            )
        clear(folder, last=(PLAN, REFUSED))  # no part is left without a plan to name it
    for path in (manifest_file(prefix), bin_file(prefix), idx_file(prefix)):
        if path.exists():
            clear(folder, last=(PLAN, REFUSED))
            raise RecipeError(
                f"--output-prefix {prefix}",
                found=f"{path} is there, of another request or origin",
                rule="a finished output is never overwritten",
                do="delete it, or choose another prefix",
            )
    with disk_told(file):
        write_json(file, plan)


def mark_refused(folder: Path) -> None:
    """Notes that the run was refused for its rows: a corrected request may have the folder."""
    with disk_told(folder):
        (folder / REFUSED).touch()


def note_encoder(folder: Path, encoder: str, *, reason: str, compared: int) -> None:
    """Notes why parts were encoded with an encoder, and how many documents its gate compared.

    Parts that gigatoken encoded may be published once it is noted.
    """
    with disk_told(folder):
        write_json(
            folder / ENCODERS,
            {**noted_encoders(folder), encoder: {"reason": reason, "compared": compared}},
        )


def noted_encoders(folder: Path) -> dict[str, Any]:
    """Encoder -> reason and documents compared, as the runs of this plan noted them."""
    file = folder / ENCODERS
    return read_json(file) if file.is_file() else {}


def _change(stated: dict[str, Any], now: dict[str, Any]) -> str:
    names = [name for name in now["request"] if stated["request"].get(name) != now["request"][name]]
    if stated["sources"] != now["sources"]:
        names.append("the inputs")
    return ", ".join(names) + " changed" if names else "--shard or --rejects changed"
