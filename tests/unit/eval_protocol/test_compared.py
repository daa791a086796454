"""Two evaluations beside each other: the sign, what is left out, what marks the pairing."""

from dataclasses import replace
from pathlib import Path

import pytest

from frontload.eval.compared.evaluations import compare_evaluations, comparison_lines
from frontload.eval.compared.page import write_page
from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.evaluation import evaluate_suite
from frontload.eval.results import GeneratedResult, read_results
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.runs.suite import SuiteRecipe
from tests.unit.eval_protocol.protocol_inputs import Scripted, few, quiet, request


def evaluated(
    suite: SuiteRecipe, root: DataRoot, out: Path, *, text: str, size: str = "tiny"
) -> Path:
    evaluate_suite(request(suite, root, out, size=size), Scripted(text), watch=quiet)
    return out


def gold_of(folder: Path) -> str:
    (row, *_) = read_results(folder / "items.jsonl").results
    assert isinstance(row, GeneratedResult)
    return row.gold


def test_the_first_less_the_second(made_root: DataRoot, tmp_path: Path) -> None:
    suite = few("sft", "gsm8k", "aime24")
    bad = evaluated(suite, made_root, tmp_path / "bad", text="no box")
    good = evaluated(suite, made_root, tmp_path / "good", text=f"\\boxed{{{gold_of(bad)}}}")
    found = compare_evaluations(good, bad)
    share = found.benchmarks["gsm8k"].first
    assert share > 0
    paired = found.benchmarks["gsm8k"].paired
    assert (paired.difference.value, paired.num_worse) == (share, 0)
    assert paired.num_better == share * 4
    assert compare_evaluations(bad, good).benchmarks["gsm8k"].paired.num_worse == share * 4
    aime = found.benchmarks["aime24"].paired.difference.value
    assert found.averages["avg"].value == found.averages["flat9"].value == (share + aime) / 2
    lines = "\n".join(comparison_lines(found))
    assert f"{100 * share:+.1f} +- " in lines
    assert "better 1, worse 0, equal 3" in lines or paired.num_better != 1
    assert "  avg    " in lines


def test_what_is_not_common_is_left_out_and_said(made_root: DataRoot, tmp_path: Path) -> None:
    one = evaluated(few("sft", "gsm8k", "aime24"), made_root, tmp_path / "one", text="1")
    few_rows = evaluated(few("sft", "gsm8k"), made_root, tmp_path / "two", text="1", size="full")
    found = compare_evaluations(one, few_rows)
    assert found.only_first == ("aime24",)
    assert found.averages == {}, "an average of fewer benchmarks is another number"
    paired = found.benchmarks["gsm8k"].paired
    assert (paired.difference.num_units, paired.only_first, paired.only_second) == (4, 2, 0)
    lines = "\n".join(comparison_lines(found))
    assert "2 questions of the second are left out" in lines
    assert "of the first alone: aime24" in lines
    other = evaluated(few("sft", "aime25"), made_root, tmp_path / "three", text="1")
    with pytest.raises(RecipeError, match="benchmarks gsm8k and aime25"):
        compare_evaluations(few_rows, other)
    with pytest.raises(ArtifactError):
        compare_evaluations(one, tmp_path / "nowhere")


def test_other_prompts_or_sampling_mark_the_difference(made_root: DataRoot, tmp_path: Path) -> None:
    suite = few("sft", "gsm8k")
    one = evaluated(suite, made_root, tmp_path / "one", text="1")
    same = compare_evaluations(one, one)
    assert not any(mark.startswith("same") for mark in same.benchmarks["gsm8k"].marks)
    assert "first: rows: made up: they judge nothing" in same.benchmarks["gsm8k"].marks
    asked = few("sft", "gsm8k", prompt="Solve: {question}")
    other = evaluated(asked, made_root, tmp_path / "other", text="1")
    (mark, *_) = compare_evaluations(one, other).benchmarks["gsm8k"].marks
    assert mark.startswith("same prompts: digests ")
    drawn = suite.benchmarks["gsm8k"].sampling
    assert drawn is not None
    hot = few("sft", "gsm8k", sampling=replace(drawn, temperature=1.0))
    hotter = evaluated(hot, made_root, tmp_path / "hot", text="1")
    (mark, *_) = compare_evaluations(one, hotter).benchmarks["gsm8k"].marks
    assert mark.startswith("same sampling: ")


def test_the_page_shows_every_gate_and_escapes(made_root: DataRoot, tmp_path: Path) -> None:
    one = evaluated(few("sft", "gsm8k", "gpqa"), made_root, tmp_path / "one", text="1")
    page = write_page(one, [compare_evaluations(one, one)]).read_text()
    assert page.count("<td>gsm8k</td>") == 7, "its gates"
    assert "<td>not asked</td>" in page
    assert ">NO<" in page
    assert "on the same questions" in page
    assert "&plusmn;" in page
