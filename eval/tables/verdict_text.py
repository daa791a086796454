"""What verdicts say in words: measures, labels of comparisons, details, the rule."""

from collections.abc import Sequence

from frontload.eval.statistics.cells import Leaf, MissingCell
from frontload.eval.statistics.contrasts import Contrast
from frontload.eval.statistics.stats import FOUND, PRIOR_DEGREES, SIGNIFICANCE
from frontload.eval.tables.build import label_of
from frontload.eval.tables.verdicts import CONTRADICTED, SUPPORTED, VerdictPart

MEASURES = {
    "pt.avg": "Average, base suite",
    "sft.avg": "Average, SFT suite",
    "rl.avg": "flat 8",
    "flat8.avg": "flat 8",
    "flat9.avg": "flat 9",
    "heldout.loss": "held-out loss, nats per token",
}
"""Metric -> its name as a measure; others are named by their column and suite."""

SUITES = {"pt": "base suite", "sft": "SFT suite"}

MEASURES_TEXT = (
    "Average: the mean of the category means; the base suite and the SFT suite ask different "
    "questions. flat 8, on which RL is judged as in T3: the mean of all benchmarks but instruction "
    "following (Avg. in T3 and RL)."
)


def measure_of(leaves: Sequence[Leaf]) -> str:
    """What an effect is a difference of: `Average, SFT suite`, `flat 8`, `math, SFT suite`."""
    return " and ".join(dict.fromkeys(measure_name(metric) for _, metric in leaves))


def measure_name(metric: str) -> str:
    """One metric as a measure."""
    prefix, _, column = metric.partition(".")
    named = f"{column}, {SUITES[prefix]}" if prefix in SUITES else metric
    return MEASURES.get(metric, named)


def decimals_of(measure: str) -> int:
    """Digits behind the point of an effect in a measure: points of accuracy, or nats."""
    return 3 if measure == MEASURES["heldout.loss"] else 2


def contrast_label(contrast: Contrast) -> str:
    """`M_LDQ over M_base`; each of two differences in brackets, other sums with their weights."""
    above = [cell for (cell, _), weight in contrast.weights.items() if weight == 1]
    below = [cell for (cell, _), weight in contrast.weights.items() if weight == -1]
    if len(above) + len(below) < len(contrast.weights) or len(above) != len(below):
        return " ".join(
            f"{weight:+g} x {label_of(cell)}" for (cell, _), weight in contrast.weights.items()
        )
    if len(above) == 1:
        return f"{label_of(above[0])} over {label_of(below[0])}"
    first, second = (" and ".join(map(label_of, names)) for names in (above, below))
    return f"[{first}] over [{second}]"


def lack_text(missing: MissingCell) -> str:
    """What a study does not have, in the words of the tables."""
    return missing.reason or f"no {measure_name(missing.metric)} of {label_of(missing.cell)}"


def detail_text(
    verdict: str,
    parts: Sequence[VerdictPart],
    decided_by: int | None,
    *,
    paper_effect: float | None,
    seeds_needed: int | None,
) -> str:
    """Why the verdict is what it is; with one seed, how many would be needed instead."""
    if decided_by is None:
        return one_seed_text(paper_effect, seeds_needed)
    part = parts[decided_by]
    if len(parts) == 1:
        return part_text(part)
    if verdict == SUPPORTED:
        weakest = f"{part.label} in {part.measure}"
        every = "both" if len(parts) == 2 else f"all {len(parts)}"
        return f"{every} parts hold beyond their errors; the weakest is {weakest}"
    held = sum(one.verdict == SUPPORTED for one in parts)
    which = f"part {decided_by + 1} of {len(parts)}, {part.label} in {part.measure}"
    if verdict == CONTRADICTED:
        return f"{which}: {part_text(part)}"
    return f"{held} of {len(parts)} parts hold beyond their errors; {which}: {part_text(part)}"


def part_text(part: VerdictPart) -> str:
    """Why a comparison has its verdict, in the form `... 3.7 errors from 0, 4.30 are needed`."""
    distance = "" if part.t is None else f"{abs(part.t):.1f} errors from {part.tested_against:g}"
    needed = f"{part.critical:.2f} are needed"
    if part.verdict == SUPPORTED:
        return f"holds beyond its error: {distance}, {needed}"
    if part.verdict == CONTRADICTED:
        opposite = f"{part.critical_of_opposite:.2f} are needed"
        return f"the opposite holds beyond its error: {distance}, {opposite}"
    if part.at_floor:
        return "both sides are at what guessing gets (floor)"
    if part.t is None:
        return "the cells answer alike (floor or ceiling)"
    if part.holds:
        return f"within its error: {distance}, {needed}"
    if part.t > part.critical:
        beyond = f"above {part.tested_against:g} beyond its error"
        return f"{beyond}, but not above {part.threshold:g}"
    return f"not above {part.threshold:g}, {distance}"


def one_seed_text(paper_effect: float | None, seeds_needed: int | None) -> str:
    """What one seed can say: its error holds questions only, and how many seeds would do."""
    said = "one training seed: the error holds questions only"
    if not paper_effect:
        return said
    if seeds_needed is None:
        return f"{said}; how many the paper's {paper_effect:+.2f} would need is not known here"
    return (
        f"{said}; to find an effect as large as the paper's {paper_effect:+.2f} in "
        f"{FOUND:.0%} of studies takes {seeds_needed} seeds here"
    )


def rule_text(num_tested: int, *, min_effect: float) -> str:
    """How the verdicts were reached, in words."""
    points = "point" if min_effect == 1.0 else "points"
    tested = "1 hypothesis was" if num_tested == 1 else f"{num_tested} hypotheses were"
    chance = (
        f"{tested} tested: if nothing were true, about {num_tested * SIGNIFICANCE / 2:.2g} would "
        "still read supported, and as many contradicted."
        if num_tested
        else "This study has the cells of no hypothesis, so none was tested."
    )
    return (
        "A hypothesis is one or more comparisons, each taken of the means over training seeds. "
        f"Supported: every comparison holds and its t is above the two-sided {SIGNIFICANCE:.0%} "
        "threshold of Student's t, printed beside it. Contradicted: the opposite of a named "
        "comparison is beyond that threshold, at the level divided by the number of comparisons. "
        f"Where a comparison asks for an effect, the difference must be above {min_effect:g} "
        f"{points} and its error is compared with its distance from 0; where the hypothesis itself "
        "states a number, with the distance from that number. The error joins training seeds, "
        "paired by number, with questions, paired by question; a comparison's own spread over "
        "seeds is drawn towards the one pooled over the study's cells, which weighs as "
        f"{PRIOR_DEGREES:g} degrees of freedom. With one seed there is no verdict. {chance}"
    )
