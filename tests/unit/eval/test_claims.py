"""Verdicts: the paper's own numbers must give the paper's own results; then ours."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from frontload.eval.statistics.cells import Cells, Draws
from frontload.eval.statistics.contrasts import Contrast
from frontload.eval.statistics.spread import stated_spreads
from frontload.eval.tables.claims import judge, recompute, verdicts_json
from frontload.eval.tables.paper import paper_claims, paper_tables, printed
from frontload.eval.tables.verdict_text import contrast_label, measure_of
from frontload.eval.tables.verdicts import Verdict
from tests.unit.eval.graded import exact, one_file, study

HYPOTHESES = paper_claims()["hypotheses"]


class PaperCells(Cells):
    """The paper's printed cells: one seed and no error."""

    def draws(self, cell: str, metric: str) -> Draws:
        value = printed(cell, metric)
        if value is None:
            return super().draws(cell, metric)
        questions = frozenset({"one"})
        return Draws(draws_AB=np.full((1, 3), value), seeds=(1,), questions=questions)


def of(found: Sequence, name: str):
    return next(one for one in found if one.id.startswith(name))


@pytest.mark.parametrize("row", paper_claims()["hypotheses"], ids=lambda row: row["id"])
def test_the_papers_numbers_give_the_papers_effects_and_results(row: dict) -> None:
    verdict = of(judge(PaperCells(files={}), HYPOTHESES, min_effect=0.0), row["id"])
    assert verdict.effect is not None
    assert verdict.effect.value == pytest.approx(row["paper_effect"], abs=0.006)
    assert verdict.holds == row["paper_result"]
    assert verdict.verdict == "one seed only"


@pytest.mark.parametrize("row", paper_claims()["claims"], ids=lambda row: row["id"])
def test_every_claim_recomputes_to_the_recorded_value(row: dict) -> None:
    found = of(recompute(PaperCells(files={})), row["id"])
    assert found.formula == (row["formula"] or row["arithmetic"])
    if row["formula"] is None:
        assert found.missing == "arithmetic on the paper's own sizes"
        return
    assert found.ours is not None
    assert found.ours.value == pytest.approx(row["recomputed_value"], abs=0.006)


def test_the_data_names_no_machine_and_every_table_its_source() -> None:
    for table in paper_tables()["tables"].values():
        assert table["source"]
        for row in table["rows"]:
            assert len(row["values"]) == len(table["columns"])
            assert [float(text) for text in row["printed"]] == row["values"]


LDQ, ALF = "pt:LDQ>sft:LDQ", "pt:LDQ>sft:ALF"


def depth(alf: list[float], ldq: list[float], *, min_effect: float = 1.0) -> Verdict:
    """H10, one comparison: ALF over LDQ in SFT."""
    return of(judge(study({ALF: alf, LDQ: ldq}), HYPOTHESES, min_effect=min_effect), "H10")


def test_a_clear_effect_over_three_seeds_is_supported() -> None:
    verdict = depth([0.70, 0.71, 0.72], [0.40, 0.41, 0.42])
    assert (verdict.verdict, verdict.num_seeds, verdict.num_items) == ("supported", 3, 60)
    assert verdict.survives_bonferroni
    assert verdict.judges_effect
    assert verdict.effect.value == pytest.approx(30, abs=5)
    (part,) = verdict.parts
    assert part.value == verdict.effect
    assert part.t > part.critical > 1.96
    assert verdict.detail.startswith("holds beyond its error: ")
    assert f"{part.critical:.2f} are needed" in verdict.detail


def test_bonferroni_asks_for_a_p_value_as_many_times_smaller() -> None:
    """Two hypotheses are tested, and the weaker of them is at 3%."""
    strong = {f"pt:{arm}>sft:LDQ": [70.0, 71.0, 72.0] for arm in ("SHQ", "LMQ")}
    cells = exact(strong | {LDQ: [40.0, 40.0, 40.0], ALF: [47.0, 46.0, 43.0]})
    verdict = of(judge(cells, HYPOTHESES, min_effect=1.0), "H10")
    (part,) = verdict.parts
    assert verdict.verdict == "supported"
    assert part.p_value < 0.05
    tested = [one for one in judge(cells, HYPOTHESES, min_effect=1.0) if one.effect]
    assert verdict.survives_bonferroni == (part.p_value < 0.05 / len(tested))


@pytest.mark.parametrize(("alf", "ldq"), [([0.70], [0.40]), ([0.40], [0.70]), ([0.5], [0.5])])
def test_one_seed_gives_no_verdict_and_no_word_of_one(alf: list, ldq: list) -> None:
    verdict = depth(alf, ldq)
    assert verdict.verdict == "one seed only"
    assert {part.verdict for part in verdict.parts} == {"one seed only"}
    assert verdict.survives_bonferroni is None
    assert verdict.decided_by is None
    assert verdict.detail == (
        "one training seed: the error holds questions only; how many the paper's +9.82 would need "
        "is not known here"
    )


