"""What `judge` makes of one hypothesis: hypotheses of our own, on cells that decide one thing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from frontload.eval.statistics.cells import Cells
from frontload.eval.tables.claims import judge
from frontload.eval.tables.verdicts import Verdict
from tests.unit.eval.graded import exact, one_file

type Ask = Callable[..., list[Verdict]]

LEAD = "c('pt:a', '{0}') - c('pt:b', '{0}')"
AVERAGE, MATH = LEAD.format("pt.avg"), LEAD.format("pt.math")


@pytest.fixture
def ask() -> Ask:
    """Judges cells by these statements; the effect of each is the lead in the average."""

    def asked(cells: Cells, *predicates: str, effect: str = AVERAGE) -> list[Verdict]:
        row = {"name": "", "statement": "", "effect": effect, "caveat": ""}
        row |= {"paper_result": True, "paper_effect": None}
        rows = [row | {"id": f"own-{text}", "predicate": text} for text in predicates]
        return judge(cells, rows, min_effect=1.0)

    return asked


def leads(**by_metric: list[float]) -> Cells:
    """How far a is above b in each metric and seed."""
    known: dict = {"pt:a": {}, "pt:b": {}}
    for name, numbers in by_metric.items():
        made = exact({"pt:a": numbers, "pt:b": [0.0] * len(numbers)}, metric=f"pt.{name}")
        for cell in known:
            known[cell] |= made.metrics(cell)
    return Cells.of_metrics(known)


@pytest.mark.parametrize(
    ("statement", "holds"), [("> 4", True), ("> 5", False), (">= 5", True), (">= 5.5", False)]
)
def test_a_number_that_is_just_reached_is_at_least_it_and_not_above_it(
    ask: Ask, statement: str, holds: bool
) -> None:
    (verdict,) = ask(leads(avg=[4.0, 6.0]), f"{AVERAGE} {statement}")
    assert verdict.holds is holds


def test_the_error_is_compared_with_the_distance_from_the_number_that_is_stated(ask: Ask) -> None:
    (verdict,) = ask(leads(avg=[4.0, 6.0]), f"{AVERAGE} > -2")
    (part,) = verdict.parts
    assert (part.value.value, part.value.se, part.tested_against) == (5.0, 1.0, -2.0)
    assert part.t == pytest.approx(7.0)
    assert part.value.t == pytest.approx(5.0), "of the number itself from 0"


def test_one_part_with_one_seed_leaves_no_verdict(ask: Ask) -> None:
    cells = leads(avg=[20.0, 21.0, 22.0], math=[20.0])
    for statement in (f"{AVERAGE} > eps and {MATH} > eps", f"{MATH} > eps and {AVERAGE} > eps"):
        (verdict,) = ask(cells, statement)
        assert verdict.verdict == "one seed only"


def test_a_hypothesis_holds_when_all_its_parts_do(ask: Ask) -> None:
    cells = leads(avg=[20.0, 21.0, 22.0], math=[-1.0, -2.0, 0.0])
    both, one = ask(cells, f"{AVERAGE} > eps and {MATH} > eps", f"{AVERAGE} > eps")
    assert (both.holds, one.holds) == (False, True)


def test_seeds_without_a_partner_in_any_part_are_counted(ask: Ask) -> None:
    average = exact({"pt:a": [2.0, 3.0, 4.0], "pt:b": [1.0, 1.0, 1.0]}, metric="pt.avg")
    math = exact({"pt:c": [2.0, 3.0, 4.0], "pt:d": [1.0, 1.0]}, metric="pt.math")
    known = {cell: made.metrics(cell) for made in (average, math) for cell in made.names}
    other = "c('pt:c', 'pt.math') - c('pt:d', 'pt.math')"
    (verdict,) = ask(Cells.of_metrics(known), f"{AVERAGE} > eps and {other} > eps")
    assert (verdict.num_seeds, verdict.num_unpaired) == (3, 1)


def test_what_is_not_tested_has_no_seed_and_no_question(ask: Ask) -> None:
    (verdict,) = ask(leads(math=[1.0]), f"{AVERAGE} > eps")
    assert verdict.verdict == "not testable here"
    assert (verdict.num_seeds, verdict.num_unpaired, verdict.num_items) == (0, 0, 0)


@pytest.mark.parametrize(
    ("effect", "predicate", "is_judged"),
    [
        (AVERAGE, f"{AVERAGE} > eps", True),
        (AVERAGE, f"{AVERAGE} > eps and {MATH} > eps", False),
        (f"min({AVERAGE}, {MATH})", f"{MATH} > 2 and {AVERAGE} > eps", True),
        (f"min({AVERAGE}, {MATH})", f"{AVERAGE} > eps and -({MATH}) > eps", False),
        (f"min({AVERAGE}, {MATH})", f"{AVERAGE} > eps", False),
    ],
)
def test_an_effect_is_judged_when_it_is_the_least_of_just_what_is_compared(
    ask: Ask, effect: str, predicate: str, is_judged: bool
) -> None:
    (verdict,) = ask(leads(avg=[4.0, 6.0], math=[5.0, 5.0]), predicate, effect=effect)
    assert verdict.judges_effect is is_judged


@pytest.mark.parametrize("lead", [20.0, -20.0])
def test_numbers_without_an_error_are_no_evidence(ask: Ask, lead: float) -> None:
    (verdict,) = ask(leads(avg=[lead] * 3), f"{AVERAGE} > eps")
    assert (verdict.verdict, verdict.parts[0].t) == ("undecided", None)
    assert verdict.effect is not None
    assert verdict.effect.t is None


SIX = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])  # a mean over seeds has an error of 0.447


def test_the_weakest_part_is_the_one_least_near_to_what_it_needs(ask: Ask) -> None:
    """2.0 errors of 12.7 that two seeds need are less than 1.3 of the 2.6 that six need."""
    cells = leads(avg=[1.0, 3.0], math=list(0.6 + SIX))
    (verdict,) = ask(cells, f"{MATH} > 0 and {AVERAGE} > 0")
    near, far = verdict.parts
    assert near.t is not None
    assert far.t is not None
    assert far.t == pytest.approx(2.0)
    assert near.t < far.t
    assert (verdict.verdict, verdict.decided_by) == ("undecided", 1)


def test_a_part_without_an_error_is_weaker_than_one_on_the_claims_side(ask: Ask) -> None:
    cells = leads(avg=list(0.2 + SIX), math=[0.0] * 6)
    (verdict,) = ask(cells, f"{AVERAGE} > 0 and {MATH} > 0")
    assert (verdict.verdict, verdict.decided_by) == ("undecided", 1)


def test_a_conjunction_survives_bonferroni_by_its_weakest_part(ask: Ask) -> None:
    cells = leads(avg=list(1.252 + SIX), math=list(30.0 + SIX))
    both = f"{MATH} > eps and {AVERAGE} > eps"
    first, second = ask(cells, both, f"{MATH} > eps")
    assert first.verdict == second.verdict == "supported"
    weakest = "the weakest is M_a over M_b in Average, base suite"
    assert first.detail == f"both parts hold beyond their errors; {weakest}"
    assert 0.05 / 2 < max(part.p_value for part in first.parts) < 0.05
    assert (first.survives_bonferroni, second.survives_bonferroni) == (False, True)
    (alone,) = ask(cells, both)
    assert alone.survives_bonferroni, "one hypothesis is tested at the plain level"


def test_a_floor_is_what_guessing_gets_and_the_cells_error(ask: Ask) -> None:
    """12 of 60 gold answers are 7: guessing gets 20%. 15 right are no more, 45 are."""

    def cell(num_right: int, seed: int):
        accuracies = {f"q{n}": float(n < num_right) for n in range(60)}
        file = one_file(accuracies, suite="base", seed=seed)
        results = tuple(
            replace(result, gold="7") if n % 5 == 0 else result
            for n, result in enumerate(file.results)
        )
        return replace(file, results=results)

    def at_floor(first: int, second: int) -> bool:
        files = {
            name: [cell(num_right + seed, seed) for seed in (0, 1, 2)]
            for name, num_right in (("pt:a", first), ("pt:b", second))
        }
        (verdict,) = ask(Cells(files=files), f"{AVERAGE} > eps")
        return verdict.parts[0].at_floor

    assert at_floor(15, 14)
    assert not at_floor(45, 15), "both sides must be"
    assert not at_floor(15, 45)
    assert not at_floor(20, 20), "15 points are more than two errors of 60 questions"
