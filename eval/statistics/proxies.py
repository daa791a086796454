"""Which number before RL ranks cells as RL does: correlations, a recommendation, its regret.

A proxy is known of every SFT cell, a score after RL only of those that RL was paid for. The cells
are the units: an interval is over cells like these, and the noise of both numbers is inside it.
Source of the question and of two proxies: Quagmires, arXiv 2510.01624.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from frontload.eval.statistics.stats import SIGNIFICANCE
from frontload.recipes.errors import RecipeError

LEAST_CELLS = 5
"""At 4 cells a perfect order comes by chance in 1 of 24, at 5 in 1 of 120."""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A number of each cell before RL."""

    name: str
    values: Mapping[str, float]  # by cell
    is_loss: bool = False  # lower is better
    sets: Mapping[str, str] | None = None  # by cell: the digest of the held-out set of a loss


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number and its interval, 95% unless another level was asked for."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ProxyQuality:
    """How well a proxy foretells RL's score. Higher is better, for a loss too."""

    name: str
    spearman: Interval
    r2: Interval
    num_cells: int


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The cells that RL's money should go to, and what the same rule would have lost before."""

    proxy: str
    cells: tuple[str, ...]  # the best first; of cells without RL
    regret: float  # RL's best score less the best among as many cells, on those that have both
    regret_by_chance: float  # the same where the cells are drawn


def judge_proxy(
    proxy: Proxy, scores: Mapping[str, float], *, level: float = SIGNIFICANCE
) -> ProxyQuality:
    """Spearman's correlation and R2 of a proxy and RL's score, over the cells that have both.

    Raises: RecipeError below 5 cells, for losses on different held-out sets, and where one of the
    two numbers is the same in all cells.
    """
    cells = _shared_cells(proxy, scores)
    sign = -1.0 if proxy.is_loss else 1.0
    before = np.array([sign * proxy.values[cell] for cell in cells])
    after = np.array([scores[cell] for cell in cells])
    for name, values in ((proxy.name, before), ("the score after RL", after)):
        if np.ptp(values) == 0:
            raise RecipeError(
                f"the correlation of {proxy.name} with the score after RL",
                found=f"{name} is {abs(values[0]):g} in all {len(cells)} cells",
                rule="a correlation is of numbers that differ",
                do="ask harder or more questions, or take another proxy",
            )
    linear = _fisher(_correlation(before, after), len(cells), excess=0.0, level=level)
    ranks = _correlation(rankdata(before), rankdata(after))
    return ProxyQuality(
        name=proxy.name,
        spearman=_fisher(ranks, len(cells), excess=0.5, level=level),
        r2=_squared(linear),
        num_cells=len(cells),
    )


def recommend(
    proxies: Sequence[Proxy], scores: Mapping[str, float], *, num_cells: int
) -> Recommendation | None:
    """The cells without RL that the surest proxy ranks first; None where no proxy is shown to rank.

    The surest proxy has the highest lower end of Spearman's interval, at the 5% level divided by
    the number of proxies, and it is above 0. The regret is on the cells that chose the proxy, so it
    flatters it.
    Raises: RecipeError as `judge_proxy` does, and for less than one cell.
    """
    if num_cells < 1:
        raise RecipeError(
            "the cells that RL should go to",
            found=f"{num_cells} cells were asked for",
            rule="a recommendation names one cell or more",
            do="ask for 1 or more",
        )
    level = SIGNIFICANCE / len(proxies)
    judged = [(judge_proxy(one, scores, level=level).spearman.low, one) for one in proxies]
    low, proxy = max(judged, key=lambda pair: pair[0])
    if low <= 0:
        return None
    known = _shared_cells(proxy, scores)
    waiting = [cell for cell in proxy.values if cell not in scores]
    after = [scores[cell] for cell in _ranked(proxy, known)]
    return Recommendation(
        proxy=proxy.name,
        cells=tuple(_ranked(proxy, waiting)[:num_cells]),
        regret=max(after) - max(after[:num_cells]),
        regret_by_chance=max(after) - _best_of_drawn(after, num_cells),
    )


def _shared_cells(proxy: Proxy, scores: Mapping[str, float]) -> list[str]:
    cells = sorted(cell for cell in proxy.values if cell in scores)
    if len(cells) < LEAST_CELLS:
        raise RecipeError(
            f"the correlation of {proxy.name} with the score after RL",
            found=f"{len(cells)} cells have both",
            rule=f"{LEAST_CELLS} cells are the least that can say anything",
            do="give RL to more cells (`rl.cells` of the study)",
        )
    sets = proxy.sets or {}
    different = sorted({sets[cell] for cell in cells if cell in sets})
    if proxy.is_loss and (len(different) != 1 or any(cell not in sets for cell in cells)):
        raise RecipeError(
            f"the correlation of {proxy.name} with the score after RL",
            found=f"held-out sets {', '.join(different) or 'that are not named'}",
            rule="losses compare on one held-out set, named for every cell",
            do="measure every cell on one common held-out set",
        )
    return cells


def _ranked(proxy: Proxy, cells: Sequence[str]) -> list[str]:
    """The best first; of equal ones, by name."""
    sign = 1.0 if proxy.is_loss else -1.0
    return sorted(cells, key=lambda cell: (sign * proxy.values[cell], cell))


def _best_of_drawn(scores: Sequence[float], count: int) -> float:
    """The expected best score of `count` cells that are drawn without replacement."""
    ordered = sorted(scores)
    count = min(count, len(ordered))
    ways = comb(len(ordered), count)
    return sum(value * comb(place, count - 1) / ways for place, value in enumerate(ordered))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.clip(np.corrcoef(one, other)[0, 1], -1.0, 1.0))


def _fisher(value: float, num_cells: int, *, excess: float, level: float) -> Interval:
    """Fisher's z with variance (1 + excess r^2) / (n - 3).

    The excess is 0 for Pearson's correlation and 1/2 for Spearman's (Bonett and Wright 2000). A
    correlation of 1 is taken halfway to the next that n ranks can have: its z is infinite.
    Coverage by simulation: tests/unit/eval/test_proxies.py.
    """
    most = 1 - 6 / (num_cells * (num_cells**2 - 1))
    inner = max(-most, min(most, value)) if excess else value
    inner = max(-1 + 1e-12, min(1 - 1e-12, inner))
    error = math.sqrt((1 + excess * inner**2) / (num_cells - 3))
    reach = float(ndtri(1 - level / 2)) * error
    middle = math.atanh(inner)
    low, high = math.tanh(middle - reach), math.tanh(middle + reach)
    return Interval(value=value, low=min(low, value), high=max(high, value))


def _squared(linear: Interval) -> Interval:
    """R2 of a line, from the interval of its correlation."""
    ends = sorted((linear.low**2, linear.high**2))
    low = 0.0 if linear.low <= 0 <= linear.high else ends[0]
    return Interval(value=linear.value**2, low=low, high=ends[1])
