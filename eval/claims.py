"""The paper's hypotheses and claims, judged on our cells."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from frontload.eval.cells import Cells, MissingCell
from frontload.eval.expressions import Expression, Finding
from frontload.eval.paper import paper_claims
from frontload.eval.stats import SIGNIFICANCE, SeededEstimate
from frontload.eval.tables import label_of

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
NOT_TESTABLE = "not testable here"
ONE_SEED = "one seed only"

MEASURES = {
    "pt.avg": "Average",
    "sft.avg": "Average",
    "rl.avg": "flat 8",
    "flat8.avg": "flat 8",
}
"""Metric of an effect -> the name of that number in the tables; others have their column's name."""

MEASURES_TEXT = (
    "Average: the mean of the category means. flat 8, on which RL is judged as in T3: the mean of "
    "all benchmarks but instruction following (Avg. in T3 and RL)."
)

METRIC = re.compile(r"'((?:\w+\.)+\w+)'\)")

VERDICTS = (SUPPORTED, NOT_SUPPORTED, ONE_SEED, NOT_TESTABLE)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A SeededEstimate in the form that is written and printed."""

    value: float
    se: float
    t: float | None
    degrees: float
    p_value: float
    seeds: tuple[float, ...]
    se_seeds: float | None
    se_items: float

    @classmethod
    def of(cls, estimate: SeededEstimate) -> "Shown":
        """Takes an estimate over."""
        return cls(
            value=estimate.value,
            se=estimate.se,
            t=estimate.t if estimate.se else None,
            degrees=estimate.degrees,
            p_value=estimate.p_value,
            seeds=estimate.seeds,
            se_seeds=estimate.se_seeds,
            se_items=estimate.se_items,
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison of a predicate."""

    text: str
    holds: bool
    shown: bool
    contradicted: bool
    margin: Shown


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One hypothesis on our cells."""

    id: str
    name: str
    statement: str
    verdict: str
    detail: str
    effect: Shown | None  # percentage points
    holds: bool | None  # of the measured numbers, errors aside
    survives_bonferroni: bool | None
    num_seeds: int
    num_items: int
    parts: tuple[Part, ...]
    paper_result: bool
    paper_effect: float | None
    caveat: str
    predicate: str
    effect_formula: str


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """One sentence of the paper as a number: as claimed, as its tables give it, as ours give it."""

    id: str
    text: str
    unit: str
    formula: str
    claimed: float | None
    from_paper_tables: float | None
    ours: Shown | None
    missing: str  # "" or why ours is None
    note: str


def measure_of(effect_formula: str) -> str:
    """What an effect is a difference of, as the tables call it: `Average`, `flat 8`, `math`."""
    metrics: list[str] = METRIC.findall(effect_formula)
    return " and ".join(dict.fromkeys(MEASURES.get(one, one.partition(".")[2]) for one in metrics))


def judge(cells: Cells, *, min_effect: float) -> list[Verdict]:
    """A verdict for every hypothesis of claims.json, in its order."""
    hypotheses = paper_claims()["hypotheses"]
    first = [_judge(cells, row, min_effect) for row in hypotheses]
    tested = sum(verdict.effect is not None for verdict in first)
    return [_with_bonferroni(verdict, tested) for verdict in first]


def recompute(cells: Cells) -> list[Recomputed]:
    """Every claim of claims.json that is a formula, on our cells."""
    return [_recompute(cells, row) for row in paper_claims()["claims"]]


def verdicts_json(
    verdicts: list[Verdict], claims: list[Recomputed], *, min_effect: float
) -> dict[str, Any]:
    """The form of verdicts.json."""
    tested = [verdict for verdict in verdicts if verdict.effect is not None]
    counts = Counter(verdict.verdict for verdict in verdicts)
    return {
        "format": 1,
        "rule": rule_text(len(tested), min_effect=min_effect),
        "min_effect": min_effect,
        "num_hypotheses": len(verdicts),
        "num_tested": len(tested),
        "significance_two_sided": SIGNIFICANCE,
        "expected_supported_by_chance": round(len(tested) * SIGNIFICANCE / 2, 3),
        "counts": {name: counts[name] for name in VERDICTS},
        "hypotheses": [asdict(verdict) for verdict in verdicts],
        "claims": [asdict(claim) for claim in claims],
    }


def rule_text(num_tested: int, *, min_effect: float) -> str:
    """How the verdicts were reached, in words."""
    points = "point" if min_effect == 1.0 else "points"
    tested = "1 hypothesis was" if num_tested == 1 else f"{num_tested} hypotheses were"
    chance = (
        f"{tested} tested: if none were true, about {num_tested * SIGNIFICANCE / 2:.1f} would "
        "still read supported."
        if num_tested
        else "This study has the cells of no hypothesis, so none was tested."
    )
    return (
        f"Supported: every comparison of the hypothesis holds by more than {min_effect:g} {points} "
        f"and its margin exceeds its error, t above the two-sided {SIGNIFICANCE:.0%} threshold of "
        "Student's t (1.96 or more; 4.3 when three seeds decide). The error joins the spread over "
        "training seeds with the spread over questions, paired by question. With one seed the "
        f"verdict is withheld. {chance}"
    )


def _judge(cells: Cells, row: Mapping[str, Any], min_effect: float) -> Verdict:
    predicate, effect = Expression(row["predicate"]), Expression(row["effect"])
    try:
        draws = effect.draws(cells)
        finding = predicate.find(cells, eps=min_effect)
    except MissingCell as missing:
        return Verdict(
            verdict=NOT_TESTABLE,
            detail=_lack(missing),
            effect=None,
            holds=None,
            survives_bonferroni=None,
            num_seeds=0,
            num_items=0,
            parts=(),
            **_constants(row),
        )
    verdict, detail = _verdict(finding, draws.num_seeds)
    return Verdict(
        verdict=verdict,
        detail=detail,
        effect=Shown.of(draws.estimate()),
        holds=finding.holds,
        survives_bonferroni=None,
        num_seeds=draws.num_seeds,
        num_items=draws.num_items,
        parts=tuple(_part(comparison) for comparison in finding.comparisons),
        **_constants(row),
    )


def _lack(missing: MissingCell) -> str:
    """What a study does not have, in the words of the tables."""
    name = MEASURES.get(missing.metric, missing.metric.partition(".")[2])
    return f"no {name} of {label_of(missing.cell)}"


def _constants(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "name", "statement", "paper_result", "paper_effect", "caveat", "predicate")
    return {name: row[name] for name in names} | {"effect_formula": row["effect"]}


def _verdict(finding: Finding, num_seeds: int) -> tuple[str, str]:
    weakest = min(comparison.margin.t for comparison in finding.comparisons)
    least = (
        f"; its weakest comparison has t = {weakest:+.1f}" if len(finding.comparisons) > 1 else ""
    )
    if finding.degree < 0:
        detail = "contradicted: the opposite holds beyond its error" + least
    elif finding.degree > 0:
        detail = "holds beyond its error"
    elif any(comparison.margin.se == 0 for comparison in finding.comparisons):
        detail = "undecided: the cells answer alike (floor or ceiling)"
    elif finding.holds:
        detail = "holds, within its error" + least
    else:
        detail = "does not hold, within its error" + least
    if num_seeds == 1:
        return ONE_SEED, f"{detail} (questions only)"
    return (SUPPORTED if finding.degree > 0 else NOT_SUPPORTED), detail


def _part(comparison: Any) -> Part:
    return Part(
        text=comparison.text,
        holds=comparison.holds,
        shown=comparison.shown,
        contradicted=comparison.contradicted,
        margin=Shown.of(comparison.margin),
    )


def _with_bonferroni(verdict: Verdict, num_tested: int) -> Verdict:
    """A conjunction is as strong as its weakest part: its p value is the largest of theirs."""
    if verdict.verdict != SUPPORTED:
        return verdict
    weakest = max(part.margin.p_value for part in verdict.parts)
    fields = {**verdict.__dict__, "survives_bonferroni": weakest < SIGNIFICANCE / num_tested}
    return Verdict(**fields)


def _recompute(cells: Cells, row: Mapping[str, Any]) -> Recomputed:
    ours, missing = None, ""
    formula = row["formula"] or row.get("arithmetic") or ""
    if row["formula"] is None:
        missing = "arithmetic on the paper's own sizes"
    else:
        try:
            ours = Shown.of(Expression(formula).draws(cells).estimate())
        except MissingCell as error:
            missing = _lack(error)
    return Recomputed(
        id=row["id"],
        text=row["text"],
        unit=row["unit"],
        formula=formula,
        claimed=row["paper_value"],
        from_paper_tables=row["recomputed_value"],
        ours=ours,
        missing=missing,
        note=row["note"],
    )
