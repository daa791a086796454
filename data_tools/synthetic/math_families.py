"""Families that stand for math: left-to-right sums, column addition, word problems, variables."""

import random

from frontload.data_tools.synthetic.problem import (
    Family,
    Solution,
    labelled,
    operations_of,
    run_program,
)
from frontload.data_tools.synthetic.vocabulary import GAINS, LETTERS, NAMES, OBJECTS

SIGNS = ("+", "-")
LARGEST_OPERAND = 3  # found: with all ten operands no family left the floor after 0.8 M tokens


def add_digits(left: int, sign: str, right: int) -> int:
    """Addition or subtraction of one-digit numbers, modulo 10."""
    return (left + right if sign == "+" else left - right) % 10


def draw_change(rng: random.Random) -> str:
    """A sign and a small operand: `+ 2`."""
    return f"{rng.choice(SIGNS)} {rng.randint(1, LARGEST_OPERAND)}"


def _draw_chain(rng: random.Random, level: int) -> str:
    later = [draw_change(rng) for _ in range(level)]
    return f"eval {labelled([str(rng.randrange(10)), *later])}"


def _apply_chain(state: list[str], operation: list[str]) -> list[str]:
    match operation:
        case [start]:
            return [start]
        case [sign, operand]:
            return [str(add_digits(int(state[0]), sign, int(operand)))]
    raise ValueError(f"no operation of a sum: {' '.join(operation)}")


def _draw_add(rng: random.Random, level: int) -> str:
    columns = [f"{rng.randrange(10)} + {rng.randint(0, LARGEST_OPERAND)}" for _ in range(level)]
    return f"sum {labelled(columns)}"


def _apply_add(state: list[str], operation: list[str]) -> list[str]:
    """Columns, least significant first. A state is `carry digit`: the last is the sum's two top
    digits."""
    upper, _, lower = operation
    carry = int(state[0]) if state else 0
    return [str(part) for part in divmod(int(upper) + int(lower) + carry, 10)]


def _draw_story(rng: random.Random, level: int) -> str:
    later = [f"{rng.choice(tuple(GAINS))} {rng.randint(1, LARGEST_OPERAND)}" for _ in range(level)]
    operations = labelled([f"has {rng.randrange(10)}", *later])
    return f"{rng.choice(NAMES)} {rng.choice(OBJECTS)} {operations}"


def _matter_of_story(question: str) -> str:
    """A story without its person and thing: neither changes the number."""
    return " ".join(question.split()[2:])


def _apply_story(state: list[str], operation: list[str]) -> list[str]:
    verb, number = operation
    if verb == "has":
        return [number]
    return [str((int(state[0]) + GAINS[verb] * int(number)) % 10)]


def _draw_var(rng: random.Random, level: int) -> str:
    names = rng.sample(LETTERS, level + 1)
    definitions = [f"{names[0]} is {rng.randrange(10)}"]
    for before, name in zip(names, names[1:], strict=False):
        definitions.append(f"{name} is {before} {draw_change(rng)}")
    return f"find {rng.choice(names[1:])} given {labelled(definitions)}"


def _matter_of_var(question: str) -> str:
    """The definitions with their variables renamed in order: a name is arbitrary."""
    words = question.split()
    names = [definition[0] for _, definition in operations_of(words)]
    renamed = dict(zip(names, LETTERS, strict=False))
    return " ".join(renamed.get(word, word) for word in words)


def _solve_var(question: str) -> Solution:
    """Definitions in order, worked until the variable that is asked for."""
    words = question.split()
    asked = words[1]
    values: dict[str, int] = {}
    steps = []
    for label, definition in operations_of(words):
        name, _, first, *change = definition
        if change:
            values[name] = add_digits(values[first], change[0], int(change[1]))
        else:
            values[name] = int(first)
        steps.append(f"{label} {' '.join(definition)} = {values[name]}")
        if name == asked:
            break
    states = tuple(str(value) for value in values.values())
    return Solution(steps=tuple(steps), states=states, answer=states[-1])


MATH_FAMILIES = (
    Family(
        name="chain",
        stands_for="math",
        levels=(2, 6),
        draw=_draw_chain,
        solve=lambda question: run_program(question, _apply_chain),
    ),
    Family(
        name="add",
        stands_for="math",
        levels=(2, 5),
        draw=_draw_add,
        solve=lambda question: run_program(question, _apply_add),
    ),
    Family(
        name="story",
        stands_for="math",
        levels=(2, 5),
        draw=_draw_story,
        solve=lambda question: run_program(question, _apply_story),
        matter=_matter_of_story,
    ),
    Family(
        name="var",
        stands_for="math",
        levels=(2, 5),
        draw=_draw_var,
        solve=_solve_var,
        matter=_matter_of_var,
    ),
)
