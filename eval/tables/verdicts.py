"""A verdict and its parts as data: the forms that are judged, written and printed."""

from dataclasses import dataclass

from frontload.eval.statistics.stats import SeededEstimate

SUPPORTED = "supported"
UNDECIDED = "undecided"
CONTRADICTED = "contradicted"
NOT_TESTABLE = "not testable here"
ONE_SEED = "one seed only"

VERDICTS = (SUPPORTED, UNDECIDED, CONTRADICTED, ONE_SEED, NOT_TESTABLE)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An estimate in the form that is written and printed."""

    value: float
    se: float
    t: float | None  # value over error; None without an error
    critical: float  # what |t| must exceed, two-sided 5%; bars drawn are this times se
    degrees: float
    p_value: float
    seeds: tuple[float, ...]
    se_seeds: float | None
    se_items: float

    @classmethod
    def of(cls, found: SeededEstimate) -> "Shown":
        """Takes an estimate over."""
        return cls(
            value=found.value,
            se=found.se,
            t=found.t if found.se else None,
            critical=found.critical,
            degrees=found.degrees,
            p_value=found.p_value,
            seeds=found.seeds,
            se_seeds=found.se_seeds,
            se_items=found.se_items,
        )


@dataclass(frozen=True, kw_only=True)
class VerdictPart:
    """One comparison of a hypothesis, turned so that a positive value is on the claim's side.

    It holds when the measured value is above `threshold`. The error is compared with the distance
    from `tested_against`: the threshold without min_effect.
    """

    label: str
    measure: str
    value: Shown
    threshold: float
    tested_against: float
    t: float | None  # (value - tested_against) over error
    critical: float
    critical_of_opposite: float  # at the level divided by the number of parts
    p_value: float
    holds: bool
    verdict: str
    at_floor: bool  # no cell of it is above what guessing gets


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One hypothesis on our cells."""

    id: str
    name: str
    statement: str
    verdict: str
    detail: str
    effect: Shown | None  # percentage points; the verdict's own number only if `judges_effect`
    judges_effect: bool  # whether the effect is the one comparison, or the least of all of them
    measure: str  # what the effect is a difference of
    holds: bool | None  # of the measured numbers, errors aside
    survives_bonferroni: bool | None
    num_seeds: int
    num_unpaired: int  # seeds that some cell lacks, left out
    num_items: int
    parts: tuple[VerdictPart, ...]
    decided_by: int | None  # the part that decides the verdict
    seeds_needed: int | None  # to find an effect of the paper's size in 8 of 10 studies
    paper_result: bool | None  # None where the paper has no such statement
    paper_effect: float | None
    paper_caveat: str
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
