"""Standard errors: over items with repeated samples, over seeds, and both together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtr, stdtr, stdtrit

SIGNIFICANCE = 0.05  # two-sided; its normal threshold is the 1.96 of claims.json's rules

PRIOR_DEGREES = 4.0
"""How many degrees the pooled spread weighs beside a comparison's own seeds - 1.

From simulations (tests/bench/bench_verdicts.py, eval/log/2026-12-01-verdict-rule.md): 0 (own spread
only) misses a true effect of 9.7 points in a third of the studies; all (pooled spread only) covers
80% where spreads are unequal or models of one branch move together; 4
covers 95 to 97% in every world.
"""

FOUND = 0.8  # share of studies that find an effect, of `seeds_needed`; the field's usual power
MOST_SEEDS = 1000  # of `seeds_needed`: nobody trains more


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its standard error and the number of independent units behind it."""

    value: float
    se: float | None  # None when there is one unit only
    num_units: int


def clustered_mean(unit_means: Sequence[float]) -> Estimate:
    """Mean over items, each of which is the mean of its own samples.

    The items are the independent units: more samples an item make each item's mean sharper, never
    the number of questions larger. Source: field practice for avg@k; Miller 2024, section 2.2.
    """
    values = np.asarray(unit_means, dtype=np.float64)
    if values.size == 0:
        return Estimate(value=math.nan, se=None, num_units=0)
    se = float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else None
    return Estimate(value=float(values.mean()), se=se, num_units=int(values.size))


