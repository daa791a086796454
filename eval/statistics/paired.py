"""Two checkpoints on the same questions: the difference, its error, and a test that is named."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from frontload.eval.results import ChoiceResult, GeneratedResult
from frontload.eval.statistics.stats import Estimate, clustered_mean
from frontload.recipes.errors import RecipeError

EXACT = "sign flips, exact"
NORMAL = "sign flips, normal"
MOST_STEPS = 500_000_000  # ours: additions of the exact test, about a second
MOST_SAMPLES = 1000  # of a question: its share is read back as a fraction of at most this


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """The second checkpoint less the first, over the questions that both answered."""

    difference: Estimate
    p_value: float  # two-sided
    test: str  # EXACT, or NORMAL where the exact one would cost too much
    num_better: int
    num_worse: int
    num_equal: int
    only_first: int  # questions that the other did not answer; they are left out
    only_second: int


def compare_results(
    first: Sequence[GeneratedResult | ChoiceResult],
    second: Sequence[GeneratedResult | ChoiceResult],
) -> PairedDifference:
    """`compare_shares` of the results of two evaluations, paired by the questions' ids."""
    return compare_shares(
        {result.id: result.accuracy for result in first},
        {result.id: result.accuracy for result in second},
    )


def compare_shares(first: Mapping[str, float], second: Mapping[str, float]) -> PairedDifference:
    """The difference of two shares of right samples, question by question.

    The test asks how often a difference as large comes about when each question's own difference
    has either sign with the same chance. With one sample a question it is McNemar's exact test.

    Raises: RecipeError when no question is common.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        raise RecipeError(
            "comparing two evaluations",
            found=f"{len(first)} and {len(second)} questions, none in common",
            rule="a paired comparison is over the questions that both answered",
            do="name two evaluations of one suite, size and benchmark",
        )
    fractions = [_fraction(second[name]) - _fraction(first[name]) for name in common]
    p_value, test = sign_flip_test(fractions)
    return PairedDifference(
        difference=clustered_mean([float(one) for one in fractions]),
        p_value=p_value,
        test=test,
        num_better=sum(one > 0 for one in fractions),
        num_worse=sum(one < 0 for one in fractions),
        num_equal=sum(one == 0 for one in fractions),
        only_first=len(first) - len(common),
        only_second=len(second) - len(common),
    )


def sign_flip_test(differences: Sequence[Fraction]) -> tuple[float, str]:
    """(two-sided p, name of the test) of the hypothesis that differences have either sign alike.

    Source: Fisher 1935, The Design of Experiments, section 21; the distribution of the sum is built
    up question by question, on the whole numbers that it can be.
    """
    scale = math.lcm(*(one.denominator for one in differences))
    steps = [abs(int(one * scale)) for one in differences if one]
    total = abs(int(sum(differences) * scale))
    reach = sum(steps)
    if not steps:
        return 1.0, EXACT
    if 2 * reach * len(steps) > MOST_STEPS:
        deviation = math.sqrt(sum(step * step for step in steps))
        return math.erfc(total / deviation / math.sqrt(2)), NORMAL
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for step in steps:
        moved = np.zeros_like(chances)
        moved[step:] += chances[:-step] / 2
        moved[:-step] += chances[step:] / 2
        chances = moved
    at_least = chances[reach + total :].sum() + chances[: reach - total + 1].sum()
    return min(1.0, float(at_least)), EXACT


def _fraction(share: float) -> Fraction:
    return Fraction(share).limit_denominator(MOST_SAMPLES)
