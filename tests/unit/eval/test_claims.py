"""Verdicts: the paper's own numbers must give the paper's own results; then ours."""

from collections.abc import Sequence

import numpy as np
import pytest

from frontload.eval.cells import Cells, Draws
from frontload.eval.claims import judge, measure_of, recompute, verdicts_json
from frontload.eval.paper import paper_claims, paper_tables, printed
from tests.unit.eval.test_expressions import one_file


class PaperCells(Cells):
    """The paper's printed cells: one seed and no error."""

    def draws(self, cell: str, metric: str) -> Draws:
        value = printed(cell, metric)
        if value is None:
            return super().draws(cell, metric)
        return Draws(draws_AB=np.full((1, 3), value), num_items=1)


def of(verdicts: Sequence, name: str):
    return next(verdict for verdict in verdicts if verdict.id.startswith(name))


@pytest.mark.parametrize("row", paper_claims()["hypotheses"], ids=lambda row: row["id"])
def test_the_papers_numbers_give_the_papers_effects_and_results(row: dict) -> None:
    verdict = of(judge(PaperCells(files={}), min_effect=0.0), row["id"])
    assert verdict.effect is not None
    assert verdict.effect.value == pytest.approx(row["paper_effect"], abs=0.006)
    assert verdict.holds == row["paper_result"]


@pytest.mark.parametrize("row", paper_claims()["claims"], ids=lambda row: row["id"])
def test_every_claim_recomputes_to_the_recorded_value(row: dict) -> None:
    found = of(recompute(PaperCells(files={})), row["id"])
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


def sft_cells(levels: dict[str, list[float]], *, num_items: int = 60) -> Cells:
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(-0.3, 0.3, num_items)
    files = {}
    for place, (cell, seeds) in enumerate(levels.items()):
        noise = np.random.default_rng(place).uniform(-0.2, 0.2, num_items)
        files[cell] = [
            one_file(
                {
                    f"q{n}": float(np.clip(level + difficulty[n] + noise[n], 0, 1))
                    for n in range(num_items)
                }
            )
            for level in seeds
        ]
    return Cells(files=files)


def depth(alf: list[float], ldq: list[float]):
    cells = sft_cells({"pt:LDQ>sft:ALF": alf, "pt:LDQ>sft:LDQ": ldq})
    return of(judge(cells, min_effect=1.0), "H10")


def test_a_clear_effect_over_three_seeds_is_supported() -> None:
    verdict = depth([0.70, 0.71, 0.72], [0.40, 0.41, 0.42])
    assert (verdict.verdict, verdict.num_seeds) == ("supported", 3)
    assert verdict.survives_bonferroni
    assert verdict.effect.value == pytest.approx(25, abs=5)


def test_one_seed_gives_no_verdict_however_clear() -> None:
    verdict = depth([0.70], [0.40])
    assert verdict.verdict == "one seed only"
    assert "questions only" in verdict.detail
    assert verdict.survives_bonferroni is None


def test_the_opposite_effect_is_not_supported_and_said_to_contradict() -> None:
    verdict = depth([0.40, 0.41, 0.42], [0.70, 0.71, 0.72])
    assert verdict.verdict == "not supported"
    assert verdict.detail.startswith("contradicted")


def test_seeds_that_disagree_leave_it_open() -> None:
    verdict = depth([0.9, 0.3, 0.6], [0.40, 0.42, 0.41])
    assert (verdict.verdict, verdict.holds) == ("not supported", True)
    assert verdict.detail.startswith("holds, within its error")


def test_an_effect_below_the_smallest_that_matters_is_not_supported() -> None:
    cells = sft_cells({"pt:LDQ>sft:ALF": [0.50] * 3, "pt:LDQ>sft:LDQ": [0.40] * 3})
    small = of(judge(cells, min_effect=50.0), "H10")
    assert small.verdict == "not supported"
    assert of(judge(cells, min_effect=1.0), "H10").verdict == "supported"


def test_missing_cells_are_not_testable() -> None:
    verdicts = judge(sft_cells({"pt:LDQ>sft:ALF": [0.5]}), min_effect=1.0)
    assert of(verdicts, "H13").verdict == of(verdicts, "H14").verdict == "not testable here"
    assert of(verdicts, "H13").detail == "no flat 8 of M_LMQ + SFT[SHQ] + RL[CrossThink]"
    assert of(verdicts, "H10").verdict == "not testable here"
    assert of(verdicts, "H10").detail == "no Average of M_LDQ + SFT[LDQ]"
    claims = recompute(sft_cells({"pt:LDQ>sft:ALF": [0.5]}))
    assert of(claims, "C01").missing == "no flat 8 of M_LMQ + SFT[SHQ] + RL[CrossThink]"
    assert of(claims, "C20").missing == "no Average of M_LDQ + SFT[LDQ]"


def test_the_file_counts_what_was_tested_and_what_chance_would_give() -> None:
    cells = sft_cells({"pt:LDQ>sft:ALF": [0.7] * 3, "pt:LDQ>sft:LDQ": [0.4] * 3})
    verdicts = judge(cells, min_effect=1.0)
    form = verdicts_json(verdicts, recompute(cells), min_effect=1.0)
    assert (form["num_hypotheses"], form["num_tested"]) == (18, 1)
    assert form["expected_supported_by_chance"] == 0.025
    assert sum(form["counts"].values()) == 18
    assert "1 hypothesis was tested" in form["rule"]


def test_a_verdict_says_which_number_of_the_tables_it_is_judged_on() -> None:
    formulas = {row["id"][:3]: row["effect"] for row in paper_claims()["hypotheses"]}
    named = {name: measure_of(formula) for name, formula in formulas.items()}
    assert {named[name] for name in ("H13", "H14")} == {"flat 8"}, "not the Average of the figure"
    assert (named["H09"], named["H16"], named["H17"]) == ("math", "gpr", "ins")
    others = set(named) - {"H09", "H13", "H14", "H16", "H17"}
    assert {named[name] for name in others} == {"Average"}
