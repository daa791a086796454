"""Families that are no counters: sorting, brackets, look-up in a table, a path, the largest sum."""

import random

from frontload.data_tools.synthetic.problem import Family, Solution, labelled, run_program
from frontload.data_tools.synthetic.vocabulary import CLOSER_OF, DIGITS, LETTERS, OBJECTS

DEEPEST_NESTING = 3
TABLE_ROWS = 4
STRAY_EDGES = 2  # edges of a graph that do not lie on the path
LARGEST_LEFT, LARGEST_RIGHT = 6, 3  # a sum is one digit


def insert_digit(kept: list[str], operation: list[str]) -> list[str]:
    """A sorted list after one more digit."""
    return sorted([*kept, *operation])


def _draw_sort(rng: random.Random, level: int) -> str:
    return f"sort {labelled(rng.sample(DIGITS, level))}"


def apply_bracket(pending: list[str], operation: list[str]) -> list[str]:
    """The brackets that are to be closed, next first, after one more bracket."""
    (bracket,) = operation
    if bracket in CLOSER_OF:
        return [CLOSER_OF[bracket], *pending]
    if not pending or bracket != pending[0]:
        raise ValueError(f"{bracket!r} closes nothing of {' '.join(pending)!r}")
    return pending[1:]


def draw_bracket(rng: random.Random, pending: list[str]) -> str:
    """A bracket that leaves neither nothing to close nor too much."""
    is_closing = len(pending) > 1 and (len(pending) == DEEPEST_NESTING or rng.random() < 0.5)
    return pending[0] if is_closing else rng.choice(tuple(CLOSER_OF))


def _draw_brackets(rng: random.Random, level: int) -> str:
    drawn: list[str] = []
    pending: list[str] = []
    for _ in range(level):
        drawn.append(draw_bracket(rng, pending))
        pending = apply_bracket(pending, [drawn[-1]])
    return f"close {labelled(drawn)}"


def _draw_table(rng: random.Random, level: int) -> str:
    things = rng.sample(OBJECTS, TABLE_ROWS)
    rows = " , ".join(f"{thing} {rng.choice(DIGITS)}" for thing in things)
    return f"table {rows} : {labelled(rng.sample(things, level))}"


def _matter_of_table(question: str) -> str:
    """The table without the order of its rows, and what is asked."""
    table, _, asked = question.partition(" : ")
    return f"{' , '.join(sorted(table.removeprefix('table ').split(' , ')))} : {asked}"


def _solve_table(question: str) -> Solution:
    """The numbers beside the things that are asked for, in the order in which they are asked."""
    table, _, asked = question.removeprefix("table ").partition(" : ")
    number_of = dict(row.split() for row in table.split(" , "))
    return run_program(asked, lambda found, thing: [*found, number_of[thing[0]]])


def _draw_path(rng: random.Random, level: int) -> str:
    """A path of `level` edges among edges of another path, in random order."""
    nodes = rng.sample(LETTERS, level + 1 + STRAY_EDGES + 1)
    on_path, stray = nodes[: level + 1], nodes[level + 1 :]
    edges = [*zip(on_path, on_path[1:], strict=False), *zip(stray, stray[1:], strict=False)]
    rng.shuffle(edges)
    return f"path {on_path[0]} : {' , '.join(f'{one} to {other}' for one, other in edges)}"


def _matter_of_path(question: str) -> str:
    """The start and the edges without their order, which no answer depends on."""
    start, _, edges = question.partition(" : ")
    return f"{start} : {' , '.join(sorted(edges.split(' , ')))}"


def _solve_path(question: str) -> Solution:
    """The node from which no edge goes on."""
    start, _, edges = question.removeprefix("path ").partition(" : ")
    next_of = dict(edge.split(" to ") for edge in edges.split(" , "))
    node = start
    steps, states = [], []
    while node in next_of:
        steps.append(f"{node} to {next_of[node]} = {next_of[node]}")
        node = next_of[node]
        states.append(node)
    return Solution(steps=tuple(steps), states=tuple(states), answer=node)


def draw_sum(rng: random.Random) -> str:
    """Two digits whose sum is one digit."""
    return f"{rng.randint(0, LARGEST_LEFT)} + {rng.randint(0, LARGEST_RIGHT)}"


def _draw_compare(rng: random.Random, level: int) -> str:
    return f"most {labelled([draw_sum(rng) for _ in range(level)])}"


def _solve_compare(question: str) -> Solution:
    """Label and value of the largest sum so far; of equal sums the first."""
    words = question.split()[1:]
    best: tuple[str, int] | None = None
    steps, states = [], []
    for label, left, _, right in zip(*[iter(words)] * 4, strict=True):
        total = int(left) + int(right)
        if best is None or total > best[1]:
            best = (label, total)
        states.append(f"{best[0]} {best[1]}")
        steps.append(f"{label} {left} + {right} is {total} = {states[-1]}")
    return Solution(steps=tuple(steps), states=tuple(states), answer=states[-1])


SEQUENCE_FAMILIES = (
    Family(
        name="compare",
        stands_for="math",
        levels=(2, 3),
        draw=_draw_compare,
        solve=_solve_compare,
    ),
    Family(
        name="sort",
        stands_for="math",
        levels=(2, 4),
        draw=_draw_sort,
        solve=lambda question: run_program(question, insert_digit),
    ),
    Family(
        name="brackets",
        stands_for="code",
        levels=(3, 6),
        draw=_draw_brackets,
        solve=lambda question: run_program(question, apply_bracket),
    ),
    Family(
        name="table",
        stands_for="science",
        levels=(1, 2),
        draw=_draw_table,
        solve=_solve_table,
        matter=_matter_of_table,
    ),
    Family(
        name="path",
        stands_for="science",
        levels=(1, 3),
        draw=_draw_path,
        solve=_solve_path,
        matter=_matter_of_path,
    ),
)
