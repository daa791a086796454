"""What fine-tuning and RL forget: the base suite before and after each of them."""

from frontload.eval.statistics.cells import Cells
from frontload.eval.statistics.score import AVERAGING_RULES
from frontload.eval.tables.build import Table, TableRow, difference, label_of, measured

SUITE = {"average": "pt.avg", "gpr": "pt.gpr"}


def forgetting(cells: Cells) -> Table:
    """Each tuned cell that was asked the base suite, beside the cell that it started from."""
    rows: list[TableRow] = []
    for cell in cells.files:
        start, _, last = cell.rpartition(">")
        if not last or measured(cells, cell, "pt.avg") is None:
            continue
        ours = tuple(
            number
            for metric in SUITE.values()
            for number in (
                measured(cells, start, metric),
                measured(cells, cell, metric),
                difference(cells, (cell, start), metric),
            )
        )
        if any(ours[::3]):
            nothing = tuple(None for _ in ours)
            rows.append(
                TableRow(label=label_of(cell), cell=cell, ours=ours, paper=nothing, note="")
            )
    return Table(
        id="Forgetting",
        caption="The base suite, few-shot and without the chat template, before and after each "
        "fine-tuning or RL. A change below 0 is forgotten. gpr: general text, which neither SFT "
        "nor RL asks for. Changes are paired by question and seed.",
        source="this study",
        average_rule=AVERAGING_RULES["avg"],
        columns=tuple(f"{name} {when}" for name in SUITE for when in ("before", "after", "change")),
        rows=tuple(rows),
        has_paper=False,
    )
