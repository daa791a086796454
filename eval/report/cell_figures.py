"""Figures of cells: means with their errors, a dot a seed, and hover texts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from frontload.eval.report.figures import INK, color_of, hover_id, legend, new_figure
from frontload.eval.report.seed_values import seed_gaps, seed_values
from frontload.eval.tables.build import cell_order, label_of

Cells = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""The cells of cells.json: cell -> metric -> value, se, seeds and so on."""

SHIFTS = {"SHQ": -0.06, "LMQ": 0.06}  # mixes stand beside each other at a stage
HELDOUT_GROUPS = (
    ("heldout.loss.inside", ", SHQ's families", True),
    ("heldout.loss.outside", ", other families", False),
)
"""Metric, what its hover text adds to the cell, filled or hollow."""
MOST_TICKS = 9
TICKS = ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1,))  # of each power of ten, the finest first


def bars_by_category(figure2: Mapping[str, Any], cells: Cells) -> Any:
    """Figure 2: accuracy by category after SFT on SHQ, one bar a pretraining mix."""
    figure, (ax,) = new_figure(8.2, 3.3)
    bars, categories = figure2["bars"], figure2["categories"]
    width = 0.8 / len(bars)
    for place, bar in enumerate(bars):
        at = [x - 0.4 + width * (place + 0.5) for x in range(len(categories))]
        color, label = color_of(bar["cell"]), bar["label"].partition(" + ")[0]
        ours = [(x, n["value"], n["se"]) for x, n in zip(at, bar["ours"], strict=True) if n]
        if ours:
            xs, values, errors = zip(*ours, strict=True)
            drawn = ax.bar(xs, values, width * 0.92, color=color, label=label)
            for patch, value, error in zip(drawn.patches, values, errors, strict=True):
                patch.set_gid(hover_id(f"{bar['label']}: {value:.1f} +- {error:.1f}%"))
            ax.errorbar(xs, values, errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        for x, category in zip(at, categories, strict=True):
            metric = cells.get(bar["cell"], {}).get(f"sft.{category}")
            for seed, value in _dots(seed_values(metric)):
                _dot(ax, (x + 0.25 * width, value), INK, f"{label}, seed {seed}: {value:.1f}%")
        paper = [(x, v) for x, v in zip(at, bar["paper"], strict=True) if v is not None]
        if paper:
            xs, values = zip(*paper, strict=True)
            ax.plot(xs, values, "D", color="none", markeredgecolor=INK, markersize=4, alpha=0.8)
    ax.plot([], [], "D", color="none", markeredgecolor=INK, markersize=4, label="paper (8B)")
    ax.set_xticks(range(len(categories)), [name.capitalize() for name in categories], color=INK)
    ax.set_ylabel("accuracy, %", color=INK)
    legend(ax, columns=5)
    return figure


def gap_by_stage(gaps: Sequence[Mapping[str, Any]], cells: Cells) -> Any:
    """Each mix's lead over M_base before and after SFT: own suites, and the held-out loss."""
    figure, panels = new_figure(8.2, 3.1, columns=2)
    titles = {
        "accuracy": "lead over M_base in Average, points",
        "heldout": "held-out loss below M_base's, nats a token",
    }
    for ax, (measure, title) in zip(panels, titles.items(), strict=True):
        for name in dict.fromkeys(gap["mix"] for gap in gaps):
            points = [g for g in gaps if g["mix"] == name and g["measure"] == measure]
            _gap_line(ax, points, name, cells=cells)
        ax.axhline(0, color=INK, linewidth=0.8)
        tuned = next((label_of(gap["sft"][1:]) for gap in gaps if gap["sft"]), "SFT")
        last = max((gap["stage"] for gap in gaps), default=0)
        stages = ["pretrained", f"+ {tuned}", "+ RL"][: last + 1]
        ax.set_xticks(range(len(stages)), stages, color=INK)
        ax.set_title(title, loc="left", color=INK, fontsize=9.5)
        ax.set_xlim(-0.4, last + 0.4)
        legend(ax, columns=3)
    return figure


def heldout_losses(cells: Cells, *, by_family: bool) -> Any:
    """Held-out trace loss of every cell; `by_family`: inside and outside SHQ's families."""
    groups = HELDOUT_GROUPS if by_family else (("heldout.loss", "", True),)
    names = sorted((cell for cell in cells if groups[0][0] in cells[cell]), key=cell_order)
    figure, ax = _rows_of(names)
    for row, cell in enumerate(reversed(names)):
        color = color_of(cell)
        shown = [(cells[cell].get(metric), name, filled) for metric, name, filled in groups]
        values = [number["value"] for number, _, _ in shown if number]
        if len(values) == 2:
            ax.plot(values, [row, row], color=color, alpha=0.35, lw=3)
        for number, name, filled in shown:
            if number:
                text = f"{label_of(cell)}{name}"
                _point(ax, number, row, style=(color, filled), text=(text, " nats per token"))
    ax.set_xscale("log")
    ticks = log_ticks(*ax.get_xlim())
    ax.set_xticks(ticks, [f"{one:g}" for one in ticks], color=INK)
    ax.minorticks_off()
    key = "; filled: SHQ's families, hollow: other families" if by_family else ""
    ax.set_xlabel(f"nats per token, log scale{key}", color=INK)
    return figure


def log_ticks(low: float, high: float) -> list[float]:
    """The finest set of plain numbers that puts at most MOST_TICKS on a log axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for digits in TICKS:
        found = [n * 10.0**p for p in powers for n in digits if low <= n * 10.0**p <= high]
        if len(found) <= MOST_TICKS:
            break
    return found


def averages(cells: Cells) -> Any:
    """The Average of every cell, each on the suite of its stage, with a dot a seed."""
    metrics = {cell: m.get("sft.avg") or m.get("pt.avg") for cell, m in cells.items()}
    names = sorted((cell for cell, metric in metrics.items() if metric), key=cell_order)
    figure, ax = _rows_of(names)
    for row, cell in enumerate(reversed(names)):
        metric = metrics[cell]
        assert metric is not None
        _point(
            ax,
            metric,
            row,
            style=(color_of(cell), ">" in cell),
            text=(label_of(cell), "%"),
        )
    ax.set_xlim(left=-0.01 * ax.get_xlim()[1])
    ax.set_xlabel(
        "Average, %; filled: fine-tuned, hollow: pretrained, which is another suite", color=INK
    )
    return figure


def _rows_of(names: Sequence[str]) -> tuple[Any, Any]:
    """A figure with a line for each cell, the first on top."""
    figure, (ax,) = new_figure(8.2, 0.9 + 0.22 * len(names))
    ax.set_yticks(range(len(names)), [label_of(cell) for cell in reversed(names)], color=INK)
    ax.set_ylim(-0.7, len(names) - 0.3)
    ax.grid(axis="x", color="#8a8f98", alpha=0.25, linewidth=0.6)
    return figure, ax


def _point(
    ax: Any,
    metric: Mapping[str, Any],
    row: int,
    *,
    style: tuple[str, bool],
    text: tuple[str, str],
) -> None:
    """A mean with its error and its seeds on line `row`. `style`: colour, filled; `text`: unit."""
    (color, filled), (name, unit) = style, text
    for seed, value in _dots(seed_values(metric)):
        _dot(ax, (value, row - 0.28), color, f"{name}, seed {seed}: {value:.3g}{unit}")
    drawn = ax.errorbar(
        metric["value"],
        row,
        xerr=metric["se"],
        fmt="o",
        markersize=5.5,
        color=color,
        markerfacecolor=color if filled else "none",
        elinewidth=1,
    )
    drawn[0].set_gid(hover_id(f"{name}: {metric['value']:.3g} +- {metric['se']:.2g}{unit}"))


def _dots(seeds: Mapping[int, float]) -> list[tuple[int, float]]:
    """The seeds that are worth a dot: one alone is the mean."""
    return list(seeds.items()) if len(seeds) > 1 else []


def _dot(ax: Any, at: tuple[float, float], color: str, text: str) -> None:
    (drawn,) = ax.plot(*at, "o", color=color, markersize=2.6, alpha=0.7, markeredgewidth=0)
    drawn.set_gid(hover_id(text))


def _gap_line(ax: Any, points: Sequence[Mapping[str, Any]], name: str, *, cells: Cells) -> None:
    if not points:
        return
    color, shift = color_of(f"pt:{name}"), SHIFTS.get(name, 0.0)
    for point in points:
        metric = "pt.avg" if point["stage"] == 0 else "sft.avg"
        sign = 1.0
        if point["measure"] == "heldout":
            metric, sign = "heldout.loss", -1.0
        ours, base = (cells.get(f"pt:{mix}{point['sft']}", {}) for mix in (name, "base"))
        for seed, value in _dots(seed_gaps(ours, base, metric)):
            at = (point["stage"] + shift + 0.02, sign * value)
            _dot(ax, at, color, f"M_{name}, seed {seed}: {sign * value:+.3g}")
    ax.errorbar(
        [point["stage"] + shift for point in points],
        [point["value"] for point in points],
        [point["se"] for point in points],
        fmt="o-",
        color=color,
        markersize=5,
        linewidth=1.6,
        elinewidth=1,
        capsize=2,
        label=f"M_{name}",
    )
