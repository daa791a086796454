"""The values of single seeds behind the means of cells.json, for dots and hover texts."""

from collections.abc import Mapping
from typing import Any

Metrics = Mapping[str, Mapping[str, Any]]
"""A cell of cells.json: metric -> value, se, seeds and so on."""


def seed_values(metric: Mapping[str, Any] | None) -> dict[int, float]:
    """Number of a seed -> its value; {} without the metric."""
    return dict(zip(metric["seed_numbers"], metric["seeds"], strict=True)) if metric else {}


def seed_gaps(first: Metrics, second: Metrics, metric: str) -> dict[int, float]:
    """First cell minus second, for each seed that both have."""
    ours, theirs = (seed_values(cell.get(metric)) for cell in (first, second))
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}


def seeds_behind(number: Mapping[str, Any], cell: Metrics) -> dict[int, float]:
    """The seeds of a number of tables.json: those of the metric that has its value and error.

    Empty where no metric of the cell has them, as for a difference, or where several that have do
    not agree.
    """
    same = [
        seed_values(metric)
        for metric in cell.values()
        if metric["value"] == number["value"] and metric["se"] == number["se"]
    ]
    return same[0] if same and all(one == same[0] for one in same) else {}


def seeds_text(seeds: Mapping[int, float], *, decimals: int) -> str:
    """`seed 1: 41.2, seed 2: 43.0`."""
    return ", ".join(f"seed {seed}: {value:.{decimals}f}" for seed, value in seeds.items())