def test_one_seed_says_how_many_the_papers_effect_would_need() -> None:
    cells = replace(
        study({ALF: [0.5], LDQ: [0.5]}), stated_spreads=stated_spreads({"sft/sft.avg": 4.0})
    )
    verdict = of(judge(cells, HYPOTHESES, min_effect=1.0), "H10")
    assert verdict.seeds_needed is not None
    assert verdict.seeds_needed >= 3
    assert verdict.detail.endswith(
        f"as large as the paper's +9.82 in 80% of studies takes {verdict.seeds_needed} seeds here"
    )
    wider = replace(cells, stated_spreads=stated_spreads({"sft/sft.avg": 8.0}))
    assert of(judge(wider, HYPOTHESES, min_effect=1.0), "H10").seeds_needed > verdict.seeds_needed


def test_the_opposite_effect_contradicts() -> None:
    verdict = depth([0.40, 0.41, 0.42], [0.70, 0.71, 0.72])
    assert verdict.verdict == "contradicted"
    assert verdict.detail.startswith("the opposite holds beyond its error: ")
    assert verdict.decided_by == 0


def test_seeds_that_disagree_leave_it_open() -> None:
    verdict = depth([0.9, 0.3, 0.6], [0.40, 0.42, 0.41])
    assert (verdict.verdict, verdict.holds) == ("undecided", True)
    (part,) = verdict.parts
    assert verdict.detail == (
        f"within its error: {part.t:.1f} errors from 0, {part.critical:.2f} are needed"
    )


def test_an_effect_below_the_smallest_that_matters_is_not_supported() -> None:
    small = depth([0.50] * 3, [0.40] * 3, min_effect=50.0)
    assert (small.verdict, small.holds) == ("undecided", False)
    assert small.detail == "above 0 beyond its error, but not above 50"
    assert small.parts[0].threshold == 50
    assert small.parts[0].tested_against == 0
    assert depth([0.50] * 3, [0.40] * 3).verdict == "supported"
    none = depth([0.41, 0.39, 0.40], [0.40, 0.41, 0.41])
    assert none.detail.startswith("not above 1, ")


def test_cells_that_answer_alike_decide_nothing() -> None:
    verdict = of(judge(exact({ALF: [5.0] * 3, LDQ: [5.0] * 3}), HYPOTHESES, min_effect=1.0), "H10")
    assert verdict.verdict == "undecided"
    assert verdict.detail == "the cells answer alike (floor or ceiling)"


def test_a_comparison_of_cells_that_only_guess_is_called_a_floor() -> None:
    golds = {f"q{n}": 1.0 if n < 6 else 0.0 for n in range(60)}
    files = {
        cell: [one_file(golds | {f"q{n}": 1.0}, gold="7", seed=s) for s, n in enumerate((7, 8, 9))]
        for cell in (ALF, LDQ)
    }
    verdict = of(judge(Cells(files=files), HYPOTHESES, min_effect=1.0), "H10")
    assert verdict.parts[0].at_floor, "every gold answer is 7, so guessing 7 gets 100%"
    assert not depth([0.9, 0.3, 0.6], [0.40, 0.42, 0.41]).parts[0].at_floor
    moved = {cell: [one_file(golds, gold="7", seed=s) for s in (1, 2)] for cell in (ALF, LDQ)}
    moved[ALF][0] = one_file(golds | {"q9": 1.0, "q10": 1.0}, gold="7", seed=1)
    verdict = of(judge(Cells(files=moved), HYPOTHESES, min_effect=1.0), "H10")
    assert verdict.detail == "both sides are at what guessing gets (floor)"


EQUAL_ARMS = {
    "pt:SHQ>sft:SHQ": [30.0, 40.0, 38.0],
    "pt:LDQ>sft:SHQ": [38.0, 30.0, 40.0],
    "pt:LMQ>sft:SHQ": [40.0, 38.0, 30.0],
    "pt:base>sft:SHQ*2": [34.0, 34.0, 34.0],
}


def test_the_weakest_of_three_equal_arms_is_their_mean_whatever_their_order_in_a_seed() -> None:
    """H03 on arms of mean 36 against 34: +2, not the -4 that the least of each seed gives."""
    verdict = of(judge(exact(EQUAL_ARMS), HYPOTHESES, min_effect=1.0), "H03")
    assert verdict.effect.value == pytest.approx(2.0)
    assert verdict.holds
    assert verdict.verdict == "undecided"
    assert [part.value.value for part in verdict.parts] == pytest.approx([2.0, 2.0, 2.0])
    assert verdict.judges_effect


