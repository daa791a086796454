"""Standard errors: over items with repeated samples, over seeds, and both together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

SIGNIFICANCE = 0.05  # two-sided; its normal threshold is the 1.96 of claims.json's rules


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


@dataclass(frozen=True, kw_only=True)
class SeededEstimate:
    """A number over seeds. `se` holds both sources of error; `degrees` are its own."""

    value: float
    se: float
    degrees: float
    se_seeds: float | None  # spread over seeds / sqrt(seeds); None with one seed
    se_items: float  # spread over questions
    seeds: tuple[float, ...]

    @property
    def t(self) -> float:
        """Effect over error; 0 when both are 0."""
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


def combine(seeds: Sequence[float], se_items: float, *, num_items: int) -> SeededEstimate:
    """Joins the spread over training seeds with the spread over questions.

    Every seed answers the same questions, so averaging seeds does not average the questions out:
    the variance is sd(seeds)^2 / num_seeds + se_items^2, where se_items is of the seeds' mean. The
    first term already holds some of the second (questions answered differently by each seed), so
    the sum is slightly too large, never too small. Degrees of freedom: Welch-Satterthwaite, so that
    three seeds with a large spread are judged with t of about 2 degrees (4.30), not with 1.96.
    """
    values = np.asarray(seeds, dtype=np.float64)
    degrees_items = max(1, num_items - 1)
    se_seeds = float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else None
    variance = se_items**2 + (se_seeds or 0.0) ** 2
    degrees = float(degrees_items)
    if se_seeds and variance:
        below = se_seeds**4 / (values.size - 1) + se_items**4 / degrees_items
        degrees = variance**2 / below
    return SeededEstimate(
        value=float(values.mean()),
        se=math.sqrt(variance),
        degrees=degrees,
        se_seeds=se_seeds,
        se_items=se_items,
        seeds=tuple(float(value) for value in values),
    )
