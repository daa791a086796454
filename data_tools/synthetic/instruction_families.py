"""Families of the domain ins: instructions about a list of words, whose result can be checked."""

import random

from frontload.data_tools.synthetic.problem import Family, Solution, labelled, run_program
from frontload.data_tools.synthetic.vocabulary import OBJECTS, WORD_KINDS, WORDS

LONGEST_LIST = 4


def _draw_write(rng: random.Random, level: int) -> str:
    operations = [rng.choice(WORDS)]
    length = 1
    for _ in range(level):
        orders = ["again", "word"] if length < LONGEST_LIST else []
        orders += ["undo"] if length > 1 else []
        order = rng.choice(orders)
        operations.append(rng.choice(WORDS) if order == "word" else order)
        length += -1 if order == "undo" else 1
    return f"write {labelled(operations)}"


def _apply_write(written: list[str], operation: list[str]) -> list[str]:
    match operation:
        case ["again"]:
            return [*written, written[-1]]
        case ["undo"]:
            return written[:-1]
        case [word]:
            return [*written, word]
    raise ValueError(f"no order to write: {' '.join(operation)}")


def _draw_keep(rng: random.Random, level: int) -> str:
    kind = rng.choice(tuple(WORD_KINDS))
    words = [rng.choice(WORD_KINDS[kind]), *(rng.choice(WORDS) for _ in range(level))]
    return f"keep {kind} {labelled(words)}"


def _solve_keep(question: str) -> Solution:
    kept_words = WORD_KINDS[question.split()[1]]

    def apply(kept: list[str], operation: list[str]) -> list[str]:
        return [*kept, *(word for word in operation if word in kept_words)]

    return run_program(question, apply)


def _draw_drop(rng: random.Random, level: int) -> str:
    first, left_out, *others = rng.sample(OBJECTS, level + 1)
    rest = [left_out, *others]
    rng.shuffle(rest)
    return f"drop {left_out} {labelled([first, *rest])}"


def _solve_drop(question: str) -> Solution:
    left_out = question.split()[1]

    def apply(kept: list[str], operation: list[str]) -> list[str]:
        return [*kept, *(word for word in operation if word != left_out)]

    return run_program(question, apply)


INSTRUCTION_FAMILIES = (
    Family(
        name="write",
        domain="ins",
        levels=(2, 4),
        draw=_draw_write,
        solve=lambda question: run_program(question, _apply_write),
    ),
    Family(name="keep", domain="ins", levels=(2, 4), draw=_draw_keep, solve=_solve_keep),
    Family(name="drop", domain="ins", levels=(2, 4), draw=_draw_drop, solve=_solve_drop),
)
