"""Sums of cells with weights: what every difference, claim and comparison of a study is.

A contrast is estimated over the seeds that all its cells have. Its error joins the questions with
the seeds, whose spread is drawn towards the one pooled over the study's cells (`stats.shrunk`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from frontload.data_tools.disk.seeds import stream_bits
from frontload.eval.statistics.cells import Cells, Draws, Leaf, MissingCell, members, paired_seeds
from frontload.eval.statistics.spread import NEGLIGIBLE, pooled_spread
from frontload.eval.statistics.stats import SeededEstimate, Spread, combine


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """`sum of weight x c(cell, metric) + constant + eps x min_effect`."""

    weights: dict[Leaf, float] = field(default_factory=dict)
    constant: float = 0.0
    eps: float = 0.0

    def plus(self, other: "Contrast", times: float = 1.0) -> "Contrast":
        """This and so many times the other; leaves that cancel go."""
        weights = dict(self.weights)
        for leaf, weight in other.weights.items():
            weights[leaf] = weights.get(leaf, 0.0) + times * weight
        return Contrast(
            weights={leaf: w for leaf, w in weights.items() if abs(w) > NEGLIGIBLE},
            constant=self.constant + times * other.constant,
            eps=self.eps + times * other.eps,
        )

    def times(self, factor: float) -> "Contrast":
        """Every weight and constant times a number."""
        return Contrast().plus(self, factor)

    def without_constants(self) -> "Contrast":
        """The cells alone."""
        return replace(self, constant=0.0, eps=0.0)


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """A contrast, or the least of several, as a number with what stands behind it."""

    estimate: SeededEstimate
    seeds: tuple[int, ...]  # the numbers of the seeds that all cells have
    num_unpaired: int  # seeds of some cells that others lack, left out
    num_items: int  # questions, each once
    spread: Spread | None  # pooled over cells, of one seed; None without two seeds and three cells


def estimate(cells: Cells, contrast: Contrast) -> Estimated:
    """The contrast over the seeds that all its cells have, `eps` taken as 0.

    Raises: MissingCell for a cell that the study lacks, or when no seed is in all cells.
    """
    draws, unpaired = contrast_draws(cells, contrast)
    pooled = pooled_spread(cells, expanded(contrast), seeds=draws.seeds)
    return Estimated(
        estimate=combine(draws.draws_AB, num_items=draws.num_items, pooled=pooled),
        seeds=draws.seeds,
        num_unpaired=unpaired,
        num_items=draws.num_items,
        spread=pooled,
    )


def contrast_draws(cells: Cells, contrast: Contrast) -> tuple[Draws, int]:
    """The contrast in each seed and draw, and how many seeds had no partner in some cell."""
    assert contrast.weights, "a contrast without a cell is a number, and nothing to estimate"
    parts = {leaf: cells.draws(*leaf) for leaf in contrast.weights}
    seeds = paired_seeds(list(parts.values()))
    if not seeds:
        raise MissingCell(*next(iter(parts)), reason="no training seed has all cells of it")
    named = set().union(*[cells.seeds_of(leaf[0]) for leaf in parts])
    total = np.full((1, 1), contrast.constant)
    for leaf, weight in contrast.weights.items():
        total = total + weight * parts[leaf].of_seeds(seeds)
    questions = frozenset[str]().union(*[part.questions for part in parts.values()])
    return Draws(draws_AB=total, seeds=seeds, questions=questions), len(named - set(seeds))


def least(cells: Cells, contrasts: Sequence[Contrast]) -> Estimated:
    """The least of several contrasts: taken of the means over seeds, never inside a seed.

    The error is that of seeds and questions drawn again together: the questions' draws are the
    cells' own, the seeds' are normal with the spreads and the shared cells of the contrasts.
    """
    if len(contrasts) == 1:
        return estimate(cells, contrasts[0])
    found = [estimate(cells, contrast) for contrast in contrasts]
    seeds = tuple(sorted(set.intersection(*[set(one.seeds) for one in found])))
    drawn = [contrast_draws(cells, contrast)[0] for contrast in contrasts]
    means_KB = np.stack([one.draws_AB.mean(axis=0) for one in drawn])
    seeds_KB = _seed_noise(contrasts, found, num_draws=means_KB.shape[1] - 1)
    values_K = means_KB[:, 0]
    place = int(values_K.argmin())
    both = (means_KB[:, 1:] + seeds_KB).min(axis=0)
    only_items = means_KB[:, 1:].min(axis=0)
    only_seeds = (values_K[:, None] + seeds_KB).min(axis=0)
    weakest = found[place].estimate
    per_seed = (
        np.stack([one.of_seeds(seeds)[:, 0] for one in drawn]) if seeds else values_K[:, None]
    )
    num_draws = means_KB.shape[1] - 1
    return Estimated(
        estimate=SeededEstimate(
            value=float(values_K[place]),
            se=float(both.std(ddof=1)) if num_draws > 1 else weakest.se,
            degrees=min(one.estimate.degrees for one in found),
            se_seeds=(
                None
                if weakest.se_seeds is None
                else float(only_seeds.std(ddof=1))
                if num_draws > 1
                else weakest.se_seeds
            ),
            se_items=float(only_items.std(ddof=1)) if num_draws > 1 else weakest.se_items,
            seeds=tuple(float(value) for value in per_seed[place]),
        ),
        seeds=seeds,
        num_unpaired=max(one.num_unpaired for one in found),
        num_items=max(one.num_items for one in found),
        spread=found[place].spread,
    )


def _seed_noise(
    contrasts: Sequence[Contrast], found: Sequence[Estimated], *, num_draws: int
) -> np.ndarray:
    """noise_KB: errors of the means over seeds; contrasts that share cells share errors."""
    weights_K = [expanded(contrast) for contrast in contrasts]
    leaves = sorted(set().union(*weights_K))
    weights_KL = np.array([[weights.get(leaf, 0.0) for leaf in leaves] for weights in weights_K])
    lengths_K = np.linalg.norm(weights_KL, axis=1)
    sds_K = np.array([one.estimate.se_seeds or 0.0 for one in found])
    generator = np.random.Generator(stream_bits(0, "seeds drawn again", *map(str, leaves)))
    unit_KB = weights_KL @ generator.standard_normal((len(leaves), num_draws))
    return unit_KB * (sds_K / np.where(lengths_K > 0, lengths_K, 1.0))[:, None]


def expanded(contrast: Contrast) -> dict[Leaf, float]:
    """The weights on single cells, groups replaced by the mean over their members."""
    found: dict[Leaf, float] = {}
    for (cell, metric), weight in contrast.weights.items():
        names = members(cell)
        for name in names:
            leaf = (name, metric)
            found[leaf] = found.get(leaf, 0.0) + weight / len(names)
    return {leaf: weight for leaf, weight in found.items() if abs(weight) > NEGLIGIBLE}
