"""IFEval: instructions checked the same way every time, and IFEval's four numbers."""

import random
from typing import Any

import pytest

from frontload.eval.grading.instructions import (
    Following,
    InstructedPrompt,
    check_following,
    following_floors,
    following_scores,
    read_instructed,
)
from frontload.recipes.errors import RecipeError


def prompt(key: int = 1, **kinds: dict[str, Any]) -> InstructedPrompt:
    names = [name.replace("__", ":") for name in kinds]
    row = {
        "key": key,
        "prompt": "Write about tea, with no commas.",
        "instruction_id_list": names,
        "kwargs": [{**one, "other": None} for one in kinds.values()],
    }
    (read,) = read_instructed([row])
    return read


NO_COMMA = {"punctuation__no_comma": {}}
WORDS = {"length_constraints__number_words": {"relation": "at least", "num_words": 4}}
SENTENCES = {"length_constraints__number_sentences": {"relation": "less than", "num_sentences": 3}}
CAPITALS = {
    "change_case__capital_word_frequency": {"capital_relation": "at least", "capital_frequency": 2}
}


@pytest.mark.parametrize(
    ("kinds", "response", "strict", "loose"),
    [
        (NO_COMMA | WORDS, "Tea is very good.", (True, True), (True, True)),
        (NO_COMMA | WORDS, "Tea, yes.", (False, False), (False, False)),
        (NO_COMMA | WORDS, "Sure, here:\nTea is very good.", (False, True), (True, True)),
        (NO_COMMA | WORDS, "", (False, False), (False, False)),
        (NO_COMMA | WORDS, "<think>Tea is very good.", (False, False), (False, False)),
        (NO_COMMA | WORDS, "<think>a, b</think>Tea is very good.", (True, True), (True, True)),
        # NLTK's Punkt model knows that "Mr." and "Jan." end no sentence
        (SENTENCES, "Mr. Poe came on Jan. 5th. He left.", (True,), (True,)),
        (SENTENCES, "He came. He saw. He left.", (False,), (False,)),
        (CAPITALS, "NASA and ESA met.", (True,), (True,)),
        (CAPITALS, "NASA and others met.", (False,), (False,)),
    ],
)
def test_instructions_are_followed_strictly_or_loosely(
    kinds: dict[str, Any], response: str, strict: tuple[bool, ...], loose: tuple[bool, ...]
) -> None:
    found = check_following(prompt(**kinds), response)
    assert (found.strict, found.loose) == (strict, loose)


def test_a_response_is_judged_the_same_every_time_and_leaves_chance_alone() -> None:
    """A letter that the row leaves open is drawn, and a language is guessed from a short text."""
    draws = prompt(key=1129, keywords__letter_frequency={"let_relation": "at least"})
    language = prompt(language__response_language={"language": "es"})
    random.seed(5)
    state = random.getstate()
    found = [
        (
            check_following(draws, "a quick zebra jumps"),
            check_following(language, "hola no si la q"),
        )
        for _ in range(6)
    ]
    assert len(set(found)) == 1
    assert random.getstate() == state


def test_the_four_numbers_are_shares_of_prompts_and_of_instructions() -> None:
    scores = following_scores(
        [
            Following(key=1, strict=(True, True, False), loose=(True, True, True)),
            Following(key=2, strict=(True,), loose=(True,)),
        ]
    )
    assert (scores.prompt_strict, scores.prompt_loose) == (0.5, 1.0)
    assert (scores.instruction_strict, scores.instruction_loose) == (0.75, 1.0)
    assert (scores.num_prompts, scores.num_instructions) == (2, 4)


def test_floors_are_what_empty_echoed_and_constant_answers_score() -> None:
    floors = following_floors([prompt(**NO_COMMA), prompt(**WORDS), prompt(**SENTENCES)])
    assert {name: one.prompt_strict for name, one in floors.items()} == {
        "empty": 0.0,
        "echoed": pytest.approx(2 / 3),
        "constant": pytest.approx(2 / 3),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kwargs": None}, "no kwargs"),
        ({"instruction_id_list": ["new:kind"]}, "unknown instructions: new:kind"),
        ({"kwargs": [{}, {}]}, "2 kwargs for 1 kinds"),
    ],
)
def test_a_row_that_cannot_be_checked_is_refused(change: dict[str, Any], message: str) -> None:
    row = {"key": 1, "prompt": "a", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    row |= change
    row = {name: value for name, value in row.items() if value is not None}
    with pytest.raises(RecipeError, match=f"row 1 of IFEval: {message}"):
        list(read_instructed([row]))
