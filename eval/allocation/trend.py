"""Whether the best share of pretraining moves with the size of the model or of the budget.

Read from several answers. Each gives the chance of every candidate to be the best one, so what an
answer does not know about its optimum is in the trend's interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from frontload.data_tools.disk.seeds import stream_bits
from frontload.recipes.errors import RecipeError

DRAWS = 4000
LEAST_LEVELS = 3  # of a size, for a trend over it
STILL = 0.15  # share of the budget: a smaller change over the range is none to act on
MOVES, STAYS, OPEN = "moves", "does not move", "cannot be told"
SIZE, BUDGET = "model size", "budget"
TAIL = 0.025
LIKE = ("unit", "fixed")  # of a budget: what answers of one trend have in common


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """Where one answer sees the best share of pretraining."""

    name: str  # of its question
    num_parameters: int
    budget_tokens: int
    shares: np.ndarray  # of each candidate
    chances: np.ndarray  # of each candidate to be the best


@dataclass(frozen=True, kw_only=True)
class Trend:
    """How far the best share moves from the least to the most of what differs."""

    over: str
    least: int
    most: int
    change: float  # of the share of the budget in pretraining
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the best share moves."""
        if self.low > 0 or self.high < 0:
            return MOVES
        return STAYS if self.low > -STILL and self.high < STILL else OPEN


def optimum_of(answer: Mapping[str, Any], *, name: str, num_parameters: int) -> Optimum:
    """An answer as a trend sees it."""
    budget, rows = answer["budget"]["tokens"], answer["candidates"]
    return Optimum(
        name=name,
        num_parameters=num_parameters,
        budget_tokens=budget,
        shares=np.array([one["pretraining_tokens"] / budget for one in rows]),
        chances=np.array([one["chance_best"] for one in rows]),
    )


def require_alike(answers: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses answers to questions that differ in more than model and budget.

    Raises: RecipeError naming the question and what differs.
    """
    (first, one), *others = answers.items()
    for name, other in others:
        pairs = {f"budget.{part}": (one["budget"][part], other["budget"][part]) for part in LIKE}
        pairs["objective"] = (one["objective"]["weights"], other["objective"]["weights"])
        pairs["factors"] = (
            list(one["best_place"]["factors"]),
            list(other["best_place"]["factors"]),
        )
        pairs["sets"] = (_sets(one), _sets(other))
        for what, (mine, theirs) in pairs.items():
            if mine != theirs:
                raise RecipeError(
                    f"trend of {first} and {name}",
                    found=f"{what} is {mine} and {theirs}",
                    rule="questions of one trend differ in the model and the budget alone",
                    do=f"leave {name} out, or ask it with the same {what}",
                )


def trends(optima: Sequence[Optimum]) -> list[Trend]:
    """The trend over each size of which the answers have three levels or more.

    Raises: RecipeError where there is none.
    """
    sizes = {
        SIZE: np.array([one.num_parameters for one in optima]),
        BUDGET: np.array([one.budget_tokens for one in optima]),
    }
    over = {name: size for name, size in sizes.items() if len(set(size)) >= LEAST_LEVELS}
    logs = [np.log2(size) for size in sizes.values() if len(set(size)) > 1]
    design_AP = np.stack([np.ones(len(optima)), *logs], axis=1)
    if not over or np.linalg.matrix_rank(design_AP) < design_AP.shape[1]:
        raise RecipeError(
            f"trend of {', '.join(one.name for one in optima)}",
            found=", ".join(f"{len(set(size))} of {name}" for name, size in sizes.items()),
            rule=f"a trend is over {LEAST_LEVELS} model sizes or {LEAST_LEVELS} budgets or more, "
            "and where both differ one differs alone in some answers",
            do="add questions, e.g. those of recipes/allocations whose names begin with trend",
        )
    generator = np.random.Generator(stream_bits(0, "allocation", "trend"))
    share_AB = np.stack([generator.choice(o.shares, size=DRAWS, p=o.chances) for o in optima])
    slope_PB = np.linalg.pinv(design_AP) @ share_AB
    found, row = [], 1
    for name, size in sizes.items():
        if len(set(size)) < 2:
            continue
        change_B = slope_PB[row] * math.log2(size.max() / size.min())
        row += 1
        if name in over:
            low, high = (float(np.quantile(change_B, p)) for p in (TAIL, 1 - TAIL))
            found.append(
                Trend(
                    over=name,
                    least=int(size.min()),
                    most=int(size.max()),
                    change=float(change_B.mean()),
                    low=low,
                    high=high,
                )
            )
    return found


def trend_lines(optima: Sequence[Optimum], found: Sequence[Trend]) -> list[str]:
    """The answers one by one, then what they say together."""
    lines = []
    for one in optima:
        mean = float(one.shares @ one.chances)
        spread = math.sqrt(float(one.chances @ np.square(one.shares - mean)))
        lines.append(
            f"{one.name}: {one.num_parameters:,} parameters, {one.budget_tokens:,} tokens; best "
            f"share of pretraining {mean:.0%} +- {spread:.0%}"
        )
    for one in found:
        lines.append(
            f"With the {one.over}, from {one.least:,} to {one.most:,}: whether the best share moves"
            f" {one.verdict}: {one.change:+.0%} ({one.low:+.0%} to {one.high:+.0%}, 95%)"
            if one.verdict == OPEN
            else f"With the {one.over}, from {one.least:,} to {one.most:,}, the best share "
            f"{one.verdict}: {one.change:+.0%} ({one.low:+.0%} to {one.high:+.0%}, 95%)"
        )
    return lines


def _sets(answer: Mapping[str, Any]) -> list[str]:
    return sorted({" and ".join(one["sets"]) for one in answer["candidates"]})
