"""The page of the theory: its figures as SVG, its numbers as JSON and in tables."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import replacing
from frontload.eval.report.figures import INK, legend, new_figure, save
from frontload.eval.report.templates import resource, template
from frontload.eval.theory.lab import CAUTION, LEFT_OUT, SOURCE
from frontload.eval.theory.shown import Plot, Theory, TheoryFigure

PAGE, DATA = "theory.html", "theory.json"
COLORS = ("#e69f00", "#2f7fc1", "#009e73", "#cc79a7", "#8a8f98")
MOST_DRAWN = 1e6  # of an error: what explodes leaves the figure and stays in the table


def write_theory(theory: Theory, out: Path) -> Path:
    """Writes theory.json, figures/ and last theory.html, which is returned."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    with replacing(out / DATA, "w") as stream:
        json.dump(theory_json(theory), stream, indent=1)
        stream.write("\n")
    drawn = {one.name: save(draw(one), out / "figures", name=one.name) for one in theory.figures}
    text = template("theory.html.jinja").render(
        theory=theory,
        drawn=drawn,
        source=SOURCE,
        caution=CAUTION,
        left_out=LEFT_OUT,
        css=resource("report.css"),
        script=resource("report.js"),
    )
    with replacing(out / PAGE, "w") as stream:
        stream.write(text)
    return out / PAGE


def theory_json(theory: Theory) -> dict[str, Any]:
    """Everything on the page, as data."""
    checks = [asdict(one) | {"holds": one.holds} for one in theory.checks]
    return {"source": SOURCE, "left_out": LEFT_OUT, **asdict(theory), "checks": checks}


def draw(figure: TheoryFigure) -> Any:
    """The plots of a figure side by side."""
    drawn, axes = new_figure(9.6, 3.6, columns=len(figure.plots))
    for ax, plot in zip(axes, figure.plots, strict=True):
        _draw_plot(ax, plot)
    return drawn


def _draw_plot(ax: Any, plot: Plot) -> None:
    own = [line.label for line in plot.lines if not line.of]
    for line in plot.lines:
        ax.plot(
            line.x,
            line.y,
            color=COLORS[own.index(line.of or line.label) % len(COLORS)],
            linestyle=(0, (4, 2)) if line.is_reference else "-",
            linewidth=1.0 if line.of else 1.5,
            marker=None if line.is_reference else ".",
            label=None if line.of else line.label,
        )
    for place in plot.marks:
        ax.axvline(place, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    if plot.is_log_x:
        ax.set_xscale("log")
    if plot.is_log_y:
        ax.set_yscale("log")
        ax.set_ylim(top=min(ax.get_ylim()[1], MOST_DRAWN))
    ax.set_title(plot.title, loc="left", color=INK, fontsize=9.5)
    ax.set_xlabel(plot.x, color=INK)
    ax.set_ylabel(plot.y, color=INK)
    legend(ax, columns=1 if len(own) > 3 else len(own))
