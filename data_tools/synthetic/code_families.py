"""Families that stand for code: a stack machine, a queue, conditional statements."""

import random

from frontload.data_tools.synthetic.math_families import add_digits, draw_change
from frontload.data_tools.synthetic.problem import Family, Solution, labelled, run_program
from frontload.data_tools.synthetic.vocabulary import LETTERS

LARGEST_STACK = 3
PARITIES = ("even", "odd")


def apply_to_stack(stack: list[str], operation: list[str]) -> list[str]:
    """The stack after one operation; its top is the last word."""
    match operation:
        case ["push", value]:
            return [*stack, value]
        case ["pop"]:
            return stack[:-1]
        case ["swap"]:
            return [*stack[:-2], stack[-1], stack[-2]]
        case ["inc" | "dec" as name]:
            sign = "+" if name == "inc" else "-"
            return [*stack[:-1], str(add_digits(int(stack[-1]), sign, 1))]
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
    stack = apply_to_stack([], operations[0].split())
    for _ in range(level):
        operations.append(draw_stack_operation(rng, len(stack)))
        stack = apply_to_stack(stack, operations[-1].split())
    return f"run {labelled(operations)}"


def _solve_stack(question: str) -> Solution:
    """The answer is the top of the stack."""
    solution = run_program(question, apply_to_stack)
    top = solution.answer.split()[-1]
    return Solution(steps=solution.steps, states=solution.states, answer=top)


def apply_to_queue(queue: list[str], operation: list[str]) -> list[str]:
    """The queue after one operation: `add x` at its end, `take` from its front."""
    match operation:
        case ["add", letter]:
            return [*queue, letter]
        case ["take"]:
            return queue[1:]
    raise ValueError(f"no operation of a queue: {' '.join(operation)}")


def draw_queue_operation(rng: random.Random, length: int) -> str:
    """An operation that leaves a queue of this length neither empty nor too long."""
    is_add = length == 1 or (length < LARGEST_STACK and rng.random() < 0.5)
    return f"add {rng.choice(LETTERS)}" if is_add else "take"


def _draw_queue(rng: random.Random, level: int) -> str:
    operations = [f"add {rng.choice(LETTERS)}"]
    queue = apply_to_queue([], operations[0].split())
    for _ in range(level):
        operations.append(draw_queue_operation(rng, len(queue)))
        queue = apply_to_queue(queue, operations[-1].split())
    return f"queue {labelled(operations)}"


def apply_branch(state: list[str], operation: list[str]) -> list[str]:
    """`even + 1` changes an even number only."""
    match operation:
        case ["set", value]:
            return [value]
        case ["even" | "odd" as parity, sign, operand]:
            value = int(state[0])
            if PARITIES[value % 2] != parity:
                return state
            return [str(add_digits(value, sign, int(operand)))]
    raise ValueError(f"no conditional statement: {' '.join(operation)}")


def draw_branch(rng: random.Random) -> str:
    """A conditional statement."""
    return f"{rng.choice(PARITIES)} {draw_change(rng)}"


def _draw_branch_question(rng: random.Random, level: int) -> str:
    later = [draw_branch(rng) for _ in range(level)]
    return f"if {labelled([f'set {rng.randrange(10)}', *later])}"


CODE_FAMILIES = (
    Family(name="stack", stands_for="code", levels=(2, 5), draw=_draw_stack, solve=_solve_stack),
    Family(
        name="queue",
        stands_for="code",
        levels=(2, 5),
        draw=_draw_queue,
        solve=lambda question: run_program(question, apply_to_queue),
    ),
    Family(
        name="branch",
        stands_for="code",
        levels=(2, 5),
        draw=_draw_branch_question,
        solve=lambda question: run_program(question, apply_branch),
    ),
)
