"""Figures of the report as SVG and PNG: the house style, hover texts, curves over training."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import replacing

INK = "#31333a"  # replaced by currentColor where the page decides
RL_COLUMNS = 3
HOVER = "hover:"  # begins the id of what has a hover text, which is the rest of it
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


def hover_id(text: str) -> str:
    """The id that makes `save` show `text` under a pointer; for an artist's `set_gid`."""
    return HOVER + text


def save(figure: Any, folder: Path, *, name: str) -> str:
    """Writes NAME.svg and NAME.png and returns the SVG for a page, its ink in the page's colour.

    What has a `hover_id` gets the title that browsers show under a pointer.
    """
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # ids of one page's figures differ
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": "frontload"})
    svg = re.sub(rf'<g id="{HOVER}([^"]*)">', r"<g><title>\1</title>", stream.getvalue())
    with replacing(folder / f"{name}.svg", "w") as out:
        out.write(svg)
    with replacing(folder / f"{name}.png") as out:
        figure.savefig(
            out, format="png", dpi=160, facecolor="white", metadata={"Software": "frontload"}
        )
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


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
        legend(ax, columns=3)
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
    drawn = figure.legend(
        handles, labels, frameon=False, ncols=4, fontsize=8, loc="outside upper center"
    )
    _ink(drawn)
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


def legend(ax: Any, *, columns: int) -> None:
    """Draws the legend above the axes, if anything has a label."""
    if ax.get_legend_handles_labels()[0]:
        drawn = ax.legend(
            frameon=False,
            ncols=columns,
            fontsize=8,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.08),
            columnspacing=1.2,
            handlelength=1.4,
        )
        _ink(drawn)


def _ink(drawn: Any) -> None:
    """Gives a legend's words the ink, which a page turns into its own colour."""
    for text in drawn.get_texts():
        text.set_color(INK)
