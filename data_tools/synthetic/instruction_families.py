"""Families of the domain ins: instructions about a list of words, whose result can be checked."""

import random
from functools import partial

from frontload.data_tools.synthetic.problem import Family, Solution, labelled, run_program
from frontload.data_tools.synthetic.vocabulary import OBJECTS, WORD_KINDS, WORDS

LONGEST_LIST = 4


def draw_write_order(rng: random.Random, length: int) -> str:
    """An order that leaves a list of this length neither empty nor too long."""
    orders = ["again", "word"] if length < LONGEST_LIST else []
    orders += ["undo"] if length > 1 else []
    order = rng.choice(orders)
    return rng.choice(WORDS) if order == "word" else order


def apply_write(written: list[str], operation: list[str]) -> list[str]:
    """The list after one order: another word, the last one `again`, or `undo`."""
    match operation:
        case ["again"]:
            return [*written, written[-1]]
        case ["undo"]:
            return written[:-1]
        case [word]:
            return [*written, word]
    raise ValueError(f"no order to write: {' '.join(operation)}")


def apply_keep(kept: list[str], operation: list[str], *, kind: str) -> list[str]:
    """The kept words after one more word, which is kept if it is of this kind."""
    return [*kept, *(word for word in operation if word in WORD_KINDS[kind])]


def apply_drop(kept: list[str], operation: list[str], *, left_out: str) -> list[str]:
    """The kept things after one more thing, unless it is the one to leave out."""
    return [*kept, *(word for word in operation if word != left_out)]


def _draw_write(rng: random.Random, level: int) -> str:
    operations = [rng.choice(WORDS)]
    written = apply_write([], operations)
    for _ in range(level):
        operations.append(draw_write_order(rng, len(written)))
        written = apply_write(written, operations[-1].split())
    return f"write {labelled(operations)}"


def _draw_keep(rng: random.Random, level: int) -> str:
    kind = rng.choice(tuple(WORD_KINDS))
    words = [rng.choice(WORD_KINDS[kind]), *(rng.choice(WORDS) for _ in range(level))]
    return f"keep {kind} {labelled(words)}"


def _solve_keep(question: str) -> Solution:
    return run_program(question, partial(apply_keep, kind=question.split()[1]))


def _draw_drop(rng: random.Random, level: int) -> str:
    first, left_out, *others = rng.sample(OBJECTS, level + 1)
    rest = [left_out, *others]
    rng.shuffle(rest)
    return f"drop {left_out} {labelled([first, *rest])}"


def _solve_drop(question: str) -> Solution:
    return run_program(question, partial(apply_drop, left_out=question.split()[1]))


INSTRUCTION_FAMILIES = (
    Family(
        name="write",
        domain="ins",
        levels=(2, 4),
        draw=_draw_write,
        solve=lambda question: run_program(question, apply_write),
    ),
    Family(name="keep", domain="ins", levels=(2, 4), draw=_draw_keep, solve=_solve_keep),
    Family(name="drop", domain="ins", levels=(2, 4), draw=_draw_drop, solve=_solve_drop),
)
