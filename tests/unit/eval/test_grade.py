"""From a generation's text to right or wrong."""

import pytest

from frontload.data_tools.synthetic.families import FAMILIES, generate
from frontload.data_tools.synthetic.problem import random_stream
from frontload.eval.grading.grade import (
    Kind,
    Reason,
    Reference,
    final_answer,
    grade_generation,
    grade_response,
    is_correct,
    normalised,
)
from frontload.eval.grading.layout import AnswerLayout


@pytest.mark.parametrize(
    ("text", "answer", "failure"),
    [
        ("a = 1 <|answer|> 7 2 <|end|>", "7 2", ""),
        ("<|answer|> 7 <|end|> <|answer|> 8 <|end|>", "7", ""),
        ("<|answer|> 6 <|answer|> 7 <|end|>", "7", ""),
        ("<|answer|>7<|end|>", "7", ""),
        ("<|answer|> <|end|>", "", ""),
        ("a = 1 7 <|end|>", "", "no answer mark"),
        ("a = 1 <|end|> <|answer|> 7", "", "no answer mark"),
        ("a = 1 <|answer|> 7", "", "no end"),
        ("", "", "no answer mark"),
    ],
)
def test_the_final_answer_stands_between_the_last_mark_and_the_end(
    text: str, answer: str, failure: str
) -> None:
    found = final_answer(text)
    assert (found.text, found.format_failure) == (answer, failure)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_grades_its_own_solution_right_and_others_wrong(family: str) -> None:
    problem = generate(
        random_stream(1, "grade", family), family, level=FAMILIES[family].levels[0], heldout=True
    )
    answer, question = problem.solution.answer, problem.question
    assert is_correct(question, f"  {answer} ", gold="the stored text is not asked", family=family)
    assert not is_correct(question, answer + " x", gold=answer + " x", family=family)
    assert not is_correct(question, "", gold="", family=family)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("$1,200.50.", "1200.5"),
        ("18", "18.0"),
        ("18", " 18 ."),
        ("-0", "0"),
        ("+7", "7"),
        ("007", "7"),
        ("New  York", "new york"),
        ("50%", "50.0 %"),
        ("1,000,000", "1000000"),
        ("100", "1e2".replace("1e2", "100.00")),
    ],
)
def test_equal_answers_of_own_data_are_equal(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert is_correct("any", one, gold=other, family="own")


@pytest.mark.parametrize(
    ("one", "other"),
    [("50%", "50"), ("1.5", "15"), ("-7", "7"), ("100", "1"), ("a b", "a c"), ("", "0")],
)
def test_different_answers_of_own_data_stay_different(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def no_algebra(gold: str, prediction: str) -> str:
    raise AssertionError("a family is graded without algebra")


@pytest.mark.parametrize(
    ("text", "correct", "reason"),
    [
        ("{steps} <|answer|> {answer} <|end|>", True, "right"),
        ("{steps} <|answer|>   {answer}<|end|> {steps}", True, "right"),
        ("{steps} <|answer|> {answer} {answer} <|end|>", False, "wrong"),
        ("{steps} <|answer|> <|end|>", False, "wrong"),
        ("{steps} <|answer|> {answer}", False, "no end"),
        ("{steps} {answer} <|end|>", False, "no answer mark"),
        ("", False, "no answer mark"),
    ],
)
@pytest.mark.parametrize("family", ["add", "chain"])
def test_evaluation_and_reward_of_a_family_are_one_grade(
    family: str, text: str, *, correct: bool, reason: str
) -> None:
    level = FAMILIES[family].levels[0]
    problem = generate(random_stream(2, "grade", family), family, level=level, heldout=False)
    answer, question = problem.solution.answer, problem.question
    response = text.format(steps="a b c", answer=answer)
    grade = grade_generation(response, question=question, gold="not asked", family=family)
    assert (grade.correct, grade.reason) == (correct, reason)
    assert grade.reward == float(correct)
    assert grade.formatted == (reason in (Reason.RIGHT, Reason.WRONG))
    reference = Reference(
        gold="not asked",
        kind=Kind.FAMILY,
        layout=AnswerLayout.MARKS,
        question=question,
        family=family,
    )
    assert grade_response(response, reference, compare_math=no_algebra) == grade


def test_own_data_is_graded_by_its_normalised_answer() -> None:
    reference = Reference(
        gold="$1,200", kind=Kind.FAMILY, layout=AnswerLayout.THINK_BOXED, family="own"
    )
    for answer, reward in (("1200.0", 1), ("1201", 0)):
        response = f"<think>a</think> \\boxed{{{answer}}}"
        assert grade_response(response, reference, compare_math=no_algebra).reward == reward
