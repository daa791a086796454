"""Reads what lies at a path: the files of a blend, the phases of a plan, the prefix of a pair."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.disk.files import read_array, read_json
from frontload.data_tools.disk.indexed import bin_file, idx_file, manifest_file
from frontload.recipes.artifact import index_prefix
from frontload.recipes.errors import ArtifactError
from frontload.recipes.index_flag import SUFFIXES


class _Arrays(Mapping[str, np.ndarray]):
    """One array of each source, mapped while it is used: a blend may have thousands."""

    def __init__(self, folder: Path, *, names: Sequence[str], stem: str, dtype: type) -> None:
        self._files = {name: folder / f"{name}.{stem}.npy" for name in names}
        self._dtype = dtype

    def __getitem__(self, name: str) -> np.ndarray:
        return read_array(self._files[name], self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@dataclass(frozen=True, kw_only=True)
class BlendFiles:
    """A blend as it lies on disk."""

    folder: Path
    plan: Mapping[str, Any]
    samples: np.ndarray
    order: Mapping[str, np.ndarray]
    offsets: Mapping[str, np.ndarray]

    def file(self, stem: str) -> Path:
        """One of the arrays' files."""
        return self.folder / f"{stem}.npy"

    def field(self, *path: object) -> str:
        """A field of the plan, as a place."""
        return f"{self.folder / 'plan.json'} " + ".".join(str(part) for part in path)


def read_blend(folder: Path) -> BlendFiles:
    """Reads the files of a blend; the arrays of a source when they are asked for.

    Raises: ArtifactError for a missing or torn file, those of a source when they are read.
    """
    plan = read_json(folder / "plan.json")
    names = [source["name"] for source in plan["sources"]]
    return BlendFiles(
        folder=folder,
        plan=plan,
        samples=read_array(folder / "samples.npy", np.int64),
        order=_Arrays(folder, names=names, stem="order", dtype=np.int32),
        offsets=_Arrays(folder, names=names, stem="offsets", dtype=np.int64),
    )


def phase_folders(folder: Path) -> list[Path]:
    """The folders of a blend's phases, in order.

    Raises: ArtifactError when the ledger names none, or one that is not there.
    """
    file = folder / "ledger.json"
    try:
        found = [folder / str(phase["name"]) for phase in read_json(file)["phases"]]
    except (LookupError, TypeError) as error:
        raise _not_a_ledger(file, f"no names of phases ({error!r})") from error
    for phase in found:
        if not (phase / "plan.json").is_file():
            raise _not_a_ledger(file, f"phase {phase.name}, which has no plan.json in the folder")
    return found


def _not_a_ledger(file: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"reading {file}",
        found=found,
        rule="a planned blend has a ledger and a folder of each of its phases",
        do="run `frontload data blend` again to a new folder",
    )


def prefix_of(index: Path) -> Path:
    """The prefix of an index: of the pair in an artifact's folder, or the prefix itself."""
    return index_prefix(index) if index.is_dir() else index


def as_prefix(path: Path) -> Path | None:
    """The prefix that a path names, itself or by one of its three files; None for none."""
    if not path.name:  # `.`, or nothing
        return None
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            path = path.with_name(path.name.removesuffix(suffix))
    named = (bin_file(path), idx_file(path), manifest_file(path))
    return path if any(file.is_file() for file in named) else None
