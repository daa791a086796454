"""Families of the domain code: a stack machine, a queue, a counted loop."""

import random

from frontload.data_tools.synthetic.math_families import LARGEST_OPERAND, SIGNS, add_digits
from frontload.data_tools.synthetic.problem import (
    Family,
    Solution,
    labelled,
    operations_of,
    stepwise,
)
from frontload.data_tools.synthetic.vocabulary import LETTERS

LARGEST_STACK = 3


def run_stack(stack: list[int], operation: list[str]) -> list[int]:
    """The stack after one operation; its top is the last element."""
    match operation:
        case ["push", value]:
            return [*stack, int(value)]
        case ["pop"]:
            return stack[:-1]
        case ["swap"]:
            return [*stack[:-2], stack[-1], stack[-2]]
        case ["inc"]:
            return [*stack[:-1], add_digits(stack[-1], "+", 1)]
        case ["dec"]:
            return [*stack[:-1], add_digits(stack[-1], "-", 1)]
    raise ValueError(f"no operation of the stack machine: {' '.join(operation)}")


def draw_stack_operation(rng: random.Random, height: int) -> str:
    """An operation that a stack of this height allows."""
    names = ["inc", "dec"]
    if height > 1:
        names += ["swap", "pop"]
    if height < LARGEST_STACK:
        names.append("push")
    name = rng.choice(names)
    return f"push {rng.randrange(10)}" if name == "push" else name


def _draw_stack(rng: random.Random, level: int) -> str:
    operations = [f"push {rng.randrange(10)}"]
    stack = run_stack([], operations[0].split())
    for _ in range(level):
        operations.append(draw_stack_operation(rng, len(stack)))
        stack = run_stack(stack, operations[-1].split())
    return f"run {labelled(operations)}"


def _solve_stack(question: str) -> Solution:
    operations = operations_of(question.split())
    stack: list[int] = []
    states = []
    for _, operation in operations:
        stack = run_stack(stack, operation)
        states.append(" ".join(map(str, stack)))
    return stepwise(operations, states, str(stack[-1]))


def run_queue(queue: list[str], operation: list[str]) -> list[str]:
    """The queue after one operation: `add x` at its end, `take` from its front."""
    match operation:
        case ["add", letter]:
            return [*queue, letter]
        case ["take"]:
            return queue[1:]
    raise ValueError(f"no operation of a queue: {' '.join(operation)}")


def _draw_queue(rng: random.Random, level: int) -> str:
    operations = [f"add {rng.choice(LETTERS)}"]
    length = 1
    for _ in range(level):
        is_add = length == 1 or (length < LARGEST_STACK and rng.random() < 0.5)
        operations.append(f"add {rng.choice(LETTERS)}" if is_add else "take")
        length += 1 if is_add else -1
    return f"queue {labelled(operations)}"


def _solve_queue(question: str) -> Solution:
    operations = operations_of(question.split())
    queue: list[str] = []
    states = []
    for _, operation in operations:
        queue = run_queue(queue, operation)
        states.append(" ".join(queue))
    return stepwise(operations, states, states[-1])


def _draw_loop(rng: random.Random, level: int) -> str:
    body, last = (f"{rng.choice(SIGNS)} {rng.randint(1, LARGEST_OPERAND)}" for _ in range(2))
    return f"set {rng.randrange(10)} repeat {level} {body} end {last}"


def _solve_loop(question: str) -> Solution:
    """The body once a round, rounds counted down, then the operation after the loop."""
    _, start, _, rounds, sign, operand, _, last_sign, last_operand = question.split()
    value = int(start)
    steps, states = [], []
    for left in range(int(rounds), 0, -1):
        value = add_digits(value, sign, int(operand))
        steps.append(f"repeat {left} {sign} {operand} = {value}")
        states.append(str(value))
    value = add_digits(value, last_sign, int(last_operand))
    steps.append(f"end {last_sign} {last_operand} = {value}")
    states.append(str(value))
    return Solution(steps=tuple(steps), states=tuple(states), answer=states[-1])


CODE_FAMILIES = (
    Family(name="stack", domain="code", levels=(2, 5), draw=_draw_stack, solve=_solve_stack),
    Family(name="queue", domain="code", levels=(2, 5), draw=_draw_queue, solve=_solve_queue),
    Family(name="loop", domain="code", levels=(2, 5), draw=_draw_loop, solve=_solve_loop),
)
