"""From the text of a response to right or wrong, for evaluation and for the reward of RL alike.

`final_answer` and `is_correct` are pure and enough for the study's own template and families. A
`Grader` also reads boxed answers, options, numbers and LaTeX, in bounded time for any response.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Self

from frontload.eval.grading import algebra
from frontload.eval.grading.answer import AnswerVerdict, compare_answers, compare_choice, plain_form
from frontload.eval.grading.layout import AnswerLayout, FormatProblem, Found, find_boxed
from frontload.eval.grading.pool import MathLimits, MathPool

ANSWER_MARK = "<|answer|>"
END_MARK = "<|end|>"

MOST_RESPONSE_CHARACTERS = 1 << 18  # ours: 8192 tokens are about 33,000 characters
MOST_ANSWER_CHARACTERS = 1000  # ours: the longest gold answer of MATH-500 has under 100

_NUMBER = re.compile(r"[-+]?(\d[\d,]*)?(\.\d+)?")
_TRAILING = ".,;:!"


@dataclass(frozen=True, kw_only=True)
class FinalAnswer:
    """What a generation answered. `format_failure` is "" when both marks are where they belong."""

    text: str
    format_failure: str  # "", "no answer mark" or "no end"


def final_answer(generation: str) -> FinalAnswer:
    """The text after the last answer mark, up to the end mark.

    A generation that was cut off before the end mark, or has no answer mark before it, is a format
    failure: it has no answer and counts as wrong.
    """
    body, end, _ = generation.partition(END_MARK)
    _, mark, answer = body.rpartition(ANSWER_MARK)
    if not mark:
        return FinalAnswer(text="", format_failure="no answer mark")
    if not end:
        return FinalAnswer(text="", format_failure="no end")
    return FinalAnswer(text=" ".join(answer.split()), format_failure="")


def is_correct(question: str, answer: str, *, gold: str, family: str) -> bool:
    """Whether a final answer is right.

    A synthetic family recomputes the answer from the question; for other items (a user's own data,
    whose family is not one of ours) the normalised answer must equal the normalised gold answer.
    """
    from frontload.data_tools.synthetic.families import FAMILIES, verify

    if family in FAMILIES:
        return verify(family, question, answer)
    return normalised(answer) == normalised(gold)


def normalised(answer: str) -> str:
    """A form in which equal answers are equal text.

    Spaces and case do not count; a number may carry thousands commas, a sign, a dollar or percent
    sign, trailing zeros and a final full stop: `$1,200.50.` is `1200.5`.
    """
    text = "".join(answer.split()).lower().rstrip(_TRAILING)
    bare = text.replace("$", "").removesuffix("%").rstrip(_TRAILING)
    if not bare or not _NUMBER.fullmatch(bare):
        return text
    try:
        value = Decimal(bare.replace(",", ""))
    except InvalidOperation:
        return text
    percent = "%" if text.endswith("%") else ""
    return f"{value.normalize() + 0:f}{percent}"


class Kind(StrEnum):
    """How a final answer is compared with the gold answer."""

    FAMILY = "family"
    """By `is_correct`: a synthetic family recomputes the answer, else normalised text."""
    CHOICE = "choice"
    """By the option that it names."""
    ANSWER = "answer"
    """By text, number or mathematics, whichever the gold answer is."""


class Reason(StrEnum):
    """Why a response has no reward, beside the format problems; RIGHT when it has."""

    RIGHT = "right"
    WRONG = "wrong"
    RESTATED = "restates the question"
    TOO_LONG = "too long"
    UNREADABLE = algebra.UNREADABLE
    TIMEOUT = algebra.TIMEOUT
    MEMORY = algebra.MEMORY
    CRASH = algebra.CRASH


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a response is graded against."""

    gold: str
    kind: Kind
    layout: AnswerLayout
    question: str = ""
    family: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Grade:
    """The outcome for one response: accuracy and format apart, and why there is no reward."""

    correct: bool
    formatted: bool
    reason: str  # of Reason or FormatProblem; a format problem is named before a wrong answer
    extracted: str

    @property
    def reward(self) -> float:
        """1 for a right answer in the right format, else 0.

        Source: Nemotron-CrossThink, "Rule Based Reward Modeling": R is the logical and of R_acc and
        R_format, no weighted sum.
        """
        return float(self.correct and self.formatted)