def mean_of_means(parts: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of independent estimates (benchmarks to category to Average)."""
    value = sum(part.value for part in parts) / len(parts)
    known = [part.se for part in parts if part.se is not None]
    se = math.hypot(*known) / len(parts) if len(known) == len(parts) else None
    return Estimate(value=value, se=se, num_units=sum(part.num_units for part in parts))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Sum over sum (nats a token over documents), with the documents as the independent units.

    Source: linearised variance of a ratio estimator, Cochran 1977, section 2.11.
    """
    above = np.asarray(numerators, dtype=np.float64)
    below = np.asarray(denominators, dtype=np.float64)
    total = float(below.sum())
    if total == 0:
        return Estimate(value=math.nan, se=None, num_units=int(below.size))
    value = float(above.sum()) / total
    if below.size < 2:
        return Estimate(value=value, se=None, num_units=int(below.size))
    residuals = above - value * below
    scale = below.size / (below.size - 1)
    se = math.sqrt(scale * float((residuals**2).sum())) / total
    return Estimate(value=value, se=se, num_units=int(below.size))


def share_interval(estimate: Estimate) -> tuple[float, float]:
    """A 95% interval of a share between 0 and 1 that is a mean over units.

    Wilson's interval with the number of units that would give the error (several samples of a unit
    tell less than as many units), and Student's threshold. Where all units agree the error is 0,
    though few units say little: there, and never below, the units themselves are the number.
    Source: Korn and Graubard 1998, section 2, with Wilson's interval.
    """
    share, num_units = estimate.value, estimate.num_units
    if num_units < 2 or estimate.se is None:
        return 0.0, 1.0
    spread = share * (1 - share)
    effective = spread / estimate.se**2 if estimate.se and spread > 0 else float(num_units)
    effective = max(effective, float(num_units))
    limit = critical_value(num_units - 1) ** 2 / effective
    centre = (share + limit / 2) / (1 + limit)
    reach = math.sqrt(limit * (spread + limit / 4)) / (1 + limit)
    return max(0.0, centre - reach), min(1.0, centre + reach)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A variance over training seeds, of one seed, and the degrees of freedom behind it."""

    variance: float
    degrees: float


@dataclass(frozen=True, kw_only=True)
class SeededEstimate:
    """A number over seeds. `se` holds both sources of error; `degrees` are its own."""

    value: float
    se: float
    degrees: float
    se_seeds: float | None  # of the seeds alone; None with one seed
    se_items: float  # of the questions alone
    seeds: tuple[float, ...]  # the number in each seed

    @property
    def t(self) -> float:
        """Value over error; 0 when both are 0."""
        if self.se == 0:
            return math.copysign(math.inf, self.value) if self.value else 0.0
        return self.value / self.se

    @property
    def p_value(self) -> float:
        """Two-sided, Student's t."""
        return float(2 * stdtr(self.degrees, -abs(self.t)))

    @property
    def critical(self) -> float:
        """What |t| must exceed at the two-sided 5% level; never below 1.96."""
        return critical_value(self.degrees)


def critical_value(degrees: float, significance: float = SIGNIFICANCE) -> float:
    """The two-sided threshold of Student's t."""
    return float(stdtrit(degrees, 1 - significance / 2))


def shrunk(own: Spread, pooled: Spread | None) -> Spread:
    """A comparison's own spread over seeds, drawn towards the one pooled over the study's cells.

    The own spread is one of the pooled ones, so only the degrees beyond its own count, and at most
    PRIOR_DEGREES of them: two cells have nothing to pool. Source: Smyth 2004, section 4, with the
    prior's degrees fixed, not estimated (from 16 cells the estimate is too sure of itself).
    """
    prior = 0.0 if pooled is None else min(PRIOR_DEGREES, pooled.degrees - own.degrees)
    if pooled is None or prior <= 0:
        return own
    degrees = prior + own.degrees
    variance = (prior * pooled.variance + own.degrees * own.variance) / degrees
    return Spread(variance=variance, degrees=degrees)


def combine(draws_AB: np.ndarray, *, num_items: int, pooled: Spread | None) -> SeededEstimate:
    """Joins the spread over training seeds with the spread over questions.

    Shapes: draws_AB, A seeds by B draws of the questions; column 0 holds the measured numbers.

    Every seed answers the same questions, so averaging seeds does not average the questions out:
    the variance is that of the seeds' mean over seeds plus that over questions, less what both
    hold (questions answered differently by each seed), never below the larger of the two.
    Degrees of freedom: Welch-Satterthwaite, of the spread after `shrunk` and of the questions.
    Source: variance of the mean of a two-way table without replication, Searle 1971, chapter 9.
    """
    values = draws_AB[:, 0]
    num_seeds = values.size
    resampled_AB = draws_AB[:, 1:]
    items = float(resampled_AB.mean(axis=0).var(ddof=1)) if resampled_AB.shape[1] > 1 else 0.0
    degrees_items = max(1, num_items - 1)
    variance, degrees, seeds = items, float(degrees_items), None
    if num_seeds > 1:
        own = Spread(variance=float(values.var(ddof=1)), degrees=num_seeds - 1)
        spread = shrunk(own, pooled)
        seeds = spread.variance / num_seeds
        variance = max(items, seeds, items + seeds - _both(resampled_AB))
        if seeds:
            below = seeds**2 / spread.degrees + items**2 / degrees_items
            degrees = variance**2 / below
    return SeededEstimate(
        value=float(values.mean()),
        se=math.sqrt(variance),
        degrees=degrees,
        se_seeds=None if seeds is None else math.sqrt(seeds),
        se_items=math.sqrt(items),
        seeds=tuple(float(value) for value in values),
    )


def _both(resampled_AB: np.ndarray) -> float:
    """The part of the variance of the seeds' mean that both spreads hold: seed by question."""
    num_seeds = resampled_AB.shape[0]
    if resampled_AB.shape[1] < 2:
        return 0.0
    covariance_AA = np.cov(resampled_AB)
    own = float(np.trace(covariance_AA)) / num_seeds
    shared = (float(covariance_AA.sum()) - num_seeds * own) / (num_seeds * (num_seeds - 1))
    return max(0.0, own - shared) / num_seeds


def seeds_needed(effect: float, *, variance: float, se_items: float) -> int | None:
    """The fewest seeds with which 8 of 10 studies find an effect; None above MOST_SEEDS.

    `variance` is of one seed's difference, pooled over cells. Questions stay as many as they are,
    so an effect that they blur by themselves is found by no number of seeds.
    """
    for num_seeds in range(2, MOST_SEEDS + 1):
        seeds = variance / num_seeds
        se = math.hypot(math.sqrt(seeds), se_items)
        if se == 0:
            return num_seeds
        degrees = PRIOR_DEGREES + num_seeds - 1
        if seeds:
            degrees *= (se**2 / seeds) ** 2
        if 1 - float(nctdtr(degrees, abs(effect) / se, critical_value(degrees))) >= FOUND:
            return num_seeds
    return None