def test_equal_arms_are_within_a_point_whatever_their_seeds_do() -> None:
    """H08 on means of 50 and 50: the difference is 0, though the seeds differ by 4 each."""
    levels = {"pt:LMQ": [54.0, 46.0, 50.0], "pt:LDQ": [50.0, 50.0, 50.0]}
    base = exact(levels, metric="pt.avg").metrics
    tuned = exact({"pt:LMQ>sft:SHQ": [60.0, 62.0, 61.0], "pt:LDQ>sft:SHQ": [40.0, 41.0, 42.0]})
    known = {cell: base(cell) for cell in levels} | {c: tuned.metrics(c) for c in tuned.names}
    verdict = of(judge(Cells.of_metrics(known), HYPOTHESES, min_effect=1.0), "H08")
    assert verdict.holds
    low, high, later = verdict.parts
    assert (low.threshold, high.threshold, later.threshold) == (-1.0, -1.0, 1.0)
    assert (low.tested_against, later.tested_against) == (-1.0, 0.0)
    assert (low.label, high.label) == ("M_LDQ over M_LMQ", "M_LMQ over M_LDQ")
    assert later.verdict == "supported"
    assert not verdict.judges_effect, "the effect is a difference of differences"
    assert verdict.verdict == "undecided"
    assert verdict.detail.startswith("1 of 3 parts hold beyond their errors; part 1 of 3, M_LDQ ")


def categories(base: dict[str, float], shq: dict[str, float], *, seeds: int = 3) -> Cells:
    """H12's two cells, with numbers of each category and a little noise over seeds."""
    rng = np.random.default_rng(0)

    def draws(level: float) -> Draws:
        values = (level + rng.normal(0, 0.5, seeds))[:, None] * np.ones((1, 3))
        return Draws(
            draws_AB=values, seeds=tuple(range(seeds)), questions=frozenset(map(str, range(99)))
        )

    return Cells.of_metrics(
        {
            "pt:base>sft:SHQ": {f"sft.{name}": draws(level) for name, level in base.items()},
            "pt:SHQ>sft:SHQ": {f"sft.{name}": draws(level) for name, level in shq.items()},
        }
    )


LEVELS = {"avg": 30.0, "math": 40.0, "science": 30.0, "code": 20.0, "ins": 30.0}


def test_a_contradicted_part_is_named_and_the_effect_does_not_carry_its_verdict() -> None:
    better = {name: level + 20 for name, level in LEVELS.items()} | {"code": 5.0}
    verdict = of(judge(categories(LEVELS, better), HYPOTHESES, min_effect=1.0), "H12")
    assert verdict.verdict == "contradicted"
    assert verdict.effect.value == pytest.approx(20, abs=1.5)
    assert not verdict.judges_effect
    assert [part.verdict for part in verdict.parts] == [
        "supported", "supported", "contradicted", "supported",
    ]  # fmt: skip
    assert verdict.decided_by == 2
    assert verdict.detail.startswith(
        "part 3 of 4, M_SHQ + SFT[SHQ] over M_base + SFT[SHQ] in code, SFT suite: the opposite"
    )


def test_all_parts_must_be_shown_and_the_weakest_is_named() -> None:
    better = {name: level + 20 for name, level in LEVELS.items()} | {"science": 37.0}
    verdict = of(judge(categories(LEVELS, better), HYPOTHESES, min_effect=1.0), "H12")
    assert verdict.verdict == "supported"
    assert verdict.decided_by == 1
    assert verdict.detail == (
        "all 4 parts hold beyond their errors; the weakest is M_SHQ + SFT[SHQ] over M_base + "
        "SFT[SHQ] in science, SFT suite"
    )


def test_four_parts_contradict_at_a_quarter_of_the_level() -> None:
    verdict = of(judge(categories(LEVELS, LEVELS), HYPOTHESES, min_effect=1.0), "H12")
    for part in verdict.parts:
        assert part.critical_of_opposite > part.critical
    between = [
        part
        for shift in np.arange(0.5, 6, 0.1)
        for part in of(
            judge(
                categories(LEVELS, {n: v - shift for n, v in LEVELS.items()}),
                HYPOTHESES,
                min_effect=1.0,
            ),
            "H12",
        ).parts
        if part.critical < -part.t < part.critical_of_opposite
    ]
    assert between, "some part lies between the two thresholds"
    assert {part.verdict for part in between} == {"undecided"}