def grade_generation(text: str, *, question: str, gold: str, family: str) -> Grade:
    """The grade of a generation in this project's own template: the study's scores and reward.

    A generation that is not formatted has no answer, so it is not correct either.
    """
    final = final_answer(text)
    is_formatted = not final.format_failure
    right = is_formatted and is_correct(question, final.text, gold=gold, family=family)
    return Grade(
        correct=right,
        formatted=is_formatted,
        reason=final.format_failure or (Reason.RIGHT if right else Reason.WRONG),
        extracted=final.text,
    )


def row_reference(
    ground_truth: str, extra_info: Mapping[str, Any], *, layout: AnswerLayout
) -> Reference:
    """The reference of a row of `data_tools/prompts/rl_parquet.py`, as veRL's reward gets it."""
    return Reference(
        gold=ground_truth,
        kind=Kind(extra_info["kind"]),
        layout=layout,
        question=extra_info.get("question") or "",
        family=extra_info.get("family") or "",
        options=tuple(extra_info.get("options") or ()),
    )


CompareMath = Callable[[str, str], str]


def grade_response(response: str, reference: Reference, *, compare_math: CompareMath) -> Grade:
    """Grades one response; `compare_math(gold, prediction)` is asked where algebra must decide.

    Whatever the response holds, nothing is raised and no work is done that grows faster than it.
    """
    if len(response) > MOST_RESPONSE_CHARACTERS:
        return Grade(correct=False, formatted=False, reason=Reason.TOO_LONG, extracted="")
    found = _find(response, reference.layout)
    if not found.answer and found.problem:
        return Grade(correct=False, formatted=False, reason=found.problem, extracted="")
    if len(found.answer) > MOST_ANSWER_CHARACTERS:
        return Grade(
            correct=False, formatted=found.problem is None, reason=Reason.TOO_LONG, extracted=""
        )
    reason = _compare(found.answer, reference, compare_math)
    return Grade(
        correct=reason == Reason.RIGHT,
        formatted=found.problem is None,
        reason=found.problem or reason,
        extracted=found.answer,
    )


def _find(response: str, layout: AnswerLayout) -> Found:
    if layout != AnswerLayout.MARKS:
        return find_boxed(response, layout)
    final = final_answer(response)
    problem = FormatProblem(final.format_failure) if final.format_failure else None
    return Found(answer=final.text, problem=problem)


def _compare(answer: str, reference: Reference, compare_math: CompareMath) -> Reason:
    if reference.kind == Kind.FAMILY:
        right = is_correct(reference.question, answer, gold=reference.gold, family=reference.family)
        return Reason.RIGHT if right else Reason.WRONG
    if reference.kind == Kind.CHOICE:
        comparison = compare_choice(reference.gold, answer, reference.options)
    else:
        comparison = compare_answers(reference.gold, answer)
    if comparison.verdict != AnswerVerdict.OPEN:
        return Reason.RIGHT if comparison.verdict == AnswerVerdict.SAME else Reason.WRONG
    outcome = compare_math(comparison.gold, comparison.prediction)
    if outcome == algebra.SAME:
        is_copy = restates(reference.question, comparison.prediction)
        return Reason.RESTATED if is_copy else Reason.RIGHT
    return Reason.WRONG if outcome == algebra.DIFFERENT else Reason(outcome)


def restates(question: str, form: str) -> bool:
    """Whether an answer is an expression that the question itself asks to work out.

    Algebra finds `3+2` equal to 5: without this rule the way to a reward is to copy the question.
    """
    bare = form.replace(" ", "")
    has_operation = re.search(r"[-+*/^!]|\\[a-zA-Z]", bare[1:]) is not None
    return has_operation and bare in plain_form(question).replace(" ", "")


class Grader:
    """Grades responses and counts why they have no reward; holds the processes for algebra.

    Calls may come from several threads. `close`, or the end of a `with` block, ends the processes,
    which start when the first answer needs them.
    """

    def __init__(self, *, processes: int = 1, limits: MathLimits | None = None) -> None:
        self.pool = MathPool(size=processes, limits=limits)
        self.reasons: Counter[str] = Counter()
        self.comparisons: Counter[str] = Counter()

    def grade(self, response: str, reference: Reference) -> Grade:
        """The grade of one response."""
        grade = grade_response(response, reference, compare_math=self._compare_math)
        self.reasons[str(grade.reason)] += 1
        return grade

    def _compare_math(self, gold: str, prediction: str) -> str:
        outcome = self.pool.compare(gold, prediction)
        self.comparisons[outcome] += 1
        return outcome

    def close(self) -> None:
        """Ends the processes."""
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
