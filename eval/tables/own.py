"""Tables of a study of other data than the paper's: its own benchmarks, nothing of the paper."""

from collections.abc import Sequence

from frontload.eval.statistics.cells import Cells
from frontload.eval.tables.build import (
    STAGE_METRICS,
    Number,
    Table,
    TableRow,
    guessing,
    label_of,
    measured,
)


def own_tables(cells: Cells) -> list[Table]:
    """Every cell by benchmark, the held-out loss, and what guessing gets."""
    found = [_own_cells(cells), _own_heldout(cells), guessing(cells)]
    return [table for table in found if table.rows]


def _own_cells(cells: Cells) -> Table:
    """Every cell by the benchmarks of a study of other data."""
    names = sorted({m for cell in cells.files for m in cells.metrics(cell) if "bench." in m})
    failures = [f"{stage}.format_failure" for stage in STAGE_METRICS]
    rows = []
    for cell in cells.files:
        ours = [measured(cells, cell, name) for name in names]
        failed = [n for n in (measured(cells, cell, name) for name in failures) if n is not None]
        if any(ours):
            ours.append(failed[-1] if failed else None)
            rows.append(_own_row(cell, ours))
    return Table(
        id="Cells",
        caption="Every cell of this study, in % of its questions.",
        source="this study",
        average_rule="none: one benchmark a column",
        columns=(*(name.removeprefix("bench.") for name in names), "no answer %"),
        rows=tuple(rows),
        has_paper=False,
    )


def _own_heldout(cells: Cells) -> Table:
    metrics = ("heldout.loss", "heldout.step_accuracy")
    found = {cell: [measured(cells, cell, name) for name in metrics] for cell in cells.files}
    return Table(
        id="Heldout",
        caption="Held-out worked answers: loss in nats per token, and % of tokens ranked first. "
        "The same documents before and after SFT.",
        source="this study",
        average_rule="all tokens weigh the same",
        columns=("loss", "steps %"),
        rows=tuple(_own_row(cell, ours) for cell, ours in found.items() if any(ours)),
        decimals=3,
        has_paper=False,
    )


def _own_row(cell: str, ours: Sequence[Number | None]) -> TableRow:
    nothing = tuple(None for _ in ours)
    return TableRow(label=label_of(cell), cell=cell, ours=tuple(ours), paper=nothing, note="")
