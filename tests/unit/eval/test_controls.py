"""Controls: what they compare, and what a hypothesis says of those that bear on it."""

from dataclasses import replace

import pytest

from frontload.eval.statistics.cells import Cells, members
from frontload.eval.statistics.expressions import Expression, named_leaves
from frontload.eval.tables.claims import judge
from frontload.eval.tables.controls import judge_controls, with_controls
from frontload.eval.tables.paper import paper_claims, paper_controls
from frontload.eval.tables.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED
from frontload.recipes.study.expand import load_study
from tests.unit.eval.graded import exact

SMALL = "pt:LDQ_SMALL@368640"


def test_the_shipped_study_has_the_cells_and_suites_of_every_control() -> None:
    study = load_study("controls")
    roles = study.tabulate.recipe.cells
    for row in paper_controls():
        for cell, metric in named_leaves(Expression(row["effect"]).contrasts()):
            for name in members(cell):
                suites = {study.tabulate.inputs[role].recipe.suite for role in roles[name]}
                assert {"pt": "base", "sft": "sft"}[metric.partition(".")[0]] in suites, row["id"]


def test_every_control_bears_on_a_hypothesis_and_reads_every_outcome() -> None:
    known = {row["id"].partition("_")[0] for row in paper_claims()["hypotheses"]}
    for row in paper_controls():
        assert row["bears_on"]
        assert set(row["bears_on"]) <= known
        assert set(row["reads"]) == {SUPPORTED, UNDECIDED, CONTRADICTED}
        assert row["predicate"] == f"{row['effect']} > eps"


def cells_where(ldq: float, shq: float, small: float, *, seeds: int = 3) -> Cells:
    """Averages of the base suite, a little apart over seeds."""
    levels = {"pt:LDQ": ldq, "pt:SHQ": shq, SMALL: small}
    made = {
        name: [level + 0.1 * seed * place for seed in range(seeds)]
        for place, (name, level) in enumerate(levels.items(), start=1)
    }
    return exact(made, metric="pt.avg")


@pytest.mark.parametrize(
    ("small", "verdict", "reading"),
    [
        (45.0, SUPPORTED, "one of diversity, not of size or of fewer repeats"),
        (35.0, CONTRADICTED, "LDQ's lead is one of size"),
        (40.0, UNDECIDED, "not told apart"),
    ],
)
def test_a_hypothesis_says_what_its_control_found(small: float, verdict: str, reading: str) -> None:
    cells = cells_where(50.0, 40.0, small)
    controls = judge_controls(cells, min_effect=1.0)
    assert [one.verdict.id for one in controls] == ["K2", "K5"], "those with cells here"
    assert controls[0].verdict.verdict == verdict
    assert reading in controls[0].reading
    verdicts = with_controls(judge(cells, paper_claims()["hypotheses"], min_effect=1.0), controls)
    named = {one.id.partition("_")[0]: one for one in verdicts}
    assert named["H04"].verdict == SUPPORTED, "a control does not change what was measured"
    assert f"control K2 {verdict}: {controls[0].reading}" in named["H04"].detail
    assert "control" not in named["H01"].detail


def test_one_seed_reads_no_control() -> None:
    cells = cells_where(50.0, 40.0, 35.0, seeds=1)
    controls = judge_controls(cells, min_effect=1.0)
    assert {one.reading for one in controls} == {""}
    verdicts = judge(cells, paper_claims()["hypotheses"], min_effect=1.0)
    assert with_controls(verdicts, controls) == verdicts
    kept = replace(controls[0], bears_on=("H99",), reading="nobody")
    assert with_controls(verdicts, [kept]) == verdicts