def test_missing_cells_are_not_testable() -> None:
    verdicts = judge(study({ALF: [0.5]}), HYPOTHESES, min_effect=1.0)
    assert of(verdicts, "H13").verdict == of(verdicts, "H14").verdict == "not testable here"
    assert of(verdicts, "H13").detail == "no flat 8 of M_LMQ + SFT[SHQ] + RL[CrossThink]"
    assert of(verdicts, "H10").verdict == "not testable here"
    assert of(verdicts, "H10").detail == "no Average, SFT suite of M_LDQ + SFT[LDQ]"
    assert of(verdicts, "H10").effect is None
    assert of(verdicts, "H10").measure == "Average, SFT suite"
    claims = recompute(study({ALF: [0.5]}))
    assert of(claims, "C01").missing == "no flat 8 of M_LMQ + SFT[SHQ] + RL[CrossThink]"
    assert of(claims, "C20").missing == "no Average, SFT suite of M_LDQ + SFT[LDQ]"


def test_seeds_without_a_partner_are_left_out_and_counted() -> None:
    cells = exact({ALF: [60.0, 61.0, 62.0], LDQ: [40.0, 41.0]}, seeds={LDQ: (2, 3)})
    verdict = of(judge(cells, HYPOTHESES, min_effect=1.0), "H10")
    assert (verdict.num_seeds, verdict.num_unpaired) == (2, 1)
    assert verdict.effect.seeds == (21.0, 21.0)


def test_the_file_counts_what_was_tested_and_what_chance_would_give() -> None:
    cells = study({ALF: [0.7] * 3, LDQ: [0.4] * 3})
    verdicts = judge(cells, HYPOTHESES, min_effect=1.0)
    form = verdicts_json(verdicts, recompute(cells), min_effect=1.0)
    assert form["format"] == 2
    assert (form["num_hypotheses"], form["num_tested"]) == (18, 1)
    assert form["expected_wrong_by_chance"] == 0.025
    assert form["counts"]["supported"] == 1
    assert sum(form["counts"].values()) == 18
    assert "1 hypothesis was tested" in form["rule"]
    assert "about 0.025 would still read supported" in form["rule"]
    assert "above 1 point and" in form["rule"]
    none = verdicts_json(judge(study({}), HYPOTHESES, min_effect=2.0), [], min_effect=2.0)
    assert "none was tested" in none["rule"]
    assert "above 2 points and" in none["rule"]


def test_a_verdict_says_which_number_of_the_tables_it_is_judged_on() -> None:
    named = {one.id[:3]: one.measure for one in judge(study({}), HYPOTHESES, min_effect=1.0)}
    assert {named[name] for name in ("H13", "H14")} == {"flat 8"}, "not the Average of the figure"
    assert named["H01"] == named["H18"] == "Average, base suite"
    assert named["H02"] == named["H03"] == "Average, SFT suite"
    assert named["H15"] == "Average, SFT suite and Average, base suite"
    assert (named["H09"], named["H16"], named["H17"]) == (
        "math, SFT suite",
        "gpr, base suite",
        "ins, SFT suite",
    )
    assert measure_of([("a", "bench.chain")]) == "bench.chain"


def test_the_effect_stands_beside_the_verdict_only_where_it_is_judged() -> None:
    judged = {
        one.id[:3]
        for one in judge(PaperCells(files={}), HYPOTHESES, min_effect=0.0)
        if one.judges_effect
    }
    every = {f"H{number:02}" for number in range(1, 19)}
    assert every - judged == {"H01", "H08", "H09", "H12"}


def test_a_comparison_is_named_by_its_cells() -> None:
    label = {
        one.id[:3]: [part.label for part in one.parts]
        for one in judge(PaperCells(files={}), HYPOTHESES, min_effect=0.0)
    }
    assert label["H02"] == ["M_res + SFT[SHQ] over M_base + SFT[SHQ]"]
    assert label["H09"][0] == "M_LDQ + SFT[LDQ] over M_LDQ + SFT[2 x LDQ]"
    assert label["H15"] == [
        "[M_res + SFT[all] and M_base] over [M_base + SFT[all] and M_res]",
    ]
    from frontload.eval.statistics.expressions import Expression

    (weighed,) = Expression("2 * c('pt:base', 'pt.avg') - c('pt:LDQ', 'pt.avg')").contrasts()
    assert contrast_label(weighed) == "+2 x M_base -1 x M_LDQ"
    leaves = {("pt:base", "pt.avg"): 1.0, ("pt:LDQ", "pt.avg"): -1.0, ("pt:SHQ", "pt.avg"): 0.5}
    assert contrast_label(Contrast(weights=leaves)) == "+1 x M_base -1 x M_LDQ +0.5 x M_SHQ"
