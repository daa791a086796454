"""What a path on the command line is: an artifact's folder by the files in it, or a prefix P."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from frontload.data_tools.artifacts.read import as_prefix, prefix_of
from frontload.data_tools.blending.ledger import plan_readings
from frontload.data_tools.disk.files import file_sha256, read_json
from frontload.data_tools.disk.indexed import idx_file
from frontload.recipes.errors import RecipeError

KIND_OF_FILE = {
    "compositions.json": "sets",
    "ledger.json": "phases",
    "plan.json": "blend",
    "pack.json": "pack",
    "index.json": "index",
    "composition.json": "curate",
    "items.jsonl": "corpus",
    "tokenizer.json": "tokenizer",
}
"""The file that tells an artifact's kind."""
MADE_OF = {kind: name for name, kind in KIND_OF_FILE.items()}


def kind_of(path: Path) -> str:
    """The kind of an artifact, told by the files in it, or `prefix`.

    Raises: RecipeError when the path is neither.
    """
    for name, kind in KIND_OF_FILE.items():
        if (path / name).is_file():
            return kind
    if as_prefix(path):
        return "prefix"
    raise RecipeError(
        f"folder {path}",
        found="none of the files that tell a kind" if path.is_dir() else "no such folder or prefix",
        rule=f"an artifact of this room holds one of {', '.join(KIND_OF_FILE)}, a prefix P is that"
        " of P.bin and P.idx",
        do="give the folder of a finished artifact, as `frontload status` prints it, or a prefix",
    )


def earlier_phases(blend_folder: Path, candidates: Sequence[Path]) -> list[Path]:
    """The candidates that are earlier phases of the same run.

    Arms that branch from one trunk read the same windows of base on purpose: they are no phases of
    one another.
    """
    earlier = read_json(blend_folder / "plan.json")["earlier"]
    found = []
    for other in candidates:
        readings = plan_readings(read_json(other / "plan.json"))
        if all(asdict(reading) in earlier for reading in readings):
            found.append(other)
    return found


def find_indexes(blend_folder: Path, candidates: Sequence[Path]) -> dict[str, Path]:
    """Source -> index of a blend: among `candidates`, then in the store around the blend.

    An index is known by the sha256 of its .idx, which the plan states.
    """
    wanted: dict[str, list[str]] = {}
    for source in read_json(blend_folder / "plan.json")["sources"]:
        wanted.setdefault(source["index_sha256"], []).append(source["name"])
    in_store = sorted(blend_folder.resolve().parent.parent.glob("index/*/index.json"))
    found: dict[str, Path] = {}
    for path in [*candidates, *(file.parent for file in in_store)]:
        file = idx_file(prefix_of(path))
        if not file.is_file():
            continue
        for name in wanted.get(file_sha256(file), ()):
            found.setdefault(name, path)
    return found
