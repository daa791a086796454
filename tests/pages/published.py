"""The numbers that this repository publishes of a study: one JSON file per key in eval/log/data.

A file is taken from a finished `tabulate` artifact. Where the artifact was not kept, it was
transcribed from the entry that printed the numbers, and `source` says so.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frontload.recipes.errors import ArtifactError, RecipeError

FORMAT = 1
ARTIFACT, TRANSCRIBED = "artifact", "transcribed"
KEPT = ("tables.md", "cells.json")  # of an artifact, beside the file of its study


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One number that a verdict judges; percentage points."""

    label: str
    measure: str
    value: float
    se: float
    t: float | None  # of the distance that the verdict judges
    needed: float | None  # the |t| of the two-sided 5% level
    verdict: str | None  # where it is the one that decides


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One hypothesis in one study."""

    id: str  # H01
    name: str
    verdict: str | None  # None: not judged under the rule in force
    parts: tuple[Comparison, ...]
    counted: str  # seeds x questions
    paper: float | None
    seeds_needed: tuple[int, int] | None  # to find an effect of the paper's size in 8 of 10 studies


@dataclass(frozen=True, kw_only=True)
class Published:
    """One study."""

    key: str
    study: str
    regime: str
    seeds: int
    made: str  # the machine
    date: str
    source: Mapping[str, str]
    hypotheses: tuple[Hypothesis, ...]

    def hypothesis(self, name: str) -> Hypothesis:
        """By its short name, H01."""
        return next(one for one in self.hypotheses if one.id == name)


@dataclass(frozen=True, kw_only=True)
class About:
    """What an artifact does not say of itself."""

    regime: str
    made: str
    date: str


def read_published(path: Path) -> Published:
    """Reads a file of eval/log/data.

    Raises: ArtifactError if it is of another format or its name is not its key.
    """
    found = json.loads(path.read_text())
    form = found.pop("format")
    if form != FORMAT or found["key"].rpartition("/")[2] != path.stem:
        raise ArtifactError(
            f"reading {path.name}",
            found=f"format {form} and key {found['key']}",
            rule=f"format {FORMAT}, and the file is named by its key",
            do="write it with `make pages ARTIFACT=FOLDER`",
        )
    hypotheses = tuple(_hypothesis(row) for row in found.pop("hypotheses"))
    return Published(hypotheses=hypotheses, **found)


def publish(artifact: Path, about: About, *, folder: Path) -> Path:
    """Writes the numbers of a finished `tabulate` artifact, and its tables and cells beside them.

    Raises: RecipeError if the artifact lacks one of its files.
    """
    path = write_published(of_artifact(artifact, about), folder)
    beside = path.with_suffix("")
    beside.mkdir(exist_ok=True)
    for name in KEPT:
        shutil.copyfile(artifact / name, beside / name)
    return path


def write_published(published: Published, folder: Path) -> Path:
    """Writes the file of a study and returns its path."""
    path = folder / f"{published.key.rpartition('/')[2]}.json"
    path.write_text(json.dumps({"format": FORMAT, **asdict(published)}, indent=1) + "\n")
    return path


def of_artifact(folder: Path, about: About) -> Published:
    """Takes over the verdicts of a finished `tabulate` artifact, unrounded.

    Raises: RecipeError if the folder lacks a file that is published.
    """
    file = folder / "verdicts.json"
    missing = [name for name in (file.name, *KEPT) if not (folder / name).is_file()]
    if missing:
        raise RecipeError(
            f"{folder}",
            found=f"no {', no '.join(missing)}",
            rule="numbers are published from a finished tabulate artifact",
            do="name its folder, store/tabulate/STUDY-KEY",
        )
    rows: Sequence[Mapping[str, Any]] = json.loads(file.read_text())["hypotheses"]
    return Published(
        key=f"tabulate/{folder.name}",
        study=folder.name.rpartition("-")[0],
        regime=about.regime,
        seeds=max(row["num_seeds"] for row in rows),
        made=about.made,
        date=about.date,
        source={
            "kind": ARTIFACT,
            "from": file.name,
            "how": f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}",
        },
        hypotheses=tuple(_of_row(row) for row in rows),
    )


def _of_row(row: Mapping[str, Any]) -> Hypothesis:
    needed = row["seeds_needed"]
    return Hypothesis(
        id=row["id"].partition("_")[0],
        name=row["name"],
        verdict=row["verdict"],
        parts=tuple(_comparison_of(part) for part in row["parts"]),
        counted=f"{row['num_seeds']} x {row['num_items']}",
        paper=row["paper_effect"],
        seeds_needed=None if needed is None else (needed, needed),
    )


def _comparison_of(part: Mapping[str, Any]) -> Comparison:
    t = part["t"]
    opposite = t is not None and t < 0
    return Comparison(
        label=part["label"],
        measure=part["measure"],
        value=part["value"]["value"],
        se=part["value"]["se"],
        t=t,
        needed=part["critical_of_opposite"] if opposite else part["critical"],
        verdict=part["verdict"],
    )


def _hypothesis(row: Mapping[str, Any]) -> Hypothesis:
    needed = row["seeds_needed"]
    return Hypothesis(
        **{
            **row,
            "parts": tuple(Comparison(**part) for part in row["parts"]),
            "seeds_needed": None if needed is None else (needed[0], needed[1]),
        }
    )
