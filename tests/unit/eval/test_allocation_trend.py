"""Whether an optimum moves with size: simulated answers with a known trend, and what is refused."""

from typing import Any

import numpy as np
import pytest

from frontload.eval.allocation.trend import (
    MOVES,
    OPEN,
    STAYS,
    Optimum,
    optimum_of,
    require_alike,
    trend_lines,
    trends,
)
from frontload.recipes.errors import RecipeError

SHARES = np.linspace(0.0, 1.0, 21)
SIZES = (145_000, 500_000, 1_500_000)


def seen(share: float, *, spread: float, generator: np.random.Generator) -> np.ndarray:
    """The chances of an answer whose optimum is off the true one by its own spread."""
    middle = share + generator.normal(0, spread)
    chance = np.exp(-0.5 * ((SHARES - middle) / spread) ** 2)
    return chance / chance.sum()


def optima(
    slope: float, *, spread: float, generator: np.random.Generator, of_budget: float = 0.0
) -> list[Optimum]:
    """Five answers in a star: three sizes at one budget, three budgets at one size. `slope` is of
    the share over the whole range of sizes."""
    design = [(size, 737_280) for size in SIZES] + [(SIZES[0], 368_640), (SIZES[0], 184_320)]
    found = []
    for size, budget in design:
        along = np.log(size / SIZES[0]) / np.log(SIZES[-1] / SIZES[0])
        down = np.log(737_280 / budget) / np.log(4)
        share = 0.4 + slope * along - of_budget * down
        chances = seen(share, spread=spread, generator=generator)
        found.append(
            Optimum(
                name=f"{size} {budget}",
                num_parameters=size,
                budget_tokens=budget,
                shares=SHARES,
                chances=chances,
            )
        )
    return found


def test_the_interval_of_a_known_trend_covers_it() -> None:
    covered = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        slope = float(generator.uniform(-0.2, 0.2))
        size, budget = trends(optima(slope, spread=0.08, generator=generator, of_budget=0.1))
        covered += [size.low <= slope <= size.high, budget.low <= 0.1 <= budget.high]
        assert (size.least, size.most) == (SIZES[0], SIZES[-1])
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize(
    ("slope", "spread", "verdict"), [(0.4, 0.04, MOVES), (0.0, 0.02, STAYS), (0.1, 0.3, OPEN)]
)
def test_a_trend_moves_stays_or_cannot_be_told(slope: float, spread: float, verdict: str) -> None:
    said = []
    for seed in range(20):
        found = trends(optima(slope, spread=spread, generator=np.random.default_rng(seed)))
        said.append(found[0].verdict)
    assert said.count(verdict) >= 17
    assert {MOVES, STAYS, OPEN} >= set(said)


def test_a_trend_needs_three_levels_of_what_it_is_over() -> None:
    five = optima(0.0, spread=0.05, generator=np.random.default_rng(0))
    (only,) = trends(five[:3])
    assert only.over == "model size"
    with pytest.raises(RecipeError) as caught:
        trends([five[0], five[1]])
    assert caught.value.found == "2 of model size, 1 of budget"
    together = [five[0], five[1], five[2]]
    for place, one in enumerate(together):
        together[place] = Optimum(
            name=one.name,
            num_parameters=one.num_parameters,
            budget_tokens=one.num_parameters,
            shares=one.shares,
            chances=one.chances,
        )
    with pytest.raises(RecipeError):
        trends(together)


def answered(**changes: Any) -> dict[str, Any]:
    stated: dict[str, Any] = {
        "budget": {"tokens": 1000, "unit": "read", "fixed": "pretraining"},
        "objective": {"weights": {"sft.avg": 1.0}},
        "best_place": {"factors": {"share in pretraining": [0.1, 0.9]}},
        "candidates": [
            {"pretraining_tokens": 0, "chance_best": 0.25, "sets": ["ldq", "shq"]},
            {"pretraining_tokens": 500, "chance_best": 0.75, "sets": ["ldq", "shq"]},
        ],
    }
    return stated | changes


def test_an_answer_gives_the_share_of_its_own_budget() -> None:
    one = optimum_of(answered(), name="a", num_parameters=10)
    assert list(one.shares) == [0.0, 0.5]
    assert list(one.chances) == [0.25, 0.75]
    (line,) = trend_lines([one], [])
    assert line == "a: 10 parameters, 1,000 tokens; best share of pretraining 38% +- 22%"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"budget": {"tokens": 9, "unit": "loss", "fixed": "pretraining"}}, "budget.unit"),
        ({"budget": {"tokens": 9, "unit": "read", "fixed": "compute"}}, "budget.fixed"),
        ({"objective": {"weights": {"heldout.loss": -1.0}}}, "objective"),
        ({"best_place": {"factors": {"onset": [0, 1]}}}, "factors"),
    ],
)
def test_answers_that_differ_in_more_than_size_make_no_trend(
    changes: dict[str, Any], what: str
) -> None:
    other = answered(budget={"tokens": 9, "unit": "read", "fixed": "pretraining"})
    require_alike({"a": answered(), "b": other})
    with pytest.raises(RecipeError) as caught:
        require_alike({"a": answered(), "b": answered(**changes)})
    assert caught.value.found.startswith(what)
