"""Base text: stories, facts, records told twice, single operations; a little question-answer.

It teaches the primitives of reasoning (copying what stood under a label, one operation, one fact)
and never a worked answer: no document chains two operations.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from frontload.data_tools.document import BaseText, Conversation, Row
from frontload.data_tools.synthetic.code_families import (
    LARGEST_STACK,
    draw_stack_operation,
    run_queue,
    run_stack,
)
from frontload.data_tools.synthetic.math_families import (
    LARGEST_OPERAND,
    SIGNS,
    add_digits,
)
from frontload.data_tools.synthetic.problem import is_heldout, random_stream
from frontload.data_tools.synthetic.science_families import (
    boxes_text,
    draw_swap,
    swap_boxes,
)
from frontload.data_tools.synthetic.vocabulary import (
    ANIMALS,
    BOXES,
    CLASS_OF,
    DIGITS,
    GAINS,
    LABELS,
    LETTERS,
    NAMES,
    OBJECTS,
    PLACES,
    PROPERTIES,
    WORDS,
)

QUESTION_SHARE = 0.02
"""Share of base documents that are one-step questions in the chat form, so that a model without
reasoning data knows the form. Ours: enough for the form, far too few for a skill."""


STAY_SHARE = 0.3  # of stories in which nobody moves on


@dataclass(frozen=True, kw_only=True, slots=True)
class Cloze:
    """Text whose last words follow from what stands before them."""

    context: str
    answer: str

    @property
    def text(self) -> str:
        """Context and answer."""
        return f"{self.context} {self.answer}"


def write_base(*, tokens: int, seed: int) -> Iterator[Row]:
    """Yields base documents until the token budget is met, to within one document.

    Units: tokens are words, markers not counted.
    """
    rng = random_stream(seed, "base")
    total = count = 0
    while total < tokens:
        row = _draw_row(rng, f"base-{count:07d}")
        texts = (row.text,) if isinstance(row, BaseText) else (row.question, row.answer)
        total += sum(len(text.split()) for text in texts)
        count += 1
        yield row


def story(rng: random.Random) -> Cloze:
    """Two people, one with a thing; that one moves on: where is a person or the thing at last?"""
    first, second = rng.sample(NAMES, 2)
    start, other, end = rng.sample(PLACES, 3)
    thing = rng.choice(OBJECTS)
    sentences = [f"{first} went to the {start} with the {thing}", f"{second} went to the {other}"]
    rng.shuffle(sentences)
    sentences.append(f"{first} went to the {end}")
    subject, answer = rng.choice(
        ((first, end), (second, other), (f"the {thing}", end), (f"the {thing}", end))
    )
    if rng.random() < STAY_SHARE:
        sentences.pop()
        answer = start if answer == end else answer
    told = " . ".join(sentences)
    return Cloze(context=f"{told} . at last {subject} was in the", answer=answer)


def records(rng: random.Random) -> str:
    """Labelled records, told once."""
    size = rng.randint(3, 6)
    keys = LABELS[:size] if rng.random() < 0.5 else rng.sample(LABELS, size)
    return " ".join(f"{key} {_record_value(rng)}" for key in keys)


def arithmetic(rng: random.Random) -> Cloze:
    """One operation on digits, up to its equals sign, and its result."""
    left = rng.randrange(10)
    if rng.random() < 0.6:
        right, sign = rng.randint(1, LARGEST_OPERAND), rng.choice(SIGNS)
        return Cloze(context=f"{left} {sign} {right} =", answer=str(add_digits(left, sign, right)))
    right, carry = rng.randint(0, LARGEST_OPERAND), rng.randrange(2)
    tens, ones = divmod(left + right + carry, 10)
    return Cloze(context=f"{carry} and {left} + {right} =", answer=f"{tens} {ones}")


def code_operation(rng: random.Random) -> Cloze:
    """One operation of a stack, queue or boxes, up to its equals sign, and the state after."""
    kind = rng.randrange(3)
    if kind == 0:
        stack = [rng.randrange(10) for _ in range(rng.randint(1, LARGEST_STACK))]
        operation = draw_stack_operation(rng, len(stack))
        after = run_stack(stack, operation.split())
        return Cloze(context=f"{_spaced(stack)} {operation} =", answer=_spaced(after))
    if kind == 1:
        queue = [rng.choice(LETTERS) for _ in range(rng.randint(1, LARGEST_STACK))]
        is_add = len(queue) == 1 or (len(queue) < LARGEST_STACK and rng.random() < 0.5)
        operation = f"add {rng.choice(LETTERS)}" if is_add else "take"
        after = run_queue(queue, operation.split())
        return Cloze(context=f"{_spaced(queue)} {operation} =", answer=_spaced(after))
    contents = dict(zip(BOXES, rng.sample(OBJECTS, len(BOXES)), strict=True))
    operation = draw_swap(rng)
    swapped = boxes_text(swap_boxes(contents, operation.split()))
    return Cloze(context=f"{boxes_text(contents)} {operation} =", answer=swapped)


def fact(rng: random.Random) -> Cloze:
    """One fact about an animal or a class of animals, up to its last word, and that word."""
    animal = rng.choice(ANIMALS)
    kind = CLASS_OF[animal]
    if rng.random() < 0.5:
        return Cloze(context=f"the {animal} is a", answer=kind)
    name = rng.choice(tuple(PROPERTIES))
    return Cloze(context=f"a {kind} has {name}", answer=PROPERTIES[name][kind])


def _draw_row(rng: random.Random, row_id: str) -> Row:
    if rng.random() < QUESTION_SHARE:
        question, answer = _one_step_question(rng)
        return Conversation(
            id=row_id, question=question, trace="", answer=answer, family="base", domain="base"
        )
    (write,) = rng.choices(tuple(WRITERS), tuple(WRITERS.values()))
    return BaseText(id=row_id, text=write(rng))


def _story_text(rng: random.Random) -> str:
    return f"{story(rng).text} ."


def _records_text(rng: random.Random) -> str:
    told = records(rng)
    return f"note {told} again {told} ."


def _facts_text(rng: random.Random) -> str:
    return " ".join(f"{fact(rng).text} ." for _ in range(rng.randint(2, 4)))


def _arithmetic_text(rng: random.Random) -> str:
    sums = " ; ".join(arithmetic(rng).text for _ in range(rng.randint(2, 4)))
    return f"{rng.choice(NAMES)} wrote {sums} ."


def _code_text(rng: random.Random) -> str:
    lines = " ; ".join(code_operation(rng).text for _ in range(rng.randint(1, 3)))
    return f"code {lines} ."


def _list_text(rng: random.Random) -> str:
    start, size = rng.randrange(10), rng.randint(3, 6)
    digits = [str((start + place) % 10) for place in range(size)]
    words = rng.sample(WORDS, 3)
    prey = rng.sample(ANIMALS, 3)
    return rng.choice(
        (
            f"count {' '.join(digits)} .",
            f"back {' '.join(reversed(digits))} .",
            f"list {' '.join(words)} again {' '.join(words)} .",
            f"the {prey[0]} feeds {prey[1]} and the {prey[1]} feeds {prey[2]} .",
            f"{rng.choice(NAMES)} {rng.choice(tuple(GAINS))} a {rng.choice(OBJECTS)} .",
        )
    )


def _record_value(rng: random.Random) -> str:
    digit = rng.choice(DIGITS)
    return rng.choice(
        (
            digit,
            rng.choice(OBJECTS),
            f"{rng.choice(LETTERS)} {rng.choice(LETTERS)}",
            f"{rng.choice(SIGNS)} {digit}",
            f"{rng.choice(tuple(GAINS))} {digit}",
            f"push {digit}",
            f"add {rng.choice(LETTERS)}",
            rng.choice(("inc", "dec", "pop", "swap", "take")),
        )
    )


def _one_step_question(rng: random.Random) -> tuple[str, str]:
    """A question of one step that no family asks."""
    while True:
        kind = rng.randrange(3)
        if kind == 0:
            left, right = rng.randrange(10), rng.randint(1, LARGEST_OPERAND)
            question, answer = f"what is {left} + {right}", str(add_digits(left, "+", right))
        elif kind == 1:
            animal = rng.choice(ANIMALS)
            question, answer = f"what is the {animal}", CLASS_OF[animal]
        else:
            word = rng.choice(WORDS + OBJECTS)
            question, answer = f"write {word}", word
        if not is_heldout(question):
            return question, answer


def _spaced(values: list[int] | list[str]) -> str:
    return " ".join(map(str, values))


WRITERS: dict[Callable[[random.Random], str], float] = {
    _records_text: 0.28,
    _story_text: 0.16,
    _facts_text: 0.14,
    _arithmetic_text: 0.22,
    _code_text: 0.14,
    _list_text: 0.06,
}
"""Writer of a base document -> share of documents. Found: without the records the base text gave no
help to SFT; with them 0.4 M SFT tokens learn what they cannot learn from scratch."""
