"""Proxies and forgetting in a study's tables: values by hand, refusals, and what is recommended."""

from dataclasses import replace
from pathlib import Path

import pytest

from frontload.eval.results import HeldoutResult, ResultFile
from frontload.eval.statistics.cells import Cells
from frontload.eval.suites import FewShotItem, first_of_benchmarks
from frontload.eval.tables.forgetting import forgetting
from frontload.eval.tables.proxies import LOSS, Proxies, advice, measure_proxies, proxy_tables
from frontload.recipes.errors import RecipeError
from frontload.recipes.study.expand import load_study
from tests.unit.eval.graded import one_file

SKILLS = {"SHQ": 0.1, "LDQ": 0.3, "LMQ": 0.4, "ALF": 0.5, "base": 0.0, "ALF'": 0.7, "X": 0.9}
KNOBS = "evaluation.proxies={num_samples: 64, items_per_benchmark: 5}"

GREEDY = ("num_samples=1", "num_hard_samples=1", "temperature=0.0")


def asked(skill: float, *, loss: float, tokens: int = 10, num_samples: int = 10) -> ResultFile:
    """Two questions, one as skilled as stated and one never solved, and one held-out answer."""
    file = one_file({"a": skill, "b": 0.0}, num_samples=num_samples)
    held = HeldoutResult(
        id="h", family="chain", domain="math", inside_shq=True, is_cut=False,
        num_tokens=tokens, loss_sum=loss * tokens, num_greedy_tokens=0,
    )  # fmt: skip
    return replace(file, results=(*file.results, held))


def measured(num_rl: int, **changes: object) -> Proxies:
    """Seven SFT cells, whose loss falls as their skill rises; the first ones had RL."""
    names = {f"pt:{name}>sft:SHQ": skill for name, skill in SKILLS.items()}
    files = {
        cell: [asked(skill, loss=2.0 - skill, **changes.get(cell, {}))]  # type: ignore[attr-defined]
        for cell, skill in names.items()
    }
    after = {
        f"{cell}>rl:CrossThink": [one_file({"a": skill, "b": skill}, num_samples=10)]
        for cell, skill in list(names.items())[:num_rl]
    }
    return measure_proxies(Cells(files=after), files)


def test_values_are_those_by_hand() -> None:
    found = measured(5)
    values = {proxy.name: proxy.values["pt:LDQ>sft:SHQ"] for proxy in found.proxies}
    assert set(values) == {LOSS, "pass@1", "pass@8"}, "10 answers do not give pass@64"
    assert values[LOSS] == pytest.approx(1.7)
    assert values["pass@1"] == pytest.approx(15.0)  # 3 of 10, and 0 of 10
    assert values["pass@8"] == pytest.approx(50.0)  # any 8 of 10 with 7 wrong hold a right one
    assert found.scores["pt:LDQ>sft:SHQ"] == pytest.approx(30.0)


def test_a_proxy_that_ranks_as_rl_does_names_the_waiting_cells_best_first() -> None:
    found = measured(6)
    quality = {one.name: one for one in found.quality}
    assert quality[LOSS].spearman.value == quality["pass@1"].spearman.value == 1.0
    assert quality["pass@1"].r2.value == pytest.approx(1.0)
    assert quality["pass@1"].num_cells == 6
    assert found.recommendation is not None
    assert found.recommendation.cells == ("pt:X>sft:SHQ",)
    assert found.recommendation.regret == 0.0
    assert "RL next, by " in advice(found)
    assert "M_X + SFT[SHQ]" in advice(found)
    worth, values = proxy_tables(found)
    assert (worth.id, worth.columns[0]) == ("Proxies", "Spearman")
    row = next(row for row in worth.rows if row.label == "pass@1")
    low, high = row.ours[1], row.ours[2]
    assert low is not None and high is not None  # noqa: PT018
    assert 0.0 < low.value < 1.0 == high.value
    assert [row.ours[-1] is None for row in values.rows].count(True) == 1
    form = found.to_json()
    assert form["recommendation"]["cells"] == ("pt:X>sft:SHQ",)
    assert form["values"]["pass@8"]["pt:base>sft:SHQ"] == 0.0


