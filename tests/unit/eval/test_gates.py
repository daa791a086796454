"""Gates before a score is shown, each on results that pass and results that do not; and floors."""

from contextlib import closing

import pytest

from frontload.eval.grading.grade import Grader, Kind, Reference
from frontload.eval.grading.layout import AnswerLayout
from frontload.eval.statistics import gates
from frontload.eval.statistics.floors import AskedItem, measure_floors
from tests.unit.eval.sampled import choice, flags, generated, sample

QUESTIONS = [
    "Tom has five red apples and gives two of them to his sister Anna. How many are left?",
    "A train leaves the old station at nine and arrives at noon after three stops on the way.",
    "What is 2 + 2?",
]


def test_a_gold_answer_that_is_graded_wrong_is_named() -> None:
    good, bad = flags("good", "1"), generated("bad", [sample(correct=True)], gold=False)
    assert gates.gold_is_right([good]).is_passed
    gate = gates.gold_is_right([good, bad])
    assert not gate.is_passed
    assert gate.said == "1 of 2 gold answers are graded wrong (bad)"


def test_options_that_score_alike_were_not_scored() -> None:
    fine = [choice("a", [-1.0, -2.0]), choice("b", [-1.0, -1.0, -2.0])]
    assert gates.options_differ(fine).is_passed
    gate = gates.options_differ([*fine, choice("c", [0.0, 0.0, 0.0, 0.0])])
    assert not gate.is_passed
    assert "1 of 3 questions" in gate.said


@pytest.mark.parametrize(("empty", "is_passed"), [(0, True), (2, True), (3, False)])
def test_a_checkpoint_that_writes_nothing_is_marked(empty: int, *, is_passed: bool) -> None:
    samples = [sample(answer="x")] * (100 - empty) + [sample(answer=" \n")] * empty
    gate = gates.texts_are_written([generated("a", samples)])
    assert gate.is_passed == is_passed
    assert gate.said == f"{empty} of 100 texts are empty"


def test_a_question_among_the_worked_examples_is_seen() -> None:
    assert gates.examples_are_others(QUESTIONS, ["Another question?"]).is_passed
    spaced = "  what is\u00a02 + 2? "
    gate = gates.examples_are_others(QUESTIONS, ["Another question?", spaced, spaced])
    assert not gate.is_passed
    assert gate.said == "1 of the 2 worked examples are questions of the test"


def test_options_without_a_letter_are_named() -> None:
    fine = {"a": [" yes", " no"], "b": ["\n1"]}
    assert gates.options_are_written(fine).is_passed
    gate = gates.options_are_written({**fine, "c": [" yes", " "]})
    assert gate.is_passed is False
    assert gate.said == "1 of 3 questions have an option without a letter (c)"


def test_the_digest_of_the_prompts_knows_each_of_them() -> None:
    prompts = {"a": "Question: 1", "b": "Question: 2"}
    stated = gates.prompt_digest(prompts)
    assert len(stated) == 16
    assert gates.prompts_are_known(dict(reversed(prompts.items())), stated=stated).is_passed
    for other in ({"a": "Question: 1"}, {"a": "Question: 2", "b": "Question: 1"}):
        gate = gates.prompts_are_known(other, stated=stated)
        assert gate.is_passed is False
        found = gates.prompt_digest(other)
        assert gate.said == f"the digest of {len(other)} prompts is {found}, stated is {stated}"
    unknown = gates.prompts_are_known(prompts, stated=None)
    assert unknown.is_passed is None
    assert unknown.said == f"the digest of 2 prompts is {stated}; no other is stated"


def test_a_question_in_the_training_texts_is_found() -> None:
    """In the middle of a text, in other case and signs; a question of four words is too short."""
    asked = {"first": QUESTIONS[:1], "second": QUESTIONS[1:], "short": QUESTIONS[2:]}
    clean = ["An apple a day keeps the doctor away, as the old saying goes.", "What is 2 + 2? 4"]
    found = gates.corpus_is_clean(asked, clean)
    assert [gate.is_passed for gate in found.values()] == [True, True, None]
    assert found["first"].said == "0 of 1 questions stand in the training texts"
    assert found["second"].said.endswith("; 1 are too short to look for")
    dirty = f"Exercises: {QUESTIONS[0].upper().replace('.', ' -')} Three. And so on."
    found = gates.corpus_is_clean(asked, [*clean * 200, dirty, dirty])
    assert [gate.is_passed for gate in found.values()] == [False, True, None]
    assert found["first"].said == "1 of 1 questions stand in the training texts"


def test_without_training_texts_nothing_is_said_to_be_clean() -> None:
    found = gates.corpus_is_clean({"a": QUESTIONS, "b": QUESTIONS}, None)
    assert {gate.is_passed for gate in found.values()} == {None}
    assert gates.marks(found.values()) == ()


def test_only_gates_that_fail_mark_a_number() -> None:
    passed = gates.options_differ([choice("a", [-1.0, -2.0])])
    failed = gates.options_differ([choice("a", [0.0, 0.0])])
    assert gates.marks([passed, failed]) == (
        "options: all options score alike in 1 of 1 questions",
    )


def test_floors_are_what_the_real_grader_pays_for_no_answer() -> None:
    items = [
        AskedItem(id=str(number), question=question, gold=gold)
        for number, (question, gold) in enumerate(
            [("Is 7 prime?", "7"), ("2 + 2", "4"), ("8 / 2", "4.0"), ("16 / 4", "4"), ("7", "7")]
        )
    ]
    with closing(Grader()) as grader:

        def is_right(item: AskedItem, text: str) -> bool:
            reference = Reference(
                gold=item.gold,
                kind=Kind.ANSWER,
                layout=AnswerLayout.BOXED,
                question=item.question,
            )
            return grader.grade(text, reference).correct

        found = measure_floors(
            items, is_right=is_right, respond=lambda answer: f"\\boxed{{{answer}}}"
        )
    assert found.constant_answer == "4"  # as often as 7, and the first in order
    assert found.constant.value == pytest.approx(3 / 5)  # 4 is also right where 4.0 is asked
    assert found.empty.value == 0
    # `8 / 2` is the number 4 as it stands, `7` asks for itself; `2 + 2` is only the question
    assert found.echoed.value == pytest.approx(3 / 5)
    assert found.highest == 3 / 5
    assert found.empty.num_units == 5
