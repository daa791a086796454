"""The table of graded cases: what a person wrote, the grader says."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontload.eval.grading.grade import Grader, Kind, Reason, Reference
from frontload.eval.grading.layout import AnswerLayout, FormatProblem
from frontload.eval.grading.pool import MathLimits

TABLE: dict[str, list[list[Any]]] = yaml.safe_load(
    Path(__file__).with_name("graded_cases.yaml").read_text(encoding="utf-8")
)
REASONS = {*Reason, *FormatProblem}


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    # less than a grader has: a case that is to time out costs the suite the whole limit
    with closing(Grader(limits=MathLimits(cpu_seconds=2.0, seconds=60.0))) as grader:
        yield grader


def well_formed(answer: str) -> str:
    return f"<think>steps</think>\nThe answer is \\boxed{{{answer}}}."


def test_the_table_covers_every_reason_that_a_text_can_have() -> None:
    """Memory and crash need no special text: test_grade_process.py has them."""
    seen = {case[-1] for cases in TABLE.values() for case in cases}
    assert seen <= {str(reason) for reason in REASONS}
    missing = {str(reason) for reason in REASONS} - seen
    assert missing == {Reason.MEMORY, Reason.CRASH, Reason.TOO_LONG, Reason.RESTATED}
    assert sum(len(cases) for cases in TABLE.values()) >= 150
    assert len({repr(case[:-1]) for cases in TABLE.values() for case in cases}) >= 150


@pytest.mark.parametrize(("gold", "answer", "reason"), TABLE["answers"], ids=repr)
def test_an_answer(grader: Grader, gold: str, answer: str, reason: str) -> None:
    reference = Reference(gold=gold, kind=Kind.ANSWER, layout=AnswerLayout.THINK_BOXED)
    grade = grader.grade(well_formed(answer), reference)
    assert (grade.reason, grade.correct) == (reason, reason == "right")
    assert grade.reward == float(reason == "right")


@pytest.mark.parametrize(("gold", "options", "answer", "reason"), TABLE["choices"], ids=repr)
def test_a_choice(grader: Grader, gold: str, options: list[str], answer: str, reason: str) -> None:
    reference = Reference(
        gold=gold, kind=Kind.CHOICE, layout=AnswerLayout.THINK_BOXED, options=tuple(options)
    )
    grade = grader.grade(well_formed(answer), reference)
    assert (grade.reason, grade.correct) == (reason, reason == "right")


@pytest.mark.parametrize(
    ("layout", "gold", "response", "correct", "reason"), TABLE["responses"], ids=repr
)
def test_a_response(
    grader: Grader, layout: str, gold: str, response: str, *, correct: bool, reason: str
) -> None:
    reference = Reference(gold=gold, kind=Kind.ANSWER, layout=AnswerLayout(layout))
    grade = grader.grade(response, reference)
    assert (grade.reason, grade.correct) == (reason, correct)
    assert grade.formatted == (reason not in {str(problem) for problem in FormatProblem})
    assert grade.reward == float(reason == "right")
