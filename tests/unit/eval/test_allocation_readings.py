"""Readings beside a verdict: an exchange rate of known size, other learning rates of SFT."""

import numpy as np
import pytest

from frontload.eval.allocation.exchange import ExchangeRate, read_rate
from frontload.eval.allocation.readings import (
    OPEN,
    STANDS,
    TURNS,
    closest_rival,
    exchange_line,
    rate_line,
    read_exchange,
    read_rates,
    reading_seeds,
    readings_lines,
)
from frontload.eval.allocation.validate import Predicted, Registration
from frontload.recipes.runs.allocation import ExchangeCell, ExchangeCells, Objective, RatedCell
from tests.simulated_allocation import make_question

BUDGET = 737_280
SPENT = ((0, 4), (0, 2), (0, 1), (3, 8), (3, 4), (2, 4))
"""The laptop's cells: parts of the budget in pretraining and in SFT, as `1 / part`; 0 = none."""
PRETRAINING = [BUDGET // one if one else 0 for one, _ in SPENT]
SFT = [BUDGET // one for _, one in SPENT]
SEED = 0.2  # deviation of what all cells of a seed share, of the cells' range


def rate_of(
    rate: float, *, noise: float, num_seeds: int, generator: np.random.Generator
) -> ExchangeRate:
    """What is read of a law with this rate; D0, b and each cell's noise are drawn."""
    offset = BUDGET * np.exp(generator.uniform(np.log(0.05), 0.0))
    power = generator.uniform(0.2, 1.0)
    read_C = rate * np.array(PRETRAINING) + np.array(SFT)
    law_C = -((1 + read_C / offset) ** -power)
    law_C /= np.ptp(law_C)
    noise_C = noise * np.exp(generator.normal(0, 0.5, len(law_C)))
    values_CA = law_C[:, None] + generator.normal(0, SEED, num_seeds)
    values_CA = values_CA + generator.normal(size=values_CA.shape) * noise_C[:, None]
    return read_rate(PRETRAINING, SFT, values_CA=values_CA)


@pytest.mark.parametrize(("noise", "num_seeds", "least_told"), [(0.02, 3, 0.8), (0.06, 6, 0.8)])
def test_the_interval_of_a_known_rate_covers_it(
    noise: float, num_seeds: int, least_told: float
) -> None:
    covered, told = [], []
    for replicate in range(30):
        generator = np.random.default_rng([replicate, num_seeds])
        rate = float(np.exp(generator.uniform(np.log(0.4), np.log(2.5))))
        found = rate_of(rate, noise=noise, num_seeds=num_seeds, generator=generator)
        covered.append(found.low <= rate <= found.high)
        told.append(found.is_told)
        assert found.low <= found.rate <= found.high
    assert np.mean(covered) >= 0.9
    assert np.mean(told) >= least_told


def test_a_rate_that_noise_hides_cannot_be_told() -> None:
    found = [
        rate_of(1.0, noise=1.0, num_seeds=3, generator=np.random.default_rng(seed))
        for seed in range(20)
    ]
    assert np.mean([one.is_told for one in found]) <= 0.1
    assert np.mean([one.low <= 1.0 <= one.high for one in found]) >= 0.9


def test_more_seeds_narrow_the_interval() -> None:
    width = {}
    for number in (3, 12):
        found = [
            rate_of(2.0, noise=0.06, num_seeds=number, generator=np.random.default_rng(seed))
            for seed in range(10)
        ]
        width[number] = np.median([np.log(one.high / one.low) for one in found])
    assert width[12] < 0.75 * width[3]


@pytest.mark.parametrize("rate", [200.0, 1 / 200])
def test_a_rate_beyond_what_the_cells_reach_is_no_number(rate: float) -> None:
    """SFT alone does nowhere what pretraining does, or pretraining does nothing."""
    for seed in range(6):
        found = rate_of(rate, noise=0.02, num_seeds=4, generator=np.random.default_rng(seed))
        assert not found.is_told
        assert found.is_reached == (rate < 1)


def test_cells_that_no_law_goes_through_are_said_to_lie_off_it() -> None:
    """More SFT harms: no sum of tokens to a power does that."""
    generator = np.random.default_rng(3)
    law_C = np.array([0.0, -0.5, -1.0, 0.5, 1.0, 0.2])
    values_CA = law_C[:, None] + generator.normal(0, 0.02, (6, 5))
    found = read_rate(PRETRAINING, SFT, values_CA=values_CA)
    assert not found.is_described
    assert not found.is_told


def test_what_all_cells_of_a_seed_share_moves_no_rate() -> None:
    generator = np.random.default_rng(5)
    law_C = -((1 + (2.0 * np.array(PRETRAINING) + np.array(SFT)) / BUDGET) ** -0.5)
    values_CA = law_C[:, None] + generator.normal(0, 0.005, (6, 4))
    moved = read_rate(PRETRAINING, SFT, values_CA=values_CA + [0.0, 9.0, -4.0, 1.0])
    plain = read_rate(PRETRAINING, SFT, values_CA=values_CA)
    assert moved.rate == pytest.approx(plain.rate, rel=1e-6)
    assert moved.high == pytest.approx(plain.high, rel=1e-6)


def test_cells_are_read_by_what_they_spent_whatever_their_order() -> None:
    generator = np.random.default_rng(6)
    values_CA = generator.normal(size=(6, 3)) * 0.01 - 1 / np.sqrt(
        1 + (np.array(PRETRAINING) + np.array(SFT))[:, None] / BUDGET
    )
    cells = [
        ExchangeCell(
            pretraining_tokens=PRETRAINING[place],
            sft_tokens=SFT[place],
            seed=seed,
            role=f"{place} {seed}",
        )
        for seed in (7, 5, 6)
        for place in (3, 1, 0, 2, 5, 4)
    ]
    values = {
        f"{place} {seed}": float(values_CA[place, seed - 5])
        for place in range(6)
        for seed in (5, 6, 7)
    }
    objective = Objective(name="loss", weights={"heldout.loss": -1.0}, epsilon=0.1)
    asked = ExchangeCells(objective=objective, sets=("ldq", "ldq"), cells=tuple(cells))
    found = read_exchange(asked, values)
    assert found.rate == pytest.approx(read_rate(PRETRAINING, SFT, values_CA=values_CA).rate)


REGISTERED = Registration(
    recommendation=20,
    comparisons=(
        Predicted(name="far", candidate=0, mean=5.0, error=1.0),
        Predicted(name="near", candidate=40, mean=1.0, error=1.0),
    ),
    seeds=(4, 5, 6, 7),
    spread=3.0,
    seeds_wanted=4,
    seed_price=5.0,
)


def test_the_comparison_that_is_repeated_is_the_one_that_was_expected_least_of() -> None:
    assert closest_rival(REGISTERED).name == "near"
    assert reading_seeds(REGISTERED, asked=3) == (4, 5, 6)
    assert reading_seeds(REGISTERED, asked=9) == (4, 5, 6, 7)


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [((3.0, 3.5, 4.0), STANDS), ((-3.0, -3.5, -4.0), TURNS), ((-9.0, 1.0, 9.0), OPEN)],
)
def test_a_recommendation_stands_or_turns_at_another_rate_or_cannot_be_told(
    difference: tuple[float, ...], verdict: str
) -> None:
    rated, draws = [], {}
    for seed, value in zip((4, 5, 6), difference, strict=True):
        for place, score in ((20, 30.0 + 10 * seed + value), (40, 30.0 + 10 * seed)):
            role = f"{place} at {seed}"
            rated.append(RatedCell(candidate=place, seed=seed, sft_rate=0.5, role=role))
            draws[role] = np.array([score])
    (found,) = read_rates(
        make_question(epsilon=2.0, money=1.0), REGISTERED, rated=rated, draws=draws, num_items=1
    )
    assert found.verdict == verdict
    assert found.compared.value == pytest.approx(np.mean(difference))
    assert found.compared.name == "near"


def test_what_was_not_read_is_said_and_a_rate_has_its_interval_and_seeds() -> None:
    assert readings_lines(None) == [
        "Not tried: another learning rate of SFT: a ranking may turn with it."
    ]
    one = {"sets": ["ldq", "shq"], "objective": "loss", "num_seeds": 3, "most_asked": 64.0}
    one |= {
        "rate": 2.13,
        "low": 1.2,
        "high": 3.9,
        "is_told": True,
        "is_described": True,
        "is_reached": True,
    }
    assert exchange_line(one).startswith(
        "Exchange rate: a token of ldq in pretraining is worth 2.1 tokens of shq in SFT (1.2 to "
        "3.9, 95%)"
    )
    wide = one | {"high": 64.0, "is_told": False}
    assert "cannot be told" in exchange_line(wide)
    assert "1.2 to 64 or more tokens" in exchange_line(wide)
    assert "SFT on shq alone reaches no cell" in exchange_line(wide | {"is_reached": False})
    assert "further from the law" in exchange_line(wide | {"is_described": False})
    rate = {"sft_rate": 0.5, "verdict": TURNS, "value": -2.0, "low": -3.0, "high": -1.0}
    text = rate_line(rate | {"seeds": [4, 5], "against": "all in SFT"})
    assert text == (
        "At 0.5 x the SFT learning rate the recommendation turns: -2.00 (-3.00 to -1.00, 95%, 2 "
        "seeds) against all in SFT."
    )
