"""What reinforcement learning changed: every RL cell beside the SFT cell that it started from."""

from frontload.eval.statistics.cells import Cells
from frontload.eval.statistics.score import AVERAGING_RULES
from frontload.eval.tables.build import Number, Table, TableRow, difference, label_of, measured

RL_METRICS = {
    "Avg.": "rl.avg",
    "math": "sft.math",
    "science": "sft.science",
    "code": "sft.code",
    "ins": "sft.ins",
    "inside SHQ": "sft.inside",
    "outside SHQ": "sft.outside",
    "pass@k": "sft.pass_at_k",
    "no answer %": "sft.format_failure",
}


def rl_table(cells: Cells) -> Table:
    """Before, after and the paired change, for each cell that has an RL stage."""
    rows: list[TableRow] = []
    for cell in cells.files:
        start, is_rl, _ = cell.partition(">rl:")
        if not is_rl:
            continue
        metrics = tuple(RL_METRICS.values())
        rows += [
            _row(label_of(start), start, tuple(measured(cells, start, m) for m in metrics)),
            _row(label_of(cell), cell, tuple(measured(cells, cell, m) for m in metrics)),
            _row("change", "", tuple(difference(cells, (cell, start), m) for m in metrics)),
        ]
    return Table(
        id="RL",
        caption="Before and after GRPO, on the same questions. The change is paired by question "
        "and seed. pass@k: share of questions with a right answer among the k samples.",
        source="this study",
        average_rule=AVERAGING_RULES["flat8"],
        columns=tuple(RL_METRICS),
        rows=tuple(rows),
        has_paper=False,
    )


def _row(label: str, cell: str, ours: tuple[Number | None, ...]) -> TableRow:
    return TableRow(label=label, cell=cell, ours=ours, paper=tuple(None for _ in ours), note="")
