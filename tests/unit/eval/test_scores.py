"""Scores of per-item results, against numbers counted by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from frontload.eval.results import (
    ChoiceResult,
    GeneratedResult,
    Generation,
    Protocol,
    Result,
    ResultFile,
    read_results,
    write_results,
)
from frontload.eval.statistics.score import Scores, rescore, score
from frontload.recipes.errors import ArtifactError
from tests.unit.eval.graded import replayed

CONTEXT = 32
PROTOCOL = Protocol(
    suite="sft",
    num_samples=2,
    num_hard_samples=3,
    temperature=0.7,
    max_new_tokens=60,
    max_sequence_tokens=CONTEXT,
    num_shots=0,
    seed=0,
)
RIGHT = Generation(text="a 7", answer="7", correct=True, format_failure="", tokens=4)
WRONG = Generation(text="a 8", answer="8", correct=False, format_failure="", tokens=4)
CUT = Generation(text="a b c", answer="", correct=False, format_failure="no end", tokens=10)


def answered(name: str, *samples: Generation, category: str = "math") -> GeneratedResult:
    """One question of benchmark `category`, of family `chain`, which SHQ has too."""
    return GeneratedResult(
        id=name,
        benchmark=category,
        category=category,
        family="chain",
        question="how many?",
        gold="7",
        inside_shq=True,
        hard=False,
        prompt_tokens=8,
        num_shots=0,
        gold_correct=True,
        samples=samples,
    )


def scored(*results: Result, suite: str = "sft") -> Scores:
    protocol = replace(PROTOCOL, suite=suite)
    return score(ResultFile(protocol=protocol, results=results))


def test_a_question_counts_by_the_share_of_its_right_samples() -> None:
    (found,) = scored(
        answered("a", RIGHT, RIGHT), answered("b", RIGHT, CUT), answered("c", WRONG, CUT)
    ).benchmarks.values()
    assert found.accuracy.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.accuracy.num_units == 3, "questions, not samples"
    assert found.num_samples == 2
    assert found.format_failure_rate == pytest.approx(2 / 6)
    assert found.mean_tokens == pytest.approx((4 * 4 + 2 * 10) / 6)


def test_a_wrong_answer_in_the_right_format_is_no_format_failure() -> None:
    assert scored(answered("a", RIGHT, WRONG)).format_failure_rate == 0.0
    assert scored(answered("a", WRONG, CUT)).format_failure_rate == 0.5


def test_prompts_longer_than_the_models_training_are_counted() -> None:
    prompts = (1, CONTEXT - 1, CONTEXT, CONTEXT + 1, 2 * CONTEXT)
    (found,) = scored(
        *(replace(answered(str(n), RIGHT), prompt_tokens=n) for n in prompts)
    ).benchmarks.values()
    assert found.num_over_length == 2, "a prompt of just the trained length is none of them"


def test_shots_are_the_mean_over_the_questions_of_a_benchmark() -> None:
    (found,) = scored(
        replace(answered("a", RIGHT), num_shots=2),
        replace(answered("b", RIGHT), num_shots=1),
        suite="base",
    ).benchmarks.values()
    assert found.mean_shots == 1.5


def test_a_choice_is_right_when_the_gold_option_is_the_likeliest() -> None:
    choice = ChoiceResult(
        id="a", benchmark="box", category="gpr", prompt_tokens=4, gold=1, log_likelihoods=(-2, -1)
    )
    others = (
        replace(choice, id="b", log_likelihoods=(-1.0, -2.0)),
        replace(choice, id="c", log_likelihoods=(-1.0, -1.0)),  # the first of equals is the answer
        replace(choice, id="d", gold=0, log_likelihoods=(-1.0, -1.0)),
    )
    found = scored(choice, *others, suite="base")
    (benchmark,) = found.benchmarks.values()
    assert benchmark.accuracy.value == pytest.approx(2 / 4)
    assert (benchmark.kind, benchmark.num_samples) == ("choice", 1)
    assert benchmark.format_failure_rate is benchmark.mean_tokens is benchmark.mean_shots is None
    assert found.gold_replay.accuracy is None
    assert found.gold_replay.num_items == 0


def test_what_a_suite_lacks_is_named_and_has_no_average() -> None:
    found = scored(answered("a", RIGHT, category="ins"), answered("b", WRONG, category="code"))
    assert found.missing_categories == ("math", "science")
    assert found.averages["avg"].value == 0.5
    assert found.averages["flat8"].value == 0.0, "without instruction following"
    assert "flat8" not in scored(answered("a", RIGHT, category="ins")).averages
    nothing = scored(replayed("a", loss=1.0, tokens=2, greedy=1))
    assert nothing.averages == nothing.benchmarks == {}


def test_gold_answers_that_are_graded_wrong_are_named() -> None:
    wrong = replace(answered("b", RIGHT), gold_correct=False)
    found = scored(answered("a", RIGHT), wrong, answered("c", RIGHT), answered("d", RIGHT))
    assert found.gold_replay.failed == ("b",)
    assert (found.gold_replay.accuracy, found.gold_replay.num_items) == (0.75, 4)


def test_families_and_the_small_sets_questions_are_told_apart() -> None:
    other = replace(answered("c", WRONG), family="write", inside_shq=False)
    found = scored(answered("a", RIGHT), answered("b", WRONG), other)
    assert {name: one.value for name, one in found.families.items()} == {"chain": 0.5, "write": 0}
    assert {name: one.value for name, one in found.inside_shq.items()} == {
        "inside": 0.5,
        "outside": 0.0,
    }


def test_a_loss_weighs_tokens_and_cut_documents_are_counted() -> None:
    long = replace(replayed("b", loss=6.0, tokens=6, greedy=5), is_cut=True)
    other = replayed("c", loss=1.0, tokens=1, greedy=1)
    other = replace(other, family="write", domain="ins", inside_shq=False)
    found = scored(replayed("a", loss=1.0, tokens=2, greedy=0), long, other).heldout
    assert set(found) == {
        "all",
        "inside",
        "outside",
        "domain:math",
        "domain:ins",
        "family:chain",
        "family:write",
    }
    every = found["all"]
    assert every.loss.value == pytest.approx(8 / 9)
    assert every.step_accuracy.value == pytest.approx(6 / 9)
    assert (every.num_tokens, every.num_cut) == (9, 1)
    assert found["inside"].loss.value == pytest.approx(7 / 8)
    assert (found["outside"].num_tokens, found["outside"].num_cut) == (1, 0)


def test_a_group_without_a_scored_token_has_no_loss_and_spoils_no_other() -> None:
    empty = replace(replayed("b", loss=0.0, tokens=0, greedy=0), is_cut=True, family="write")
    found = scored(replayed("a", loss=1.0, tokens=2, greedy=1), empty).heldout
    assert "family:write" not in found
    assert found["all"].loss.value == 0.5
    assert found["all"].num_cut == 1, "its question filled the context: it is counted"
    assert scored(empty).heldout == {}


def test_results_read_back_as_they_were_written(tmp_path: Path) -> None:
    results = (
        answered("a", RIGHT, CUT),
        ChoiceResult(
            id="c", benchmark="b", category="gpr", prompt_tokens=4, gold=1, log_likelihoods=(-2, -1)
        ),
        replayed("h", loss=math.pi, tokens=3, greedy=2),
    )
    path = tmp_path / "items.jsonl"
    write_results(path, PROTOCOL, results=results)
    assert read_results(path) == ResultFile(protocol=PROTOCOL, results=results)
    assert rescore(path) == score(ResultFile(protocol=PROTOCOL, results=results))


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    write_results(path, PROTOCOL, results=[])
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ArtifactError, match=r"items.jsonl:1: .*another format than 1"):
        read_results(path)
