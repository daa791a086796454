"""How much cells differ between training seeds, pooled over the cells of a study.

Three seeds give a comparison two degrees of freedom of its own; 16 cells give it thirty.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from frontload.eval.statistics.cells import Cells, Leaf, paired_seeds
from frontload.eval.statistics.stats import Spread

SUITE_OF_STAGE = {"pt": "base", "sft": "sft", "rl": "sft"}
"""Stage of a cell -> the suite that it is asked."""

NEGLIGIBLE = 1e-9  # of a weight, beside weights of about 1


def pooled_spread(
    cells: Cells, weights_of: Mapping[Leaf, float], *, seeds: Sequence[int]
) -> Spread | None:
    """The variance of one seed's sum of cells that the spreads of all cells give it; None without.

    Cells of a stage are taken to spread alike about their mean and their seed's, which they share
    (the trunk). A cell after RL is its start and a change of its own, so that what both share
    cancels. None where a stage's weights do not add up to zero: the seed's part stays in.
    """
    weights: dict[tuple[str, str, str], float] = {}  # (stage, cell, metric) -> weight
    for (cell, metric), weight in weights_of.items():
        for key in _innovations(cells, cell, metric, seeds=seeds):
            weights[key] = weights.get(key, 0.0) + weight
    parts: list[Spread] = []
    for stage, metric in sorted({(stage, metric) for stage, _, metric in weights}):
        own = [w for (s, _, m), w in weights.items() if (s, m) == (stage, metric)]
        if all(abs(weight) < NEGLIGIBLE for weight in own):
            continue
        spread = stage_spread(cells, stage, metric, seeds=seeds)
        if spread is None or abs(sum(own)) > NEGLIGIBLE * len(own):
            return None
        length = sum(weight**2 for weight in own)
        parts.append(Spread(variance=spread.variance * length, degrees=spread.degrees))
    if not parts:
        return None
    variance = sum(part.variance for part in parts)
    weighed = sum(part.variance**2 / part.degrees for part in parts)
    least = min(part.degrees for part in parts)
    return Spread(variance=variance, degrees=variance**2 / weighed if weighed else least)


def stage_spread(cells: Cells, stage: str, metric: str, *, seeds: Sequence[int]) -> Spread | None:
    """How much one cell of a stage differs between seeds beyond what all its cells share.

    With one seed it is the one that the recipe states. None without that, or with fewer than two
    cells that have the metric in all these seeds.
    """
    if len(seeds) < 2:
        return cells.stated_spreads.get((stage, metric))
    rows = [
        row
        for cell in cells.names
        if stage_of(cell) == stage
        for row in [_innovation(cells, cell, metric, seeds=seeds)]
        if row is not None
    ]
    if len(rows) < 2:
        return None
    values_CA = np.stack(rows)
    residual_CA = (
        values_CA - values_CA.mean(0) - values_CA.mean(1, keepdims=True) + values_CA.mean()
    )
    degrees = (len(rows) - 1) * (len(seeds) - 1)
    return Spread(variance=float((residual_CA**2).sum()) / degrees, degrees=degrees)


def stage_of(cell: str) -> str:
    """`pt`, `sft` or `rl`: the last thing that a cell's model was trained by."""
    return cell.rpartition(">")[2].partition(":")[0]


def _innovations(
    cells: Cells, cell: str, metric: str, *, seeds: Sequence[int]
) -> list[tuple[str, str, str]]:
    """What a number is a sum of: itself, or after RL its start and its change."""
    start = _start(cells, cell, metric, seeds=seeds)
    itself = (stage_of(cell), cell, metric)
    return [itself] if start is None else [(stage_of(start), start, metric), itself]


def _innovation(cells: Cells, cell: str, metric: str, *, seeds: Sequence[int]) -> np.ndarray | None:
    """The measured numbers by seed, of a cell after RL the change from its start; None without."""
    values = _measured(cells, cell, metric, seeds=seeds)
    start = _start(cells, cell, metric, seeds=seeds)
    if values is None or start is None:
        return values
    before = _measured(cells, start, metric, seeds=seeds)
    return None if before is None else values - before


def _start(cells: Cells, cell: str, metric: str, *, seeds: Sequence[int]) -> str | None:
    """The cell that RL started from, where it was asked the same."""
    start, is_rl, _ = cell.partition(">rl:")
    if not is_rl or _measured(cells, start, metric, seeds=seeds) is None:
        return None
    return start


def _measured(cells: Cells, cell: str, metric: str, *, seeds: Sequence[int]) -> np.ndarray | None:
    draws = cells.metrics(cell).get(metric)
    if draws is None or not set(seeds) <= set(draws.seeds):
        return None
    values = draws.of_seeds(seeds)[:, 0]
    return None if any(math.isnan(value) for value in values) else values


def seed_spreads(cells: Cells) -> dict[str, dict[str, float]]:
    """Of each stage and metric: the pooled standard deviation of one cell over seeds, its degrees.

    Only what two seeds and two cells give; the form in which a recipe may state it for a study of
    one seed, `stage/metric`.
    """
    found = {}
    for stage in dict.fromkeys(map(stage_of, cells.names)):
        names = [cell for cell in cells.names if stage_of(cell) == stage]
        for metric in dict.fromkeys(metric for cell in names for metric in cells.metrics(cell)):
            have = [d for cell in names if (d := cells.metrics(cell).get(metric)) is not None]
            spread = stage_spread(cells, stage, metric, seeds=paired_seeds(have))
            if spread is not None:
                found[f"{stage}/{metric}"] = {
                    "sd": math.sqrt(spread.variance),
                    "degrees": spread.degrees,
                }
    return found


def stated_spreads(by_name: Mapping[str, float]) -> dict[tuple[str, str], Spread]:
    """`stage/metric` -> standard deviation, as a recipe states it: taken as known."""
    found = {}
    for name, deviation in by_name.items():
        stage, _, metric = name.partition("/")
        found[stage, metric] = Spread(variance=deviation**2, degrees=math.inf)
    return found
