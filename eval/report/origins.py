"""Where a number comes from: the evaluations and checkpoints behind a cell, and their names."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.eval.statistics.cells import ALIASES, GROUPS


@dataclass(frozen=True, kw_only=True)
class ReportOrigin:
    """One evaluation of a cell: its stage, the checkpoint that was asked, and the questions."""

    seed: int
    evaluation: str  # kind/label-key, as `frontload explain` takes it
    checkpoint: str
    folder: Path  # of the evaluation
    items: Path  # file of the questions that were asked


@dataclass(frozen=True, kw_only=True)
class Place:
    """How a page leads from a row to its artifacts."""

    anchor: str
    tip: str  # every stage behind the row, with its key


def origins_json(tabulate: str, origins: Mapping[str, Sequence[ReportOrigin]]) -> dict[str, Any]:
    """The form of origins.json: the stage of the tables, and of each cell and seed its stages."""
    names = ("seed", "evaluation", "checkpoint")
    cells = {
        cell: [{name: getattr(one, name) for name in names} for one in asked]
        for cell, asked in origins.items()
    }
    return {"format": 1, "tabulate": tabulate, "cells": cells}


def slugs(cells: Iterable[str]) -> dict[str, str]:
    """Cell -> a name for files and anchors: letters, digits and dashes, told apart without case."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for cell in cells:
        words = cell.replace("'", "-prime").replace("*", "-x").replace("@", "-at-")
        plain = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-") or "cell"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        found[cell] = name
    return found


def member_cells(cell: str) -> list[str]:
    """The cells of a group of cells, else the cell itself, by the names of the study."""
    parts = [ALIASES.get(part, part) for part in cell.split(">")]
    choices = [GROUPS.get(part, (part,)) for part in parts]
    return [">".join(chosen) for chosen in itertools.product(*choices)]


def places(
    origins: Mapping[str, Sequence[ReportOrigin]], rows: Iterable[str], *, names: Mapping[str, str]
) -> dict[str, Place]:
    """Cell or group of cells -> where a page tells its artifacts; without those of no evaluation.

    `names` are those of `slugs`.
    """
    found: dict[str, Place] = {}
    for row in rows:
        members = [cell for cell in member_cells(row) if cell in origins]
        if members:
            lines = [
                f"seed {one.seed}: {one.evaluation} of {one.checkpoint}"
                for cell in members
                for one in origins[cell]
            ]
            found[row] = Place(anchor=f"from-{names[members[0]]}", tip="\n".join(lines))
    return found
