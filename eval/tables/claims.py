"""The paper's hypotheses and claims, judged on our cells. What they say in words: verdict_text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from frontload.eval.statistics.cells import Cells, MissingCell
from frontload.eval.statistics.contrasts import Contrast, Estimated, estimate, least
from frontload.eval.statistics.expressions import ComparisonExpression, Expression, named_leaves
from frontload.eval.statistics.spread import SUITE_OF_STAGE, stage_of
from frontload.eval.statistics.stats import SIGNIFICANCE, critical_value, seeds_needed
from frontload.eval.tables.paper import paper_claims
from frontload.eval.tables.verdict_text import (
    contrast_label,
    detail_text,
    lack_text,
    measure_of,
    rule_text,
)
from frontload.eval.tables.verdicts import (
    CONTRADICTED,
    NOT_TESTABLE,
    ONE_SEED,
    SUPPORTED,
    UNDECIDED,
    VERDICTS,
    Recomputed,
    Shown,
    Verdict,
    VerdictPart,
)


def judge(
    cells: Cells, hypotheses: Sequence[Mapping[str, Any]], *, min_effect: float
) -> list[Verdict]:
    """A verdict for every hypothesis in the form of claims.json, in their order."""
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
        "format": 2,
        "rule": rule_text(len(tested), min_effect=min_effect),
        "min_effect": min_effect,
        "num_hypotheses": len(verdicts),
        "num_tested": len(tested),
        "significance_two_sided": SIGNIFICANCE,
        "expected_wrong_by_chance": round(len(tested) * SIGNIFICANCE / 2, 3),
        "counts": {name: counts[name] for name in VERDICTS},
        "hypotheses": [asdict(verdict) for verdict in verdicts],
        "claims": [asdict(claim) for claim in claims],
    }


def _judge(cells: Cells, row: Mapping[str, Any], min_effect: float) -> Verdict:
    effects = Expression(row["effect"]).contrasts()
    comparisons = Expression(row["predicate"]).comparisons()
    constants = {
        "id": row["id"],
        "name": row["name"],
        "statement": row["statement"],
        "measure": measure_of(named_leaves(effects)),
        "judges_effect": _same(effects, comparisons),
        "paper_result": row["paper_result"],
        "paper_effect": row["paper_effect"],
        "paper_caveat": row["caveat"],
        "predicate": row["predicate"],
        "effect_formula": row["effect"],
    }
    try:
        effect = least(cells, effects)
        found = [estimate(cells, comparison.gap.without_constants()) for comparison in comparisons]
    except MissingCell as missing:
        return _untested(lack_text(missing), constants)
    parts = tuple(
        _part(cells, comparison, one, min_effect=min_effect, num_parts=len(comparisons))
        for comparison, one in zip(comparisons, found, strict=True)
    )
    verdict = _verdict(parts, min(len(one.seeds) for one in found))
    decided_by = None if verdict == ONE_SEED else _deciding(parts, verdict)
    needed = _seeds_needed(effect, row["paper_effect"])
    return Verdict(
        verdict=verdict,
        detail=detail_text(
            verdict, parts, decided_by, paper_effect=row["paper_effect"], seeds_needed=needed
        ),
        effect=Shown.of(effect.estimate),
        holds=all(part.holds for part in parts),
        survives_bonferroni=None,
        num_seeds=len(effect.seeds),
        num_unpaired=max(one.num_unpaired for one in [effect, *found]),
        num_items=effect.num_items,
        parts=parts,
        decided_by=decided_by,
        seeds_needed=needed,
        **constants,
    )


def _untested(detail: str, constants: Mapping[str, Any]) -> Verdict:
    return Verdict(
        verdict=NOT_TESTABLE,
        detail=detail,
        effect=None,
        holds=None,
        survives_bonferroni=None,
        num_seeds=0,
        num_unpaired=0,
        num_items=0,
        parts=(),
        decided_by=None,
        seeds_needed=None,
        **constants,
    )


def _same(effects: Sequence[Contrast], comparisons: Sequence[ComparisonExpression]) -> bool:
    """Whether the effect is what is compared: then its number may stand beside the verdict."""
    compared = [comparison.gap.without_constants() for comparison in comparisons]
    return len(compared) == len(effects) and all(effect in compared for effect in effects)


def _part(
    cells: Cells,
    comparison: ComparisonExpression,
    found: Estimated,
    *,
    min_effect: float,
    num_parts: int,
) -> VerdictPart:
    gap, value = comparison.gap, found.estimate
    tested_against = 0.0 - gap.constant  # never -0
    threshold = tested_against - gap.eps * min_effect
    margin = replace(value, value=value.value - tested_against)
    holds = value.value > threshold if comparison.is_strict else value.value >= threshold
    opposite = critical_value(value.degrees, SIGNIFICANCE / num_parts)
    verdict = UNDECIDED
    if value.se > 0 and holds and margin.t > margin.critical:
        verdict = SUPPORTED
    elif value.se > 0 and margin.t < -opposite:
        verdict = CONTRADICTED
    return VerdictPart(
        label=contrast_label(gap),
        measure=measure_of(list(gap.weights)),
        value=Shown.of(value),
        threshold=threshold,
        tested_against=tested_against,
        t=margin.t if value.se else None,
        critical=margin.critical,
        critical_of_opposite=opposite,
        p_value=margin.p_value,
        holds=holds,
        verdict=verdict if len(found.seeds) > 1 else ONE_SEED,
        at_floor=all(_at_floor(cells, *leaf) for leaf in gap.weights),
    )


def _at_floor(cells: Cells, cell: str, metric: str) -> bool:
    """Whether a number is not above what the best constant answer gets, beyond 2 item errors."""
    floor = cells.floors().get(SUITE_OF_STAGE[stage_of(cell)], {}).get(metric)
    if floor is None:
        return False
    found = cells.draws(cell, metric).estimate()
    return found.value - floor <= 2 * found.se_items


def _verdict(parts: Sequence[VerdictPart], num_seeds: int) -> str:
    """All parts must be shown; one part whose opposite is shown contradicts."""
    if num_seeds == 1:
        return ONE_SEED
    verdicts = {part.verdict for part in parts}
    if verdicts == {SUPPORTED}:
        return SUPPORTED
    return CONTRADICTED if CONTRADICTED in verdicts else UNDECIDED


def _deciding(parts: Sequence[VerdictPart], verdict: str) -> int:
    """The weakest of the parts that make the verdict what it is."""
    places = [place for place, part in enumerate(parts) if part.verdict == verdict]
    return min(places, key=lambda place: (parts[place].t or 0.0) / parts[place].critical)


def _seeds_needed(effect: Estimated, paper_effect: float | None) -> int | None:
    if not paper_effect or effect.spread is None:
        return None
    return seeds_needed(
        paper_effect, variance=effect.spread.variance, se_items=effect.estimate.se_items
    )


def _with_bonferroni(verdict: Verdict, num_tested: int) -> Verdict:
    """A conjunction is as strong as its weakest part: its p value is the largest of theirs."""
    if verdict.verdict != SUPPORTED:
        return verdict
    weakest = max(part.p_value for part in verdict.parts)
    return replace(verdict, survives_bonferroni=weakest < SIGNIFICANCE / num_tested)


def _recompute(cells: Cells, row: Mapping[str, Any]) -> Recomputed:
    ours, missing = None, ""
    formula = row["formula"] or row.get("arithmetic") or ""
    if row["formula"] is None:
        missing = "arithmetic on the paper's own sizes"
    else:
        try:
            ours = Shown.of(least(cells, Expression(formula).contrasts()).estimate)
        except MissingCell as error:
            missing = lack_text(error)
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