def test_four_cells_with_rl_are_too_few_and_the_page_says_so() -> None:
    found = measured(4)
    assert (found.quality, found.recommendation) == ((), None)
    (values,) = proxy_tables(found)
    assert "4 cells have both; 5 cells are the least that can say anything" in values.caption


def test_losses_on_other_held_out_sets_are_no_proxy_and_pass_at_k_stays() -> None:
    found = measured(5, **{"pt:LDQ>sft:SHQ": {"tokens": 11}})
    assert LOSS not in {one.name for one in found.quality}
    assert "pass@1" in {one.name for one in found.quality}
    assert any(text.startswith(f"{LOSS}: held-out sets") for text in found.refused)


def test_where_every_cell_has_had_rl_nothing_is_recommended() -> None:
    assert advice(measured(7)) == "Every cell has had RL."


def test_forgetting_is_the_change_of_the_base_suite_from_each_start() -> None:
    def base(share: float) -> ResultFile:
        return one_file({"p": share, "q": share}, suite="base", benchmark="recall", category="gpr")

    sft, rl = "pt:LDQ>sft:SHQ", "pt:LDQ>sft:SHQ>rl:CrossThink"
    cells = Cells(
        files={
            "pt:LDQ": [base(1.0)],
            sft: [base(0.5), one_file({"a": 0.5})],
            rl: [base(0.25)],
            "pt:SHQ>sft:SHQ": [one_file({"a": 0.5})],  # asked the SFT suite alone
        }
    )
    rows = {row.cell: [n.value if n else None for n in row.ours] for row in forgetting(cells).rows}
    assert rows == {
        sft: [100.0, 50.0, -50.0, 100.0, 50.0, -50.0],
        rl: [50.0, 25.0, -25.0, 50.0, 25.0, -25.0],
    }


def test_a_study_asks_tuned_models_the_base_suite_where_it_says_so() -> None:
    study = load_study("laptop", overrides=["evaluation.suites_of_tuned=[sft, base]"])
    roles = study.tabulate.recipe.cells["pt:LMQ>sft:SHQ>rl:CrossThink"]
    assert [study.tabulate.inputs[role].recipe.suite for role in roles] == ["sft", "base"]
    usual = {stage.key for stage in load_study("laptop").stages if stage.kind == "evaluate"}
    assert usual < {stage.key for stage in study.stages}


def test_every_sft_cell_has_a_proxy_evaluation_and_no_other_key_moves() -> None:
    study, usual = load_study("laptop", overrides=[KNOBS]), load_study("laptop")
    proxies = study.tabulate.recipe.proxies
    assert set(proxies) == {
        cell for cell in usual.tabulate.recipe.cells if ">sft" in cell and ">rl" not in cell
    }
    recipe = study.tabulate.inputs[proxies["pt:base>sft:SHQ"][0]].recipe
    assert (recipe.num_samples, recipe.num_hard_samples, recipe.items_per_benchmark) == (64, 64, 5)
    keys = {stage.key for stage in usual.stages} - {usual.tabulate.key}
    assert keys < {stage.key for stage in study.stages}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([KNOBS.replace("64", "1")], r"proxies\.num_samples"),
        ([KNOBS.replace(": 5", ": 0")], r"proxies\.items_per_benchmark"),
        (
            [KNOBS, *(f"evaluation.sft.{name}" for name in GREEDY)],
            "pass@k is pass@1",
        ),
        (["evaluation.suites_of_tuned=[]"], "suites_of_tuned: is empty"),
    ],
)
def test_wrong_knobs_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_study("laptop", overrides=overrides)


def test_the_first_questions_of_each_benchmark_are_kept_in_order(tmp_path: Path) -> None:
    del tmp_path

    def item(name: str, benchmark: str) -> FewShotItem:
        fields = dict.fromkeys(FewShotItem.__dataclass_fields__, "")
        return FewShotItem(**(fields | {"id": name, "benchmark": benchmark}))  # type: ignore[arg-type]

    items = [item("a1", "a"), item("b1", "b"), item("a2", "a"), item("a3", "a")]
    assert [one.id for one in first_of_benchmarks(list(items), 2)] == ["a1", "b1", "a2"]
    assert first_of_benchmarks(list(items), 0) == items
