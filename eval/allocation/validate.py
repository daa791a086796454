"""The recommendation against named competitors on fresh seeds: planned before, compared after.

Cells of exploring chose the recommendation, so their scores flatter it. Only seeds that nothing was
chosen by enter the comparison, every seed with all of its cells, and their number is fixed before
the first of them is run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from frontload.eval.allocation.blocks import Prices, SeededCell
from frontload.eval.allocation.decide import DRAWS
from frontload.eval.allocation.surrogate import Posterior
from frontload.eval.statistics.stats import (
    PRIOR_DEGREES,
    SIGNIFICANCE,
    Spread,
    combine,
    critical_value,
)
from frontload.recipes.runs.allocation import AllocationQuestion, Competitor

RIVAL_CHANCE = 0.1  # of being better by more than epsilon, from which a candidate is a finalist
MOST_RIVALS = 1
MOST_SEEDS = 1000  # nobody trains more


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A comparison as exploring predicts it."""

    name: str
    candidate: int
    mean: float  # of the recommendation less this candidate
    error: float


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What is written down before a fresh seed is run."""

    recommendation: int
    comparisons: tuple[Predicted, ...]
    seeds: tuple[int, ...]  # fresh
    spread: float  # standard deviation of one seed's difference, from exploring
    seeds_wanted: int  # for the half width that is aimed at
    seed_price: float  # of all cells at one fresh seed

    @property
    def half_width(self) -> float:
        """What the interval will be, if the spread is as predicted."""
        return half_width(self.spread, len(self.seeds))

    def cells(self) -> tuple[SeededCell, ...]:
        """What the fresh seeds run."""
        places = dict.fromkeys([self.recommendation, *(one.candidate for one in self.comparisons)])
        return tuple((place, seed) for seed in self.seeds for place in places)


def half_width(spread: float, num_seeds: int) -> float:
    """Of the 95% interval of a mean difference over so many paired seeds."""
    return critical_value(PRIOR_DEGREES + num_seeds - 1) * spread / math.sqrt(num_seeds)


def seeds_for(width: float, *, spread: float, least: int) -> int:
    """The fewest seeds whose interval is expected to be at most so wide to each side."""
    for number in range(least, MOST_SEEDS):
        if half_width(spread, number) <= width:
            return number
    return MOST_SEEDS


def plan_validation(
    question: AllocationQuestion, posterior: Posterior, *, used: Sequence[int]
) -> Registration:
    """The recommendation, its comparisons, and the fresh seeds that the money pays.

    `used` are seeds that any score was seen of.
    """
    mean_C = posterior.mean_C
    best = int(np.argmax(mean_C))
    draws_BC = posterior.draws(DRAWS)
    named = [one for one in question.competitors if one.candidate != best]
    found = rivals(question, draws_BC, best=best)
    if not named and not found:  # the recommendation is the only competitor: something is compared
        found = [max((p for p in range(len(mean_C)) if p != best), key=lambda p: mean_C[p])]
    known = {one.candidate for one in named}
    named += [Competitor(name="the next best", candidate=p) for p in found if p not in known]
    comparisons = []
    for one in named:
        difference_B = draws_BC[:, best] - draws_BC[:, one.candidate]
        comparisons.append(
            Predicted(
                name=one.name,
                candidate=one.candidate,
                mean=float(difference_B.mean()),
                error=float(difference_B.std()),
            )
        )
    variance = sum(
        one.weight * 2 * (one.scales.branch**2 + one.scales.cell**2) for one in posterior.members
    )
    spread = math.sqrt(variance)
    wanted = seeds_for(question.half_width, spread=spread, least=question.least_seeds)
    first = max(used, default=0) + 1
    places = dict.fromkeys([best, *(one.candidate for one in comparisons)])
    price = Prices(question, ()).of([(place, first) for place in places])
    paid = int(question.validate_price / max(price, 1e-9))
    return Registration(
        recommendation=best,
        comparisons=tuple(comparisons),
        seeds=tuple(range(first, first + min(wanted, paid))),
        spread=spread,
        seeds_wanted=wanted,
        seed_price=price,
    )


def rivals(question: AllocationQuestion, draws_BC: np.ndarray, *, best: int) -> list[int]:
    """Candidates that may well be better than the recommendation by more than epsilon."""
    chance_C = (draws_BC > draws_BC[:, [best]] + question.objectives[0].epsilon).mean(0)
    order = [int(place) for place in np.argsort(-chance_C, kind="stable")[:MOST_RIVALS]]
    return [place for place in order if chance_C[place] >= RIVAL_CHANCE]


BETTER, WORSE, EQUAL, OPEN = "better", "worse", "within epsilon", "undecided"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The recommendation less one candidate, on fresh seeds alone."""

    name: str
    candidate: int
    value: float
    error: float
    low: float  # of the 95% interval
    high: float
    verdict: str  # at the 5% level of all comparisons together
    seeds: tuple[int, ...]
    by_seed: tuple[float, ...]
    predicted: float
    predicted_error: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def compare_fresh(
    registration: Registration,
    draws: Mapping[SeededCell, np.ndarray],
    *,
    epsilon: float,
    num_items: int,
) -> list[Compared]:
    """Every comparison that was registered.

    Shapes: draws hold one row each: the measured objective, then on resampled questions.
    """
    seeds, best = registration.seeds, registration.recommendation
    places = list(dict.fromkeys(place for place, _ in registration.cells()))
    values_CA = np.array([[draws[place, seed][0] for seed in seeds] for place in places])
    pooled = pooled_difference(values_CA)
    share = SIGNIFICANCE / max(len(registration.comparisons), 1)
    found = []
    for one in registration.comparisons:
        rows_AB = np.stack([draws[best, s] - draws[one.candidate, s] for s in seeds])
        estimate = combine(rows_AB, num_items=num_items, pooled=pooled)
        width = estimate.critical * estimate.se
        together = critical_value(estimate.degrees, share) * estimate.se
        verdict = OPEN
        if estimate.value - together > 0:
            verdict = BETTER
        elif estimate.value + together < 0:
            verdict = WORSE
        elif estimate.value - width > -epsilon and estimate.value + width < epsilon:
            verdict = EQUAL
        found.append(
            Compared(
                name=one.name,
                candidate=one.candidate,
                value=estimate.value,
                error=estimate.se,
                low=estimate.value - width,
                high=estimate.value + width,
                verdict=verdict,
                seeds=seeds,
                by_seed=estimate.seeds,
                predicted=one.mean,
                predicted_error=one.error,
            )
        )
    return found


def pooled_difference(values_CA: np.ndarray) -> Spread | None:
    """The variance of a difference of two cells in one seed, pooled over all cells: what is left
    of each beside its own mean and its seed's. None below three cells or two seeds."""
    num_cells, num_seeds = values_CA.shape
    if num_cells < 3 or num_seeds < 2:
        return None
    left_CA = values_CA - values_CA.mean(0) - values_CA.mean(1, keepdims=True) + values_CA.mean()
    degrees = (num_cells - 1) * (num_seeds - 1)
    return Spread(variance=2 * float((left_CA**2).sum()) / degrees, degrees=degrees)
