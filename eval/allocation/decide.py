"""One step of exploring: the cells so far to the next block, or to a reason to stop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from frontload.eval.allocation.blocks import (
    CellBlock,
    RatedBlock,
    SeededCell,
    first_block,
    next_blocks,
    rate,
    require_paired,
    space_of,
    spent,
)
from frontload.eval.allocation.surrogate import Observed, Posterior, fit
from frontload.recipes.runs.allocation import AllocationQuestion

SURE = 0.8
"""Exploring ends when the best candidate is within epsilon of the true best with this chance."""
WORTH = 0.03  # of epsilon: a block that is expected to teach less is not run
LEAST_SEEDS = 2  # one seed's curve has reversed on the next (eval/allocation/README.md)
DRAWS = 2000  # of f, for a chance

WITHIN = "the best candidate is within epsilon of the true best"
WORTHLESS = "no block is expected to teach anything that would be acted on"
NO_MONEY = "no block fits in what is left of the money"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What follows from the cells so far."""

    block: CellBlock | None  # None = exploring ends
    stop: str  # why; "" with a block
    spent: float
    posterior: Posterior | None  # None before the first score
    chance: float  # that the candidate of the highest mean is within epsilon of the best
    rated: tuple[RatedBlock, ...]  # every block that could be paid, best first

    @property
    def best(self) -> int:
        """The candidate of the highest mean."""
        assert self.posterior is not None, "nothing is best before the first score"
        return int(np.argmax(self.posterior.mean_C))


def decide_next(question: AllocationQuestion, scores: Mapping[SeededCell, float]) -> Decision:
    """The next block of a question, or why there is none.

    Raises: RecipeError for a design that pairs nothing.
    """
    cells = list(scores)
    paid = spent(question, cells)
    start = first_block(question, cells)
    if start.cells and len({seed for _, seed in cells}) < question.first_seeds:
        if paid + start.price <= question.explore_price:
            return Decision(block=start, stop="", spent=paid, posterior=None, chance=0.0, rated=())
        if not cells:
            return Decision(
                block=None, stop=NO_MONEY, spent=paid, posterior=None, chance=0.0, rated=()
            )
    require_paired(question, cells)
    posterior = fit_scores(question, scores)
    mean_C = posterior.mean_C
    epsilon = question.objectives[0].epsilon
    chance = chance_within(posterior, int(np.argmax(mean_C)), epsilon=epsilon)
    blocks = next_blocks(question, cells, mean_C=mean_C)
    left = question.explore_price - paid
    rated = rate(posterior, [block for block in blocks if block.price <= left])
    rated.sort(key=lambda one: -one.gain / max(one.block.price, 1e-9))
    stop = ""
    if chance >= SURE and len({seed for _, seed in cells}) >= LEAST_SEEDS:
        stop = WITHIN
    elif not rated:
        stop = NO_MONEY
    elif max(one.gain for one in rated) < WORTH * epsilon:
        stop = WORTHLESS
    return Decision(
        block=None if stop else rated[0].block,
        stop=stop,
        spent=paid,
        posterior=posterior,
        chance=chance,
        rated=tuple(rated),
    )


def fit_scores(
    question: AllocationQuestion, scores: Mapping[SeededCell, float], *, objective: int = 0
) -> Posterior:
    """The posterior of one objective at every candidate."""
    observed = Observed.of(list(scores), list(scores.values()))
    epsilon = question.objectives[objective].epsilon
    return fit(space_of(question), observed, least_spread=epsilon / 2)


def chance_within(posterior: Posterior, candidate: int, *, epsilon: float) -> float:
    """The chance that no candidate is better than this one by more than epsilon."""
    return chance_best(posterior, candidate, among=range(len(posterior.mean_C)), epsilon=epsilon)


def chance_best(
    posterior: Posterior, candidate: int, *, among: Sequence[int], epsilon: float
) -> float:
    """The same of some candidates."""
    draws_BC = posterior.draws(DRAWS)
    highest_B = draws_BC[:, list(among)].max(1)
    return float((draws_BC[:, candidate] >= highest_B - epsilon).mean())
