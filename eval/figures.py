"""Figures of the report as SVG and PNG: bars, gaps, held-out loss and loss curves."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.files import replacing
from frontload.eval.tables import cell_order, label_of

INK = "#31333a"  # replaced by currentColor where the page decides
RL_COLUMNS = 3
COLORS = {  # Okabe and Ito: told apart without colour vision
    "base": "#8a8f98",
    "SHQ": "#e69f00",
    "LDQ": "#2f7fc1",
    "LMQ": "#009e73",
    "res": "#cc79a7",
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One training run. `is_faint`: another seed of a run that is drawn already."""

    label: str
    color: str
    samples: tuple[float, ...]  # or steps
    values: tuple[float, ...]
    is_faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curves over the same axis; a vertical line where the phase changes. A share begins at 0."""

    title: str
    curves: tuple[Curve, ...]
    boundary: float | None = None
    is_share: bool = False


def color_of(cell: str) -> str:
    """The colour of a cell's pretraining data."""
    return COLORS.get(cell.partition(">")[0].removeprefix("pt:"), "#56b4e9")


def new_figure(
    width: float, height: float, *, columns: int = 1, rows: int = 1
) -> tuple[Any, list[Any]]:
    """A figure and its axes in the house style; deterministic SVG, text kept as text."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["font.size"] = 9.5
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.patch.set_alpha(0)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_color(INK)
        ax.tick_params(colors=INK, length=3)
        ax.grid(axis="y", color="#8a8f98", alpha=0.25, linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def save(figure: Any, folder: Path, *, name: str) -> str:
    """Writes NAME.svg and NAME.png and returns the SVG for a page, its ink in the page's colour."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # ids of one page's figures differ
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": "frontload"})
    svg = stream.getvalue()
    with replacing(folder / f"{name}.svg", "w") as out:
        out.write(svg)
    with replacing(folder / f"{name}.png") as out:
        figure.savefig(
            out, format="png", dpi=160, facecolor="white", metadata={"Software": "frontload"}
        )
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def bars_by_category(figure2: Mapping[str, Any]) -> Any:
    """Figure 2: accuracy by category after SFT on SHQ, one bar a pretraining mix."""
    figure, (ax,) = new_figure(8.2, 3.3)
    bars, categories = figure2["bars"], figure2["categories"]
    width = 0.8 / len(bars)
    for place, bar in enumerate(bars):
        at = [x - 0.4 + width * (place + 0.5) for x in range(len(categories))]
        ours = [(x, n["value"], n["se"]) for x, n in zip(at, bar["ours"], strict=True) if n]
        color = color_of(bar["cell"])
        if ours:
            xs, values, errors = zip(*ours, strict=True)
            ax.bar(xs, values, width * 0.92, color=color, label=bar["label"].partition(" + ")[0])
            ax.errorbar(xs, values, errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        paper = [(x, v) for x, v in zip(at, bar["paper"], strict=True) if v is not None]
        if paper:
            xs, values = zip(*paper, strict=True)
            ax.plot(xs, values, "D", color="none", markeredgecolor=INK, markersize=4, alpha=0.8)
    ax.plot([], [], "D", color="none", markeredgecolor=INK, markersize=4, label="paper (8B)")
    ax.set_xticks(range(len(categories)), [name.capitalize() for name in categories], color=INK)
    ax.set_ylabel("accuracy, %", color=INK)
    _legend(ax, columns=5)
    return figure


def gap_by_stage(gaps: Sequence[Mapping[str, Any]]) -> Any:
    """Each mix's lead over M_base before and after SFT: own suites, and the held-out loss."""
    figure, panels = new_figure(8.2, 3.1, columns=2)
    titles = {
        "accuracy": "lead over M_base in Average, points",
        "heldout": "held-out loss below M_base's, nats a token",
    }
    for ax, (measure, title) in zip(panels, titles.items(), strict=True):
        for name in dict.fromkeys(gap["mix"] for gap in gaps):
            points = [g for g in gaps if g["mix"] == name and g["measure"] == measure]
            _gap_line(ax, points, name)
        ax.axhline(0, color=INK, linewidth=0.8)
        tuned = next((label_of(gap["sft"][1:]) for gap in gaps if gap["sft"]), "SFT")
        last = max((gap["stage"] for gap in gaps), default=0)
        stages = ["pretrained", f"+ {tuned}", "+ RL"][: last + 1]
        ax.set_xticks(range(len(stages)), stages, color=INK)
        ax.set_title(title, loc="left", color=INK, fontsize=9.5)
        ax.set_xlim(-0.4, last + 0.4)
        _legend(ax, columns=3)
    return figure


def heldout_losses(cells: Mapping[str, Any]) -> Any:
    """Held-out trace loss of every cell, on questions inside and outside SHQ's families."""
    names = sorted((cell for cell in cells if "heldout.loss.inside" in cells[cell]), key=cell_order)
    figure, (ax,) = new_figure(8.2, 0.9 + 0.22 * len(names))
    for row, cell in enumerate(reversed(names)):
        inside, outside = (cells[cell].get(f"heldout.loss.{s}") for s in ("inside", "outside"))
        color = color_of(cell)
        if inside and outside:
            ax.plot([inside["value"], outside["value"]], [row, row], color=color, alpha=0.35, lw=3)
        for number, marker, filled in ((inside, "o", True), (outside, "o", False)):
            if number:
                face = color if filled else "none"
                ax.errorbar(
                    number["value"],
                    row,
                    xerr=number["se"],
                    fmt=marker,
                    markersize=5.5,
                    color=color,
                    markerfacecolor=face,
                    elinewidth=1,
                )
    ax.set_yticks(range(len(names)), [label_of(cell) for cell in reversed(names)], color=INK)
    ax.grid(axis="x", color="#8a8f98", alpha=0.25, linewidth=0.6)
    ax.set_xlabel("nats a token; filled: SHQ's families, hollow: other families", color=INK)
    return figure


def loss_curves(panels: Sequence[Panel]) -> Any:
    """Training loss against samples."""
    figure, axes = new_figure(8.2, 3.0, columns=len(panels))
    for ax, panel in zip(axes, panels, strict=True):
        _draw_panel(ax, panel)
        if panel.boundary is not None:
            ax.axvline(panel.boundary, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            ax.annotate(
                "reasoning data starts",
                (panel.boundary, ax.get_ylim()[1]),
                xytext=(4, 0),  # in points: a page drops the blanks a text begins with
                textcoords="offset points",
                va="top",
                color=INK,
                fontsize=8,
            )
        ax.set_xlabel("samples", color=INK)
        _legend(ax, columns=3)
    axes[0].set_ylabel("loss, nats a token", color=INK)
    return figure


def rl_curves(panels: Sequence[Panel]) -> Any:
    """What GRPO did, metric by metric, against steps."""
    rows = -(-len(panels) // RL_COLUMNS)
    figure, axes = new_figure(8.2, 0.4 + 1.9 * rows, columns=RL_COLUMNS, rows=rows)
    for ax, panel in zip(axes, panels, strict=False):
        _draw_panel(ax, panel)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(panels) - RL_COLUMNS) : len(panels)]:
        ax.set_xlabel("step", color=INK)
    handles, labels = axes[0].get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, frameon=False, ncols=4, fontsize=8, loc="outside upper center"
    )
    _ink(legend)
    return figure


