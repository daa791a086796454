"""Tables and verdicts as text that reads in a terminal and renders as Markdown."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from frontload.eval.tables.build import Number, Table, label_of
from frontload.eval.tables.controls import Control
from frontload.eval.tables.ledger import LedgerEntry
from frontload.eval.tables.verdict_text import MEASURES_TEXT, decimals_of
from frontload.eval.tables.verdicts import ONE_SEED, Shown, Verdict, VerdictPart
from frontload.eval.tables.views import INSIDE, OUTSIDE, VIEWS, VIEWS_TEXT, View, ViewedHypothesis

NOTHING = "-"
MEASURED_IN = f"`in` names the number that an effect is a difference of. {MEASURES_TEXT}"


CONTROLS_TEXT = (
    "Comparisons that the paper lacks. Each asks whether a hypothesis holds for the reason in its "
    "name; a hypothesis repeats what its controls found."
)
LEDGER_TEXT = (
    "Tokens that each cell has read at its first seed: reasoning data in pretraining, and SFT. "
    "Read: tokens, each as often as it was read, padding left out. Loss: the answer tokens among "
    "them. Distinct: each token once. Epochs: passes over the set. FLOPs: of these tokens in "
    "pretraining and SFT, without padding; RL is not counted. In brackets: without weights that "
    "stay 0, as sparse pretraining keeps some."
)
DRAWS_TEXT = {
    False: "All seeds read one draw of the data: the spread over draws is in no error. ",
    True: "Each seed reads a draw of the data of its own: the spread over draws is in the error. ",
}
LEDGER_HEAD = (
    "",
    "pretraining",
    "reasoning in it",
    "distinct",
    "epochs",
    "SFT read",
    "with loss",
    "distinct",
    "epochs",
    "padding",
    "FLOPs",
)


@dataclass(frozen=True, kw_only=True)
class TextTables:
    """What stands on a page of tables."""

    tables: Sequence[Table]
    verdicts: Sequence[Verdict]
    views: Sequence[ViewedHypothesis]
    controls: Sequence[Control]
    ledger: Sequence[LedgerEntry]
    rule: str
    draws_data_per_seed: bool
    with_paper: bool  # a study of the paper's sets: its numbers stand beside ours


def tables_markdown(found: TextTables) -> str:
    """The ledger, all tables, then the verdicts."""
    parts = ["# Tables and verdicts"]
    if found.ledger:
        parts += ["## Ledger", textwrap.fill(LEDGER_TEXT, 100), ledger_text(found.ledger)]
    numbers = (n for table in found.tables for row in table.rows for n in row.ours if n)
    seeds = max((number.num_seeds for number in numbers), default=0)
    error = (
        "with one training seed the error holds questions only"
        if seeds == 1
        else "the error joins training seeds and questions"
    )
    draw = DRAWS_TEXT[found.draws_data_per_seed] if seeds > 1 else ""
    form = "`ours +- standard error (paper)`" if found.with_paper else "`value +- standard error`"
    parts.append(
        f"Numbers are accuracies in % as {form}; {error}. {draw}"
        "`no answer %`: generations without a final answer."
    )
    parts += [table_text(table) for table in found.tables]
    parts += ["## Verdicts", textwrap.fill(found.rule, 100)]
    if found.with_paper:
        parts.append(textwrap.fill(MEASURED_IN, 100))
    parts.append(verdicts_text(found.verdicts, with_paper=found.with_paper))
    if found.views:
        parts += ["## Verdicts by part", textwrap.fill(VIEWS_TEXT, 100), views_text(found.views)]
    if found.controls:
        parts += ["## Controls", textwrap.fill(CONTROLS_TEXT, 100), controls_text(found.controls)]
    return "\n\n".join(parts) + "\n"


def controls_text(controls: Sequence[Control]) -> str:
    """The controls as verdicts are printed, then what each means for which hypotheses."""
    grid = verdicts_text([control.verdict for control in controls], with_paper=False)
    readings = [
        textwrap.fill(
            f"- {one.verdict.id} bears on {', '.join(one.bears_on)}: {one.verdict.statement}"
            + (f". {one.reading[0].upper()}{one.reading[1:]}." if one.reading else "."),
            100,
        )
        for one in controls
    ]
    return "\n\n".join([grid, "\n".join(readings)])


def views_text(found: Sequence[ViewedHypothesis]) -> str:
    """A line a hypothesis: its verdict, then effect and verdict in each view."""
    rows = []
    for row in found:
        by_view = {one.view: one for one in row.views}
        shown = [view_text(by_view[name]) if name in by_view else NOTHING for name in VIEWS]
        rows.append([name_of(row), row.name, row.verdict, *shown])
    return grid_text(["", "hypothesis", "as judged", *VIEWS], rows)


def view_text(view: View) -> str:
    """`+1.20 +-0.40 supported`; of one seed without the word."""
    digits = 2 if view.view in (INSIDE, OUTSIDE) else 3
    number = f"{view.effect.value:+.{digits}f} +-{view.effect.se:.{digits}f}"
    return number if view.verdict == ONE_SEED else f"{number} {view.verdict}"


def ledger_text(entries: Sequence[LedgerEntry]) -> str:
    """A line a cell."""
    return grid_text(LEDGER_HEAD, [ledger_row(entry) for entry in entries])


def ledger_row(entry: LedgerEntry) -> list[str]:
    """The numbers of a cell in the order of LEDGER_HEAD."""
    sources, sft = entry.reasoning, entry.sft
    distinct = sum(one.distinct_tokens for one in sources)
    epochs = ", ".join(f"{one.source} {one.epochs:.2f}" for one in sources)
    pretraining = [f"{entry.reasoning_tokens:,}", f"{distinct:,}", epochs]
    tuned = [NOTHING] * 5
    if sft is not None:
        counts = (sft.tokens, sft.loss_tokens, sft.distinct_tokens)
        tuned = [f"{count:,}" for count in counts]
        tuned += [f"{sft.epochs:.2f}", f"{100 * sft.padding_share:.1f}%"]
    return [
        entry.label,
        f"{entry.pretraining_tokens:,}",
        *(pretraining if sources else [NOTHING] * 3),
        *tuned,
        f"{entry.training_flops:.3g}"
        + (f" ({entry.sparse_flops:.3g})" if entry.sparse_flops else ""),
    ]


def table_text(table: Table) -> str:
    """One table with its caption, rule and notes."""
    if not any(any(row.ours) for row in table.rows):
        body = (
            f"no cell of it in this study: {', '.join(models_of(row.cell for row in table.rows))}."
        )
    else:
        head = ["", *table.columns, "seeds"]
        rows = [
            [
                row.label,
                *(
                    cell_text(ours, paper, decimals=table.decimals)
                    for ours, paper in zip(row.ours, row.paper, strict=True)
                ),
                str(max((number.num_seeds for number in row.ours if number), default=0)),
            ]
            for row in table.rows
        ]
        body = grid_text(head, rows)
    notes = [f"{row.label}: {row.note}" for row in table.rows if row.note]
    lines = [f"## {table.id}", textwrap.fill(table.caption, 100)]
    if table.in_paper:
        lines.append(textwrap.fill(f"In the paper: {table.in_paper}", 100))
    lines.append(textwrap.fill(f"Average: {table.average_rule}. Source: {table.source}.", 100))
    lines += [body, *[textwrap.fill(f"In the paper, {note}", 100) for note in notes]]
    return "\n\n".join(lines)


def models_of(cells: Iterable[str]) -> list[str]:
    """The models behind cells, by our names, each once."""
    return list(dict.fromkeys(map(label_of, cells)))


def cell_text(ours: Number | None, paper: float | None, *, decimals: int) -> str:
    """`41.2 +-2.1 (52.70)`, with what is missing left out."""
    text = NOTHING if ours is None else f"{ours.value:.{decimals}f}"
    if ours is not None and ours.se is not None:
        text += f" +-{ours.se:.{decimals}f}"
    return text if paper is None else f"{text} ({paper:.2f})"


def verdicts_text(verdicts: Sequence[Verdict], *, with_paper: bool = True) -> str:
    """A line a hypothesis, one more a part where it has several; then what is said of each."""
    head = ["", "hypothesis", "effect, points", "in", "t", "needed", "n", "paper", "verdict"]
    rows = [row for verdict in verdicts for row in _verdict_rows(verdict)]
    if not with_paper:
        head[2], place = "effect", head.index("paper")
        head, *rows = [row[:place] + row[place + 1 :] for row in [head, *rows]]
    grid = grid_text(head, rows)
    said = [
        textwrap.fill(f"- {name_of(verdict)} {verdict.verdict}: {verdict.detail}.", 100)
        for verdict in verdicts
        if verdict.effect is not None
    ]
    return "\n\n".join([grid, "\n".join(said)]).rstrip()


def name_of(verdict: Verdict | ViewedHypothesis) -> str:
    """`H03`."""
    return verdict.id.partition("_")[0]


def _verdict_rows(verdict: Verdict) -> list[list[str]]:
    """The verdict beside the number that it judges and no other."""
    name = name_of(verdict)
    effect = verdict.effect
    paper = NOTHING if verdict.paper_effect is None else f"{verdict.paper_effect:+.2f}"
    number = [effect_text(effect, verdict.measure), verdict.measure]
    counted = [counted_text(verdict) if effect else NOTHING, paper]
    if len(verdict.parts) < 2:
        judged = _judged(verdict.parts[0]) if verdict.parts else ["", ""]
        return [[name, verdict.name, *number, *judged, *counted, verdict.verdict]]
    if verdict.judges_effect:
        rows = [[name, verdict.name, *number, "", "", *counted, verdict.verdict]]
    else:
        rows = [
            [name, verdict.name, "", "", "", "", "", "", verdict.verdict],
            [f"{name} effect", "as the paper measures it", *number, "", "", *counted, ""],
        ]
    for place, part in enumerate(verdict.parts, start=1):
        value = [effect_text(part.value, part.measure), part.measure, *_judged(part), "", ""]
        said = "" if verdict.decided_by is None else part.verdict
        label = f"{part.label} > {part.threshold:g}"
        rows.append([f"{name} {place}/{len(verdict.parts)}", label, *value, said])
    return rows


def _judged(part: VerdictPart) -> list[str]:
    if part.t is None or part.value.se_seeds is None:
        return ["", ""]
    needed = part.critical if part.t >= 0 else part.critical_of_opposite
    return [f"{part.t:+.1f}", f"{needed:.2f}"]


def effect_text(effect: Shown | None, measure: str = "") -> str:
    """`+12.30 +-4.56`; a loss has a digit more."""
    if effect is None:
        return NOTHING
    digits = decimals_of(measure)
    return f"{effect.value:+.{digits}f} +-{effect.se:.{digits}f}"


def counted_text(verdict: Verdict) -> str:
    """Seeds x questions, and the seeds that were left out for want of a partner."""
    unpaired = f", {verdict.num_unpaired} unpaired" if verdict.num_unpaired else ""
    return f"{verdict.num_seeds} x {verdict.num_items}{unpaired}"


def grid_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: text to the left, the rest to the right."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [("-" * width) if place == 0 else ("-" * (width - 1) + ":") for place, width in
            enumerate(max(width, 2) for width in widths)]  # fmt: skip
    return "\n".join([line(head), "| " + " | ".join(rule) + " |", *[line(row) for row in rows]])
