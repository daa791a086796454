"""Tables and verdicts as text that reads in a terminal and renders as Markdown."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from frontload.eval.tables.build import Number, Table, label_of
from frontload.eval.tables.verdict_text import MEASURES_TEXT
from frontload.eval.tables.verdicts import Shown, Verdict, VerdictPart

NOTHING = "-"
MEASURED_IN = f"`in` names the number that an effect is a difference of. {MEASURES_TEXT}"


@dataclass(frozen=True, kw_only=True)
class TextBudget:
    """How much SFT the study does for its pretraining reasoning data."""

    sft_tokens: int
    reasoning_pretraining_tokens: int

    @property
    def ratio(self) -> float | None:
        """SFT tokens for each pretraining reasoning token; None without the latter."""
        if not self.reasoning_pretraining_tokens:
            return None
        return self.sft_tokens / self.reasoning_pretraining_tokens

    def sentence(self) -> str:
        """The ratio in words, with the paper's own for scale."""
        if self.ratio is None:
            return f"{self.sft_tokens:,} SFT tokens, no reasoning tokens in pretraining."
        return (
            f"{self.sft_tokens:,} SFT tokens for {self.reasoning_pretraining_tokens:,} pretraining "
            f"reasoning tokens: {self.ratio:.2f} to 1. The paper: about 48B (SHQ) or 6B (LDQ) for "
            "80B, 0.60 or 0.08 to 1. This ratio decides much of the answer."
        )


def tables_markdown(
    tables: Sequence[Table], verdicts: Sequence[Verdict], *, budget: TextBudget, rule: str
) -> str:
    """All tables, then the verdicts."""
    parts = ["# Tables and verdicts", budget.sentence()]
    seeds = max((n.num_seeds for t in tables for row in t.rows for n in row.ours if n), default=0)
    error = (
        "with one training seed the error holds questions only"
        if seeds == 1
        else "the error joins training seeds and questions"
    )
    parts.append(
        f"Numbers are accuracies in % as `ours +- standard error (paper)`; {error}. "
        "`no answer %`: generations without a final answer."
    )
    parts += [table_text(table) for table in tables]
    parts += ["## Verdicts", textwrap.fill(rule, 100)]
    parts += [textwrap.fill(MEASURED_IN, 100), verdicts_text(verdicts)]
    return "\n\n".join(parts) + "\n"


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


def verdicts_text(verdicts: Sequence[Verdict]) -> str:
    """A line a hypothesis, one more a part where it has several; then what is said of each."""
    head = ["", "hypothesis", "effect, points", "in", "t", "needed", "n", "paper", "verdict"]
    grid = grid_text(head, [row for verdict in verdicts for row in _verdict_rows(verdict)])
    said = [
        textwrap.fill(f"- {name_of(verdict)} {verdict.verdict}: {verdict.detail}.", 100)
        for verdict in verdicts
        if verdict.effect is not None
    ]
    return "\n\n".join([grid, "\n".join(said)]).rstrip()


def name_of(verdict: Verdict) -> str:
    """`H03`."""
    return verdict.id.partition("_")[0]


def _verdict_rows(verdict: Verdict) -> list[list[str]]:
    """The verdict beside the number that it judges and no other."""
    name = name_of(verdict)
    effect = verdict.effect
    paper = NOTHING if verdict.paper_effect is None else f"{verdict.paper_effect:+.2f}"
    number = [effect_text(effect), verdict.measure]
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
        value = [effect_text(part.value), part.measure, *_judged(part), "", ""]
        said = "" if verdict.decided_by is None else part.verdict
        label = f"{part.label} > {part.threshold:g}"
        rows.append([f"{name} {place}/{len(verdict.parts)}", label, *value, said])
    return rows


def _judged(part: VerdictPart) -> list[str]:
    if part.t is None or part.value.se_seeds is None:
        return ["", ""]
    needed = part.critical if part.t >= 0 else part.critical_of_opposite
    return [f"{part.t:+.1f}", f"{needed:.2f}"]


def effect_text(effect: Shown | None) -> str:
    """`+12.30 +-4.56`."""
    return NOTHING if effect is None else f"{effect.value:+.2f} +-{effect.se:.2f}"


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
