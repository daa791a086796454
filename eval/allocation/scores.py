"""Objectives of cells: weighted sums of the metrics of their evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frontload.eval.allocation.blocks import SeededCell
from frontload.eval.results import read_results
from frontload.eval.statistics.cells import Cells
from frontload.eval.suites import CATEGORIES
from frontload.recipes.artifact import Inputs, item_results_file
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.allocation import AskedCell, Objective

SUITE = "sft"
"""The suite that scores every candidate, tuned or not."""

WHOLE = (
    *("sft.avg", "flat8.avg", "flat9.avg", "rl.avg", "sft.inside", "sft.outside"),
    *("sft.pass_at_k", "sft.format_failure"),
    *("heldout.loss", "heldout.loss.inside", "heldout.loss.outside"),
    *("heldout.step_accuracy", "heldout.step_accuracy.inside", "heldout.step_accuracy.outside"),
)


@dataclass(frozen=True, kw_only=True)
class RoleScores:
    """One objective of evaluations by their roles: measured first, then on resampled questions."""

    draws: dict[str, np.ndarray]
    num_items: int


@dataclass(frozen=True, kw_only=True)
class CellScores:
    """One objective of cells: measured first, then on resampled questions."""

    draws: dict[SeededCell, np.ndarray]
    num_items: int

    @property
    def values(self) -> dict[SeededCell, float]:
        """The measured numbers."""
        return {cell: float(row[0]) for cell, row in self.draws.items()}


def known_metrics() -> tuple[str, ...]:
    """What an objective may weigh whatever the study's items are."""
    return (*WHOLE, *(f"{SUITE}.{category}" for category in CATEGORIES[SUITE]))


def read_scores(
    objectives: Sequence[Objective], cells: Sequence[AskedCell], *, inputs: Inputs
) -> dict[str, CellScores]:
    """Each objective of each cell, by the objective's name.

    Raises: RecipeError for a metric that no evaluation has.
    """
    found = {}
    measured = read_evaluations([one.role for one in cells], inputs)
    for objective in objectives:
        read = read_objective(objective, measured)
        draws = {(one.candidate, one.seed): read.draws[one.role] for one in cells}
        found[objective.name] = CellScores(draws=draws, num_items=read.num_items)
    return found


def read_evaluations(roles: Sequence[str], inputs: Inputs) -> Cells:
    """Evaluations by their roles."""
    return Cells(files={role: [read_results(item_results_file(inputs[role]))] for role in roles})


def read_objective(objective: Objective, measured: Cells) -> RoleScores:
    """An objective of evaluations, whose questions are resampled together.

    Raises: RecipeError for a metric that no evaluation has.
    """
    draws: dict[str, np.ndarray] = {}
    items: frozenset[str] = frozenset()
    for role in measured.files:
        metrics = measured.metrics(role)
        missing = sorted(objective.weights.keys() - metrics.keys())
        if missing:
            raise _no_metric(objective, missing[0], known=sorted(metrics))
        parts = [w * metrics[name].draws_AB[0] for name, w in sorted(objective.weights.items())]
        items = items.union(*[metrics[name].questions for name in objective.weights])
        draws[role] = np.sum(parts, axis=0)
    return RoleScores(draws=draws, num_items=len(items))


def _no_metric(objective: Objective, name: str, *, known: Sequence[str]) -> RecipeError:
    return RecipeError(
        f"objective {objective.name}, metric {name}",
        found="no evaluation of this study has it",
        rule="an objective weighs metrics of the sft suite: " + ", ".join(known),
        do="name one of them",
    )
