"""Properties of grading that hold for any text: bounded, total, and the gold answer is right."""

import time
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.data_tools.prompts.choices import LETTERS, chosen_letter, find_options
from frontload.eval.grading.algebra import DIFFERENT
from frontload.eval.grading.answer import AnswerVerdict, compare_answers, plain_form
from frontload.eval.grading.grade import Kind, Reason, Reference, grade_response
from frontload.eval.grading.layout import AnswerLayout, FormatProblem, last_boxed
from frontload.eval.grading.number import read_quantity

PIECES = st.sampled_from(
    [
        "\\boxed{",
        "\\fbox {",
        "{",
        "}",
        "\\{",
        "\\\\",
        "<think>",
        "</think>",
        "<|answer|>",
        "<|end|>",
    ]
    + ["5", "1/2", "\\frac", "^", "_", "$", "%", ",", ".", " ", "\n", "A", "(B)", "x", "e9", "\x00"]
    + ["\u2212", "\u00b2", "\u00bd", "\ud800", "\\text{cm}", "0" * 50, "\\left(", "'", "**"]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=40).map("".join))
KINDS, LAYOUTS = st.sampled_from(list(Kind)), st.sampled_from(list(AnswerLayout))
REASONS = {*map(str, Reason), *map(str, FormatProblem)}
RATIONALS = st.fractions(min_value=-10_000, max_value=10_000, max_denominator=500)
PROSE = st.text(alphabet="abcdefghijklmnopqrstuvwxyz ", min_size=3, max_size=30)


def never_same(gold: str, prediction: str) -> str:
    """Stands for computer algebra where a property must hold without it."""
    return DIFFERENT


def reward_of(answer: str, *, gold: str, kind: Kind = Kind.ANSWER) -> float:
    reference = Reference(gold=gold, kind=kind, layout=AnswerLayout.THINK_BOXED)
    response = f"<think>steps</think>\n\\boxed{{{answer}}}"
    return grade_response(response, reference, compare_math=never_same).reward


@settings(max_examples=400)
@given(response=TEXTS, gold=TEXTS, kind=KINDS, layout=LAYOUTS, options=st.lists(TEXTS, max_size=5))
def test_grading_is_total(
    response: str, gold: str, kind: Kind, layout: AnswerLayout, options: list[str]
) -> None:
    reference = Reference(gold=gold, kind=kind, layout=layout, options=tuple(options))
    started = time.process_time()
    grade = grade_response(response, reference, compare_math=never_same)
    assert time.process_time() - started < 1.0
    assert grade.reason in REASONS
    assert grade.reward == float(grade.correct and grade.formatted)
    assert (grade.reason == Reason.RIGHT) == (grade.reward == 1)
    assert not grade.correct or grade.extracted


@settings(max_examples=300)
@given(number=RATIONALS)
def test_every_way_to_write_a_number_is_right(number: Fraction) -> None:
    above, below = abs(number.numerator), number.denominator
    sign = "-" if number < 0 else ""
    forms = [
        f"{number}",
        f"{sign}\\frac{{{above}}}{{{below}}}",
        f"\\dfrac{{{number.numerator}}}{{{below}}}",
        f" {sign}{above} / {below} ",
        f"${number}$",
        f"\\text{{{number}}}",
        f"{number}.",
        f"{number} cm",
    ]
    if below == 1:
        forms += [f"{number.numerator:,}", f"{number.numerator}.0", f"{number.numerator}e0"]
    if above > below > 1:
        forms.append(f"{sign}{above // below}\\frac{{{above % below}}}{{{below}}}")
    if 10_000 % below == 0:
        forms.append(f"{float(number):.4f}")
    for form in forms:
        assert reward_of(form, gold=str(number)) == 1, form
        assert reward_of(str(number), gold=form) == 1, form


@settings(max_examples=300)
@given(gold=RATIONALS, other=RATIONALS)
def test_another_number_is_wrong(gold: Fraction, other: Fraction) -> None:
    assert reward_of(str(other), gold=str(gold)) == float(gold == other)
    quantity = read_quantity(plain_form(f"\\frac{{{other.numerator}}}{{{other.denominator}}}"))
    assert quantity is not None
    assert quantity.value == other


@settings(max_examples=200)
@given(gold=PROSE.filter(str.strip), other=PROSE)
def test_words_are_right_when_they_are_the_same_words(gold: str, other: str) -> None:
    assert reward_of(gold, gold=gold) == 1
    assert reward_of(f"\\text{{{gold.upper()}}}", gold=gold) == 1
    assert reward_of(f"  {gold}. ", gold=gold) == 1
    comparison = compare_answers(gold, other)
    if comparison.verdict == AnswerVerdict.SAME:
        assert "".join(gold.split()) == "".join(other.split())


@settings(max_examples=200)
@given(gold=TEXTS, noise=TEXTS)
def test_the_gold_answer_is_right_wherever_it_can_stand(gold: str, noise: str) -> None:
    """Any gold answer that is an answer at all: one that a box can hold and that says something."""
    boxed = f"\\boxed{{{gold}}}"
    # braces that are not balanced, or another box inside, would make it another answer
    if last_boxed(boxed) != gold or not plain_form(gold) or "think>" in gold + noise:
        return
    reference = Reference(gold=gold, kind=Kind.ANSWER, layout=AnswerLayout.THINK_BOXED)
    response = f" <think>{noise}</think> so {boxed}"
    grade = grade_response(response, reference, compare_math=never_same)
    assert (grade.reward, grade.extracted) == (1, gold.strip())


@settings(max_examples=200)
@given(
    words=st.lists(
        st.text(alphabet="abcdefgh", min_size=2, max_size=8), min_size=2, max_size=10, unique=True
    ),
    data=st.data(),
)
def test_options_are_found_and_chosen_in_every_form(words: list[str], data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(["{}. ", "{}) ", "({}) ", "{}: "]))
    between = data.draw(st.sampled_from(["\n", " "]))
    listed = between.join(
        label.format(letter) + word for letter, word in zip(LETTERS, words, strict=False)
    )
    options = find_options(f"Which one?{between}{listed}")
    assert options == tuple(words)
    number = data.draw(st.integers(0, len(words) - 1))
    letter, word = LETTERS[number], words[number]
    for form in (letter, letter.lower(), f"({letter})", f"{letter}. {word}", word, word.upper()):
        assert chosen_letter(form, options) == letter, form
    other = LETTERS[(number + 1) % len(words)]
    assert chosen_letter(f"{other}. {word}", options) == ""
    assert chosen_letter(f"{letter} or {other}", options) == ""
