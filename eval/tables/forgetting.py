"""What fine-tuning and RL forget, and how new each SFT set is to each base."""

import math
from collections.abc import Mapping, Sequence

from frontload.eval.asking.set_loss import SetLoss
from frontload.eval.statistics.cells import Cells
from frontload.eval.statistics.score import AVERAGING_RULES
from frontload.eval.tables.build import Number, Table, TableRow, difference, label_of, measured

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


def set_loss_table(found: Mapping[str, Mapping[str, Sequence[SetLoss]]]) -> Table:
    """Base -> set -> its loss at each seed, as perplexity."""
    sets = sorted({name for by_set in found.values() for name in by_set})
    rows = [
        TableRow(
            label=label_of(cell),
            cell=cell,
            ours=tuple(_perplexity(by_set.get(name, ())) for name in sets),
            paper=tuple(None for _ in sets),
            note="",
        )
        for cell, by_set in found.items()
    ]
    return Table(
        id="Set perplexity",
        caption="Perplexity of the answers of each SFT set under each pretrained model before SFT. "
        "1: known by heart. The same conversations for every model of a seed.",
        source="this study",
        average_rule="all answer tokens of the sampled conversations weigh the same",
        columns=tuple(sets),
        rows=tuple(rows),
        decimals=3,
        has_paper=False,
    )


def _perplexity(by_seed: Sequence[SetLoss]) -> Number | None:
    """exp of the mean loss; its error by the slope of exp, over conversations and seeds alone."""
    if not by_seed:
        return None
    count = len(by_seed)
    value = math.exp(sum(one.loss for one in by_seed) / count)
    items = math.sqrt(sum((one.se or 0.0) ** 2 for one in by_seed)) / count
    mean = sum(one.loss for one in by_seed) / count
    seeds = 0.0
    if count > 1:
        variance = sum((one.loss - mean) ** 2 for one in by_seed) / (count - 1)
        seeds = math.sqrt(variance / count)
    return Number(
        value=value,
        se=value * max(items, seeds),
        num_seeds=count,
        num_items=sum(one.num_conversations for one in by_seed),
    )
