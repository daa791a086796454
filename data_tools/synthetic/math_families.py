"""Families of the domain math: left-to-right sums, column addition, word problems, variables."""

import random

from frontload.data_tools.synthetic.problem import (
    Family,
    Solution,
    labelled,
    operations_of,
    stepwise,
)
from frontload.data_tools.synthetic.vocabulary import GAINS, LETTERS, NAMES, OBJECTS

SIGNS = ("+", "-")
LARGEST_OPERAND = 3  # found: with all ten operands no family left the floor after 0.8 M tokens


def add_digits(left: int, sign: str, right: int) -> int:
    """Addition or subtraction of one-digit numbers, modulo 10."""
    return (left + right if sign == "+" else left - right) % 10


def _draw_chain(rng: random.Random, level: int) -> str:
    later = [f"{rng.choice(SIGNS)} {rng.randint(1, LARGEST_OPERAND)}" for _ in range(level)]
    return f"eval {labelled([str(rng.randrange(10)), *later])}"


def _solve_chain(question: str) -> Solution:
    operations = operations_of(question.split())
    value = int(operations[0][1][0])
    states = [str(value)]
    for _, (sign, operand) in operations[1:]:
        value = add_digits(value, sign, int(operand))
        states.append(str(value))
    return stepwise(operations, states, states[-1])


def _draw_add(rng: random.Random, level: int) -> str:
    columns = [f"{rng.randrange(10)} + {rng.randint(0, LARGEST_OPERAND)}" for _ in range(level)]
    return f"sum {labelled(columns)}"


def _solve_add(question: str) -> Solution:
    """Columns, least significant first; a state is `carry digit`."""
    operations = operations_of(question.split())
    carry, states, digits = 0, [], []
    for _, (upper, _, lower) in operations:
        carry, digit = divmod(int(upper) + int(lower) + carry, 10)
        states.append(f"{carry} {digit}")
        digits.append(str(digit))
    return stepwise(operations, states, " ".join([*digits, str(carry)]))


def _draw_story(rng: random.Random, level: int) -> str:
    later = [f"{rng.choice(tuple(GAINS))} {rng.randint(1, LARGEST_OPERAND)}" for _ in range(level)]
    operations = labelled([f"has {rng.randrange(10)}", *later])
    return f"{rng.choice(NAMES)} {rng.choice(OBJECTS)} {operations}"


def _solve_story(question: str) -> Solution:
    operations = operations_of(question.split())
    value = int(operations[0][1][1])
    states = [str(value)]
    for _, (verb, operand) in operations[1:]:
        value = (value + GAINS[verb] * int(operand)) % 10
        states.append(str(value))
    return stepwise(operations, states, states[-1])


def _draw_var(rng: random.Random, level: int) -> str:
    names = rng.sample(LETTERS, level + 1)
    parts = [f"{names[0]} is {rng.randrange(10)}"]
    for before, name in zip(names, names[1:], strict=False):
        operation = f"{rng.choice(SIGNS)} {rng.randint(1, LARGEST_OPERAND)}"
        parts.append(f"{name} is {before} {operation}")
    return f"given {' '.join(parts)} find {rng.choice(names[1:])}"


def _solve_var(question: str) -> Solution:
    """Definitions in order, worked until the variable that is asked for."""
    words = question.split()
    asked, words = words[-1], words[1:-2]
    starts = [place - 1 for place, word in enumerate(words) if word == "is"]
    values: dict[str, int] = {}
    steps = []
    for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
        name, _, first, *operation = words[start:end]
        if operation:
            values[name] = add_digits(values[first], operation[0], int(operation[1]))
        else:
            values[name] = int(first)
        steps.append(f"{' '.join(words[start:end])} = {values[name]}")
        if name == asked:
            break
    states = tuple(str(value) for value in values.values())
    return Solution(steps=tuple(steps), states=states, answer=states[-1])


MATH_FAMILIES = (
    Family(name="chain", domain="math", levels=(2, 6), draw=_draw_chain, solve=_solve_chain),
    Family(name="add", domain="math", levels=(2, 5), draw=_draw_add, solve=_solve_add),
    Family(name="story", domain="math", levels=(2, 5), draw=_draw_story, solve=_solve_story),
    Family(name="var", domain="math", levels=(2, 5), draw=_draw_var, solve=_solve_var),
)
