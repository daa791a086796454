"""A comparison as text for a terminal and as one page."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from frontload.data_tools.disk.files import replacing
from frontload.eval.report.compare import ERRORS_TEXT, Difference, MeasuredCell, StudyComparison
from frontload.eval.report.templates import resource, template
from frontload.eval.tables.build import label_of
from frontload.eval.tables.text import NOTHING, grid_text

SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Average", ("pt.avg", "sft.avg")),
    ("Held-out loss", ("heldout.loss",)),
    ("Held-out loss inside SHQ's families", ("heldout.loss.inside",)),
    ("Held-out loss outside SHQ's families", ("heldout.loss.outside",)),
    ("math", ("pt.math", "sft.math")),
    ("science", ("pt.science", "sft.science")),
    ("code", ("pt.code", "sft.code")),
    ("gpr and ins", ("pt.gpr", "sft.ins")),
    ("inside SHQ's families", ("pt.inside", "sft.inside")),
    ("outside SHQ's families", ("pt.outside", "sft.outside")),
    ("no answer", ("pt.format_failure", "sft.format_failure")),
)
"""Title -> the metrics under it: one a suite."""

IN_TEXT = 2  # sections that a terminal shows
SAME = "same"


def write_comparison(comparison: StudyComparison, out: Path) -> Path:
    """Writes compare.json, compare.md and last compare.html, which is returned."""
    out.mkdir(parents=True, exist_ok=True)
    text = template("compare.html.jinja").render(
        comparison=comparison,
        sections=sections(comparison),
        errors=ERRORS_TEXT,
        one_seed=one_seed_text(comparison),
        label_of=label_of,
        css=resource("report.css"),
        script=resource("report.js"),
    )
    for name, content in (
        ("compare.json", json.dumps(comparison.to_json(), indent=1) + "\n"),
        ("compare.md", comparison_text(comparison)),
        ("compare.html", text),
    ):
        with replacing(out / name, "w") as stream:
            stream.write(content)
    return out / "compare.html"


def sections(comparison: StudyComparison) -> list[tuple[str, list[Difference]]]:
    """The sections that have a difference."""
    found = [(title, comparison.of_metric(*metrics)) for title, metrics in SECTIONS]
    return [(title, rows) for title, rows in found if rows]


def one_seed_text(comparison: StudyComparison) -> str:
    """What the errors of a study of one seed leave out; "" where none has."""
    alone = [
        name
        for place, name in enumerate(comparison.names)
        if any((one.first, one.second)[place].num_seeds == 1 for one in comparison.differences)
    ]
    if not alone:
        return ""
    return (
        f"One training seed: the errors of {' and '.join(dict.fromkeys(alone))} hold questions "
        "only, and the spread over seeds is larger."
    )


def comparison_text(comparison: StudyComparison) -> str:
    """Averages, held-out losses, verdicts and fields as Markdown."""
    first, second = comparison.names
    parts = [f"# {first} and {second}", textwrap.fill(ERRORS_TEXT, 100)]
    if one_seed := one_seed_text(comparison):
        parts.append(textwrap.fill(one_seed, 100))
    for title, rows in sections(comparison)[:IN_TEXT]:
        unit = rows[0].unit
        head = [f"{title}, {'%' if unit == 'points' else unit}", first, second]
        head += [f"difference, {unit}", "seeds", "questions"]
        parts.append(grid_text(head, [_row(row) for row in rows]))
    for name, cells in ((first, comparison.only_first), (second, comparison.only_second)):
        if cells:
            told = f"Only in {name}: {', '.join(map(label_of, cells))}."
            parts.append(textwrap.fill(told, 100))
    rows = [
        [pair.id.split("_")[0], pair.name, pair.first or NOTHING, pair.second or NOTHING]
        for pair in comparison.verdicts
    ]
    if comparison.rules:
        parts.append(textwrap.fill(comparison.rules, 100))
    if rows:
        parts.append(grid_text(["", "hypothesis", first, second], rows))
    parts.append(_fields_text(comparison))
    return "\n\n".join(parts) + "\n"


def number_text(number: MeasuredCell, *, unit: str) -> str:
    """`41.2 +-2.1`, a loss with three decimals."""
    decimals = 1 if unit == "points" else 3
    return f"{number.value:.{decimals}f} +-{number.se:.{decimals}f}"


def difference_text(row: Difference) -> str:
    """`+1.2 +-2.1`, or that both numbers are of the same evaluations."""
    if row.is_same:
        return SAME
    decimals = 1 if row.unit == "points" else 3
    return f"{row.value:+.{decimals}f} +-{row.se:.{decimals}f}"


def _row(row: Difference) -> list[str]:
    return [
        label_of(row.cell),
        number_text(row.first, unit=row.unit),
        number_text(row.second, unit=row.unit),
        difference_text(row),
        counts_text(row.first.num_seeds, row.second.num_seeds),
        counts_text(row.first.num_items, row.second.num_items),
    ]


def counts_text(first: int, second: int) -> str:
    """One count where both are equal, else both."""
    return str(first) if first == second else f"{first}, {second}"


def _fields_text(comparison: StudyComparison) -> str:
    if comparison.fields is None:
        unknown = " and ".join(comparison.without_recipe)
        return f"The recipe of {unknown} is not known here, so the fields are not compared."
    if not comparison.fields:
        return "The recipes have no field that differs."
    rows: Sequence[Sequence[str]] = [[p.field, p.first, p.second] for p in comparison.fields]
    return grid_text(["field of the recipe", *comparison.names], rows)
