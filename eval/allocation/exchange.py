"""What a token of pretraining is worth in tokens of SFT: a reading of one law, never a decision.

    objective = E - A (D0 + k P + S)^-b

P and S are tokens of reasoning in pretraining and in SFT; k is the rate. Cells of one budget alone
leave k open, for there P and S move together: some cells spend another one. E and A are solved
for; k, D0 and b stand on a grid, each point weighed by its likelihood at the noise of the seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import f as fisher

from frontload.eval.statistics.stats import PRIOR_DEGREES, critical_value

MOST_RATE = 64.0  # and its inverse the least that is asked about
RATES, OFFSETS, POWERS = 193, 11, 9  # points of the grid
LEAST_OFFSET, MOST_OFFSET = 1 / 64, 16.0  # D0, of the most tokens of a cell
LEAST_POWER, MOST_POWER = 0.05, 2.0
PARAMETERS = 5
WIDE = 10.0  # high over low: more than an order of magnitude is not called known
EXACT = 0.01  # of the cells' range: no law of three numbers, and no grid, is nearer to the truth
POOR = 0.01  # chance of cells as far from the law as these, below which it does not describe them
NEAR = 1.001  # of an end of what was asked
TAIL = 0.025
LIKELY = 0.15  # of the likeliest rate's weight: what a 95% interval by likelihood still holds


@dataclass(frozen=True, kw_only=True)
class ExchangeRate:
    """SFT tokens that do what one token of pretraining does."""

    rate: float
    low: float  # of the 95% interval: the wider of the law's own and of leaving out a seed
    high: float
    by_left_out: tuple[float, ...]  # the rate without each seed in turn
    is_described: bool  # the law goes through the cells as near as their noise allows
    is_reached: bool  # SFT alone does in some cell what pretraining does in another

    @property
    def is_told(self) -> bool:
        """Whether the interval says something: narrower than WIDE, and inside what was asked."""
        is_inside = self.low > NEAR / MOST_RATE and self.high < MOST_RATE / NEAR
        is_narrow = is_inside and self.high <= WIDE * self.low
        return is_narrow and self.is_described and self.is_reached


def read_rate(
    pretraining: Sequence[int], sft: Sequence[int], *, values_CA: np.ndarray
) -> ExchangeRate:
    """The rate by cells that were all run at the same seeds; of `values_CA` higher is better.

    Shapes: values_CA has a row a cell and a column a seed, two of each or more.
    """
    tokens = np.array([pretraining, sft], dtype=np.float64)
    num_seeds = values_CA.shape[1]
    whole_K, distance = _weights(tokens, values_CA)
    log_K = np.linspace(-math.log(MOST_RATE), math.log(MOST_RATE), RATES)
    low, high = _ends(whole_K, log_K)
    middle = float(whole_K @ log_K)
    lefts = [
        float(_weights(tokens, np.delete(values_CA, seed, axis=1), noise_CA=values_CA)[0] @ log_K)
        for seed in range(num_seeds)
    ]
    spread = np.sqrt(
        (num_seeds - 1) / num_seeds * np.square(np.subtract(lefts, np.mean(lefts))).sum()
    )
    width = critical_value(num_seeds - 1 + PRIOR_DEGREES) * float(spread)
    return ExchangeRate(
        rate=math.exp(middle),
        low=math.exp(max(min(low, middle - width), log_K[0])),
        high=math.exp(min(max(high, middle + width), log_K[-1])),
        by_left_out=tuple(math.exp(one) for one in lefts),
        is_described=_is_described(distance, values_CA),
        is_reached=_is_reached(tokens, math.exp(middle)),
    )


def _ends(weight_K: np.ndarray, log_K: np.ndarray) -> tuple[float, float]:
    """The middle 95% of the rates; to the end of what was asked where that end is likely too."""
    below_K = weight_K.cumsum()
    first, last = (int(np.searchsorted(below_K, share)) for share in (TAIL, 1 - TAIL))
    likely = LIKELY * weight_K.max()
    first = 0 if weight_K[0] >= likely else first
    last = len(log_K) - 1 if weight_K[-1] >= likely else min(last, len(log_K) - 1)
    return float(log_K[first]), float(log_K[last])


def _weights(
    tokens: np.ndarray, values_CA: np.ndarray, *, noise_CA: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """The weight of each rate, and the least distance of the law from the cells' means.

    `noise_CA` are the cells that the noise is taken from: all of them where a seed is left out.
    """
    noise_CA = values_CA if noise_CA is None else noise_CA
    exact = (EXACT * float(np.ptp(noise_CA.mean(1)))) ** 2 + 1e-300
    weight_C = 1.0 / np.maximum(_variances(noise_CA) / values_CA.shape[1], exact)
    degrees = (len(values_CA) - 1) * (noise_CA.shape[1] - 1)
    distance_KDB = _distances(tokens, values_CA.mean(1), weight_C=weight_C)
    log_KDB = -0.5 * (degrees + len(values_CA) - 2) * np.log1p(distance_KDB / degrees)
    found_KDB = np.exp(log_KDB - log_KDB.max())
    found_K = found_KDB.sum((1, 2))
    return found_K / found_K.sum(), float(distance_KDB.min())


def _variances(values_CA: np.ndarray) -> np.ndarray:
    """Of one seed's value in each cell, beside its seed's: its own and the pooled one together."""
    num_cells, num_seeds = values_CA.shape
    left_CA = values_CA - values_CA.mean(1, keepdims=True) - values_CA.mean(0) + values_CA.mean()
    own_C = np.square(left_CA).sum(1) * num_cells / (num_cells - 1)
    pooled = own_C.sum() / (num_cells * (num_seeds - 1))
    return (own_C + PRIOR_DEGREES * pooled) / (num_seeds - 1 + PRIOR_DEGREES)


def _distances(tokens: np.ndarray, mean_C: np.ndarray, *, weight_C: np.ndarray) -> np.ndarray:
    """Weighted squares between the means and the law at each (k, D0, b), E and A at their best."""
    most = tokens.sum(0).max()
    rate_K = np.geomspace(1 / MOST_RATE, MOST_RATE, RATES)
    offset_D = most * np.geomspace(LEAST_OFFSET, MOST_OFFSET, OFFSETS)
    power_B = np.geomspace(LEAST_POWER, MOST_POWER, POWERS)
    read_KC = rate_K[:, None] * tokens[0] + tokens[1]
    loss = (1 + read_KC[:, None, None] / offset_D[:, None, None]) ** -power_B[:, None]
    share_C = weight_C / weight_C.sum()
    apart = loss - (loss @ share_C)[..., None]
    mean_apart_C = mean_C - share_C @ mean_C
    along = apart @ (weight_C * mean_apart_C)
    square = np.square(apart) @ weight_C
    slope = np.minimum(along / np.maximum(square, 1e-300), 0.0)  # more tokens never harm
    return float(weight_C @ np.square(mean_apart_C)) - 2 * slope * along + slope**2 * square


def _is_described(distance: float, values_CA: np.ndarray) -> bool:
    """Whether the cells' means lie as near to the law as the noise of their seeds lets them."""
    num_cells, num_seeds = values_CA.shape
    left = num_cells - PARAMETERS
    if left < 1:
        return True
    degrees = (num_cells - 1) * (num_seeds - 1)
    return float(fisher.sf(distance / left, left, degrees)) >= POOR


def _is_reached(tokens: np.ndarray, rate: float) -> bool:
    """Whether SFT beside the least pretraining goes as far as some cell with more of it: beyond
    that the law alone would say what SFT does."""
    read_C = rate * tokens[0] + tokens[1]
    is_least_C = tokens[0] == tokens[0].min()
    return bool(read_C[~is_least_C].min() <= read_C[is_least_C].max())