def _draw_panel(ax: Any, panel: Panel) -> None:
    for curve in panel.curves:
        ax.plot(
            curve.samples,
            curve.values,
            color=curve.color,
            linewidth=0.9 if curve.is_faint else 1.4,
            alpha=0.35 if curve.is_faint else 1.0,
            label=None if curve.is_faint else curve.label,
        )
    lowest = min(value for curve in panel.curves for value in curve.values)
    if panel.is_share or (lowest >= 0.0 and ax.get_ylim()[0] < 0.0):
        ax.set_ylim(bottom=0.0)  # what is never below 0 has no axis there
    ax.set_title(panel.title, loc="left", color=INK, fontsize=9.5)


def _gap_line(ax: Any, points: Sequence[Mapping[str, Any]], name: str) -> None:
    if points:
        shift = {"SHQ": -0.06, "LMQ": 0.06}.get(name, 0.0)
        ax.errorbar(
            [point["stage"] + shift for point in points],
            [point["value"] for point in points],
            [point["se"] for point in points],
            fmt="o-",
            color=color_of(f"pt:{name}"),
            markersize=5,
            linewidth=1.6,
            elinewidth=1,
            capsize=2,
            label=f"M_{name}",
        )


def _legend(ax: Any, *, columns: int) -> None:
    if ax.get_legend_handles_labels()[0]:
        legend = ax.legend(
            frameon=False,
            ncols=columns,
            fontsize=8,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.08),
            columnspacing=1.2,
            handlelength=1.4,
        )
        _ink(legend)


def _ink(legend: Any) -> None:
    """Gives a legend's words the ink, which a page turns into its own colour."""
    for text in legend.get_texts():
        text.set_color(INK)
