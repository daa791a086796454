"""Families that stand for science: a ladder of phases, two boxes, two-hop facts about animals."""

import random

from frontload.data_tools.synthetic.problem import Family, Solution, labelled, run_program
from frontload.data_tools.synthetic.vocabulary import (
    ANIMALS,
    CLASS_OF,
    OBJECTS,
    PHASES,
    PROPERTIES,
    SUBSTANCES,
)

PHASE_CHANGES = {"heat": 1, "cool": -1, "wait": 0}


def apply_phase(state: list[str], operation: list[str]) -> list[str]:
    """The phase after heating or cooling by one step; a solid stays solid, a plasma plasma."""
    (word,) = operation
    if word in PHASES:
        return [word]
    place = PHASES.index(state[0]) + PHASE_CHANGES[word]
    return [PHASES[min(max(place, 0), len(PHASES) - 1)]]


def _draw_ladder(rng: random.Random, level: int) -> str:
    later = [rng.choice(tuple(PHASE_CHANGES)) for _ in range(level)]
    return f"{rng.choice(SUBSTANCES)} {labelled([rng.choice(PHASES), *later])}"


def _matter_of_ladder(question: str) -> str:
    """The changes without their substance: all four melt and boil alike."""
    return question.partition(" ")[2]


def apply_to_boxes(boxes: list[str], operation: list[str]) -> list[str]:
    """The contents of a left and a right box after one operation."""
    match operation:
        case ["swap"]:
            return boxes[::-1]
        case ["left", thing]:
            return [thing, boxes[1]]
        case ["right", thing]:
            return [boxes[0], thing]
        case [left, right]:
            return [left, right]
    raise ValueError(f"no operation on two boxes: {' '.join(operation)}")


def draw_box_operation(rng: random.Random, boxes: list[str]) -> str:
    """A swap, or something new put into one box."""
    name = rng.choice(("swap", "left", "right"))
    if name == "swap":
        return name
    return f"{name} {rng.choice([thing for thing in OBJECTS if thing not in boxes])}"


def _draw_boxes(rng: random.Random, level: int) -> str:
    boxes = rng.sample(OBJECTS, 2)
    operations = [" ".join(boxes)]
    for _ in range(level):
        operations.append(draw_box_operation(rng, boxes))
        boxes = apply_to_boxes(boxes, operations[-1].split())
    return f"boxes {labelled(operations)}"


def _draw_two_hop(rng: random.Random, level: int) -> str:
    return f"tell {rng.choice(tuple(PROPERTIES))} {labelled(rng.sample(ANIMALS, level))}"


def _solve_two_hop(question: str) -> Solution:
    """Animal to class, class to property; the base text states both, never the two together."""
    words = question.split()
    property_of = PROPERTIES[words[1]]

    def apply(state: list[str], operation: list[str]) -> list[str]:
        return [*state, property_of[CLASS_OF[operation[0]]]]

    solution = run_program(question, apply)
    steps = [
        step.replace(f"{animal} =", f"{animal} is {CLASS_OF[animal]} =")
        for step, animal in zip(solution.steps, words[3::2], strict=True)
    ]
    return Solution(steps=tuple(steps), states=solution.states, answer=solution.answer)


SCIENCE_FAMILIES = (
    Family(
        name="ladder",
        stands_for="science",
        levels=(3, 6),
        draw=_draw_ladder,
        solve=lambda question: run_program(question, apply_phase),
        matter=_matter_of_ladder,
    ),
    Family(
        name="boxes",
        stands_for="science",
        levels=(2, 5),
        draw=_draw_boxes,
        solve=lambda question: run_program(question, apply_to_boxes),
    ),
    Family(
        name="two_hop",
        stands_for="science",
        levels=(1, 3),
        draw=_draw_two_hop,
        solve=_solve_two_hop,
    ),
)
