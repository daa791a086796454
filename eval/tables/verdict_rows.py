"""Verdicts as rows of the report's page: grouped by measure, each group on an axis of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frontload.eval.tables.verdict_text import decimals_of
from frontload.eval.tables.verdicts import (
    CONTRADICTED,
    NOT_TESTABLE,
    ONE_SEED,
    SUPPORTED,
    UNDECIDED,
)

TONES = {
    SUPPORTED: "good",
    CONTRADICTED: "bad",
    UNDECIDED: "open",
    ONE_SEED: "open",
    NOT_TESTABLE: "none",
}
CARD_HYPOTHESES = (
    ("H02", "Reasoning data in pretraining still pays after SFT"),
    ("H03", "Twice the SFT does not catch up"),
    ("H04", "Broad LDQ beats narrow SHQ in pretraining"),
    ("H06", "Narrow SHQ beats LDQ and LMQ in SFT"),
)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Places on a group's axis, 0 to 1 from left to right; None where there is nothing."""

    zero: float
    low: float | None
    point: float | None
    high: float | None
    paper: float | None
    questions_only: bool  # one seed: the bar is hatched


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One comparison of a hypothesis that has several."""

    part: Mapping[str, Any]
    name: str  # "2 of 3"
    tone: str
    mark: Mark | None  # None in another measure than its group's


@dataclass(frozen=True, kw_only=True)
class VerdictRow:
    """One hypothesis: its verdict, and the number that the verdict judges if there is one."""

    row: Mapping[str, Any]
    tone: str
    judged: Mapping[str, Any] | None  # the one part, if there is one
    mark: Mark
    parts: tuple[PartRow, ...]


@dataclass(frozen=True, kw_only=True)
class VerdictGroup:
    """The hypotheses whose effects are differences of one measure, and the reach of their axis."""

    measure: str
    reach: float  # from 0 to either end, in the measure's unit
    rows: tuple[VerdictRow, ...]

    @property
    def ends(self) -> tuple[str, str]:
        """What stands at the two ends of the axis: `-12` and `+12 points`."""
        unit, form = ("nats", ".2f") if decimals_of(self.measure) > 2 else ("points", ".0f")
        return f"{-self.reach:{form}}", f"{self.reach:+{form}} {unit}"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One statement of the headline with what became of it."""

    statement: str
    answer: str
    number: str
    named: str  # what the number is
    verdict: str
    tone: str


def verdict_groups(rows: Sequence[Mapping[str, Any]]) -> list[VerdictGroup]:
    """Every hypothesis, by the measure of its effect, in the order in which measures first come."""
    measures = dict.fromkeys(row["measure"] for row in rows)
    return [
        _group(measure, [row for row in rows if row["measure"] == measure]) for measure in measures
    ]


def cards(rows: Sequence[Mapping[str, Any]]) -> list[Card]:
    """The four statements at the top, each beside the number that its verdict judges."""
    by_number = {row["id"].partition("_")[0]: row for row in rows}
    return [
        _card(statement, by_number[number], digits=1)
        for number, statement in CARD_HYPOTHESES
        if number in by_number
    ]


def own_cards(rows: Sequence[Mapping[str, Any]]) -> list[Card]:
    """The questions of a study of other data, the first four."""
    return [_card(row["statement"], row, digits=decimals_of(row["measure"])) for row in rows[:4]]


def _card(statement: str, row: Mapping[str, Any], *, digits: int) -> Card:
    value, named = _card_number(row)
    return Card(
        statement=statement,
        answer=row["detail"],
        number="-"
        if value is None
        else f"{value['value']:+.{digits}f} +- {value['se']:.{digits}f}",
        named=named,
        verdict=row["verdict"],
        tone=TONES[row["verdict"]],
    )


def _card_number(row: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    if row["effect"] is None:
        return None, ""
    if row["judges_effect"] or row["decided_by"] is None:
        return row["effect"], _unit(row["measure"])
    part = row["parts"][row["decided_by"]]
    return part["value"], f"{_unit(part['measure'])}, {part['label']}"


def _unit(measure: str) -> str:
    """A loss has its unit in its name."""
    return measure if decimals_of(measure) > 2 else f"points of {measure}"


def _group(measure: str, rows: Sequence[Mapping[str, Any]]) -> VerdictGroup:
    ours = [row["effect"] for row in rows if row["effect"]]
    ours += [part["value"] for row in rows for part in row["parts"] if part["measure"] == measure]
    reaches = [abs(one["value"]) + one["critical"] * one["se"] for one in ours]
    reaches += [abs(row["paper_effect"] or 0.0) for row in rows]
    reach = max(reaches) or 1.0
    return VerdictGroup(
        measure=measure, reach=reach, rows=tuple(_verdict_row(row, measure, reach) for row in rows)
    )


def _verdict_row(row: Mapping[str, Any], measure: str, reach: float) -> VerdictRow:
    parts = row["parts"]
    several = len(parts) > 1
    return VerdictRow(
        row=row,
        tone=TONES[row["verdict"]],
        judged=parts[0] if len(parts) == 1 else None,
        mark=_mark(row["effect"], paper=row["paper_effect"], reach=reach),
        parts=tuple(
            PartRow(
                part=part,
                name=f"{place} of {len(parts)}",
                tone=TONES[part["verdict"]],
                mark=(
                    _mark(part["value"], paper=None, reach=reach)
                    if part["measure"] == measure
                    else None
                ),
            )
            for place, part in enumerate(parts, start=1)
            if several
        ),
    )


def _mark(shown: Mapping[str, Any] | None, *, paper: float | None, reach: float) -> Mark:
    """The 95% bar is the verdict's own: its critical value times the error."""

    def at(value: float) -> float:
        return 0.5 + 0.48 * value / reach

    low = point = high = None
    if shown:
        half = shown["critical"] * shown["se"]
        low, point, high = (at(shown["value"] + side * half) for side in (-1.0, 0.0, 1.0))
    return Mark(
        zero=at(0.0),
        low=low,
        point=point,
        high=high,
        paper=None if paper is None else at(paper),
        questions_only=bool(shown) and shown["se_seeds"] is None,
    )
