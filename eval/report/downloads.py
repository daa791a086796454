"""The tables of a report to take away: CSV with a line a number, and LaTeX."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import replacing
from frontload.eval.report.number_tips import NATS, PERCENT, NumberTips, unit_of
from frontload.eval.report.origins import ReportOrigin, member_cells
from frontload.eval.report.seed_values import seed_values
from frontload.eval.tables.build import label_of

NUMBER_FIELDS = (
    "table", "row", "cell", "column", "unit", "value", "se", "num_seeds", "num_items", "paper",
    "evaluations",
)  # fmt: skip
METRIC_FIELDS = (
    "cell", "label", "metric", "unit", "value", "se", "se_seeds", "se_items", "num_items", "seed",
    "seed_value", "evaluation",
)  # fmt: skip
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "[": "{[}",
    "]": "{]}",
}
"""Brackets stand in braces: after a line's end they would be its optional argument."""


def write_downloads(
    folder: Path,
    tables: Sequence[Mapping[str, Any]],
    *,
    tips: NumberTips,
    origins: Mapping[str, Sequence[ReportOrigin]],
    study_name: str,
) -> dict[str, tuple[str, str]]:
    """Writes TABLE.csv and TABLE.tex of each table with numbers, and metrics.csv of all cells.

    Returns table -> names of its two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (*folder.glob("*.csv"), *folder.glob("*.tex")):
        stale.unlink()
    made: dict[str, tuple[str, str]] = {}
    for table in tables:
        lines = list(_number_rows(table, tips=tips, origins=origins))
        if not any(line["value"] != "" for line in lines):
            continue
        names = (f"{table['id']}.csv", f"{table['id']}.tex")
        _write(folder / names[0], csv_text(NUMBER_FIELDS, lines))
        _write(folder / names[1], latex_table(table, study_name=study_name))
        made[table["id"]] = names
    lines = _metric_rows(tips.cells, origins)
    _write(folder / "metrics.csv", csv_text(METRIC_FIELDS, lines))
    return made


def csv_text(fields: Sequence[str], lines: Iterator[Mapping[str, Any]] | Sequence[Any]) -> str:
    """A head and a line each, as RFC 4180 quotes them but with newlines alone at line ends."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _number_rows(
    table: Mapping[str, Any], *, tips: NumberTips, origins: Mapping[str, Sequence[ReportOrigin]]
) -> Iterator[dict[str, Any]]:
    """A line for each number that we or the paper have."""
    for row in table["rows"]:
        for place, column in enumerate(table["columns"]):
            number, paper = row["ours"][place], row["paper"][place]
            if number is None and paper is None:
                continue
            cell = tips.cell(row, column)
            asked = [one for name in member_cells(cell) for one in origins.get(name, ())]
            ours = number or dict.fromkeys(("value", "se", "num_seeds", "num_items"), "")
            yield {
                "table": table["id"],
                "row": row["label"],
                "cell": cell,
                "column": column,
                "unit": unit_of(row, column),
                **{name: _plain(ours[name]) for name in ("value", "se", "num_seeds", "num_items")},
                "paper": _plain(paper),
                "evaluations": " ".join(one.evaluation for one in asked),
            }


def _metric_rows(
    cells: Mapping[str, Any], origins: Mapping[str, Sequence[ReportOrigin]]
) -> Iterator[dict[str, Any]]:
    """A line for each metric of each cell and seed."""
    for cell, metrics in cells.items():
        asked = {one.seed: one.evaluation for one in origins.get(cell, ())}
        for name, metric in metrics.items():
            shared = {
                field: _plain(metric[field])
                for field in ("value", "se", "se_seeds", "se_items", "num_items")
            }
            for seed, value in seed_values(metric).items():
                yield {
                    "cell": cell,
                    "label": label_of(cell),
                    "metric": name,
                    "unit": NATS if name.startswith("heldout.loss") else PERCENT,
                    **shared,
                    "seed": seed,
                    "seed_value": value,
                    "evaluation": asked.get(seed, ""),
                }


def _plain(value: Any) -> Any:
    """A field of a CSV: empty for None."""
    return "" if value is None else value


def latex_table(table: Mapping[str, Any], *, study_name: str) -> str:
    """A `table` that needs no package: ours, its error, and the paper's number in brackets."""
    decimals = table["decimals"]
    head = ["", *table["columns"], "seeds"]
    lines = []
    for row in table["rows"]:
        if not any(row["ours"]):
            continue
        numbers = [
            _latex_number(ours, paper, decimals)
            for ours, paper in zip(row["ours"], row["paper"], strict=True)
        ]
        seeds = max(number["num_seeds"] for number in row["ours"] if number)
        lines.append(" & ".join([escape_latex(row["label"]), *numbers, str(seeds)]) + r" \\")
    brackets = " In brackets: the paper's 8B models." if table["has_paper"] else ""
    caption = f"{table['caption']} Study {study_name}; one standard error.{brackets}"
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\label{{tab:{table['id']}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\hline",
            " & ".join(map(escape_latex, head)) + r" \\",
            r"\hline",
            *lines,
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Text whose every character prints as itself."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def _latex_number(ours: Mapping[str, Any] | None, paper: float | None, decimals: int) -> str:
    if ours is None:
        text = "--"
    elif ours["se"] is None:
        text = f"${ours['value']:.{decimals}f}$"
    else:
        text = rf"${ours['value']:.{decimals}f} \pm {ours['se']:.{decimals}f}$"
    return text if paper is None else f"{text} ({paper:.2f})"


def _write(path: Path, text: str) -> None:
    with replacing(path, "w") as stream:
        stream.write(text)
