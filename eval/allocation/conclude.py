"""What explored and fresh cells say of a question: the outcome, its limits, what more costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from frontload.eval.allocation.blocks import SeededCell
from frontload.eval.allocation.decide import SURE, chance_best, fit_scores
from frontload.eval.allocation.surrogate import Posterior
from frontload.eval.allocation.validate import (
    BETTER,
    EQUAL,
    WORSE,
    Compared,
    Registration,
    half_width,
    seeds_for,
)
from frontload.recipes.runs.allocation import AllocationQuestion

RECOMMENDED = "recommended"
FLAT = "flat"
OVERTURNED = "overturned"
UNDECIDED = "undecided"
CAPS = (1.0, 2.0, 4.0, 8.0)
"""Passes over a set: 4 is Muennighoff's for one source (arXiv 2305.16264), more is harmless in a
mixture (arXiv 2605.12715)."""
NEAR = 1e-9  # of a level's end


@dataclass(frozen=True, kw_only=True)
class OtherObjective:
    """What another objective would have recommended, and what it says of the recommendation."""

    name: str
    best: int
    loss: float  # of the recommendation against its best, in its own unit
    chance_worse: float  # that the recommendation is worse than its best by more than its epsilon

    @property
    def disagrees(self) -> bool:
        return self.chance_worse >= SURE


@dataclass(frozen=True, kw_only=True)
class UnderCap:
    """The best candidate that reads no set more often than a cap allows."""

    cap: float
    best: int
    loss: float  # of it against the best of all
    num_left: int  # candidates under the cap


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The answer to a question."""

    outcome: str
    candidate: int  # recommended; of an overturned recommendation the one that beat it
    compared: tuple[Compared, ...]
    chance_better_tried: float  # that a candidate that was run is better by more than epsilon
    chance_better: float  # the same of every candidate
    edges: tuple[str, ...]  # factors at an end of whose range the recommendation lies
    others: tuple[OtherObjective, ...]
    caps: tuple[UnderCap, ...]  # those that leave some candidates out
    halves: tuple[int, ...]  # the best candidate by the odd and by the even seeds alone
    posterior: Posterior  # of all cells, explored and fresh
    seeds_to_know: int  # fresh ones, for intervals of epsilon to each side; 0 = they are so by now
    price_to_know: float
    price_to_halve: float  # of intervals half as wide


def draw_conclusion(
    question: AllocationQuestion,
    registration: Registration,
    *,
    compared: Sequence[Compared],
    scores: Mapping[str, Mapping[SeededCell, float]],
) -> Conclusion:
    """The outcome, after the fresh seeds; `scores` are of each objective, of all cells."""
    decides = question.objectives[0]
    posterior = fit_scores(question, scores[decides.name])
    outcome, candidate = judge_outcome(registration, compared, epsilon=decides.epsilon)
    tried = sorted({place for place, _ in scores[decides.name]})
    everywhere = range(len(question.candidates))
    within = {
        name: chance_best(posterior, candidate, among=among, epsilon=decides.epsilon)
        for name, among in (("tried", tried), ("all", everywhere))
    }
    now = len(registration.seeds)
    widest = max((one.half_width for one in compared), default=0.0)
    known = widest <= decides.epsilon
    spread = widest / max(_width_of_one(now), 1e-9)
    needed = seeds_for(decides.epsilon, spread=spread, least=question.least_seeds)
    more = 0 if known else max(needed - now, 1)
    return Conclusion(
        outcome=outcome,
        candidate=candidate,
        compared=tuple(compared),
        chance_better_tried=1 - within["tried"],
        chance_better=1 - within["all"],
        edges=edges_of(question, candidate),
        others=tuple(
            _other(question, place, candidate=candidate, scores=scores[objective.name])
            for place, objective in enumerate(question.objectives)
            if place
        ),
        caps=under_caps(question, posterior),
        halves=_halves(question, scores[decides.name]),
        posterior=posterior,
        seeds_to_know=more,
        price_to_know=more * registration.seed_price,
        price_to_halve=3 * now * registration.seed_price,
    )


def judge_outcome(
    registration: Registration, compared: Sequence[Compared], *, epsilon: float
) -> tuple[str, int]:
    """The outcome, and the candidate that it is about.

    Recommended: better than one competitor at the 5% level of all comparisons, and for none does
    the interval leave room for being worse by more than epsilon. Flat: equal to each within
    epsilon. Overturned: a competitor is better. Anything else is undecided.
    """
    best = registration.recommendation
    worse = [one for one in compared if one.verdict == WORSE]
    if worse:
        return OVERTURNED, min(worse, key=lambda one: one.value).candidate
    if compared and all(one.verdict == EQUAL for one in compared):
        return FLAT, best
    is_safe = all(one.low > -epsilon for one in compared)
    if is_safe and any(one.verdict == BETTER for one in compared):
        return RECOMMENDED, best
    return UNDECIDED, best


def edges_of(question: AllocationQuestion, candidate: int) -> tuple[str, ...]:
    """The factors whose lowest or highest level a candidate has, where they have several."""
    levels_CD = np.array([one.levels for one in question.candidates])
    mine = levels_CD[candidate]
    at_end = (mine <= levels_CD.min(0) + NEAR) | (mine >= levels_CD.max(0) - NEAR)
    varies = np.ptp(levels_CD, axis=0) > NEAR
    pairs = zip(question.factors, at_end & varies, strict=True)
    return tuple(name for name, is_edge in pairs if is_edge)


def under_caps(question: AllocationQuestion, posterior: Posterior) -> tuple[UnderCap, ...]:
    """The best candidate under each cap of CAPS that leaves some out and some in."""
    most_C = np.array([max(one.epochs.values(), default=0.0) for one in question.candidates])
    found = []
    for cap in CAPS:
        left = np.flatnonzero(most_C <= cap)
        if not 0 < len(left) < len(most_C):
            continue
        best = int(left[np.argmax(posterior.mean_C[left])])
        loss = float(posterior.mean_C.max() - posterior.mean_C[best])
        found.append(UnderCap(cap=cap, best=best, loss=loss, num_left=len(left)))
    return tuple(found)


def _halves(question: AllocationQuestion, scores: Mapping[SeededCell, float]) -> tuple[int, ...]:
    seeds = sorted({seed for _, seed in scores})
    if len(seeds) < 2:
        return ()
    found = []
    for half in (seeds[::2], seeds[1::2]):
        part = {cell: value for cell, value in scores.items() if cell[1] in half}
        found.append(int(np.argmax(fit_scores(question, part).mean_C)))
    return tuple(found)


def _other(
    question: AllocationQuestion,
    place: int,
    *,
    candidate: int,
    scores: Mapping[SeededCell, float],
) -> OtherObjective:
    objective = question.objectives[place]
    posterior = fit_scores(question, scores, objective=place)
    best = int(np.argmax(posterior.mean_C))
    return OtherObjective(
        name=objective.name,
        best=best,
        loss=float(posterior.mean_C[best] - posterior.mean_C[candidate]),
        chance_worse=1 - chance_best(posterior, candidate, among=[best], epsilon=objective.epsilon),
    )


def _width_of_one(num_seeds: int) -> float:
    return half_width(1.0, num_seeds) if num_seeds else 0.0
