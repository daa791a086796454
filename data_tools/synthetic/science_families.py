"""Families of the domain science: food chains, tracking swaps, two-hop facts about animals."""

import random
from collections.abc import Mapping

from frontload.data_tools.synthetic.problem import (
    Family,
    Solution,
    labelled,
    operations_of,
    stepwise,
)
from frontload.data_tools.synthetic.vocabulary import ANIMALS, BOXES, CLASS_OF, OBJECTS, PROPERTIES

CHAIN_END = "none"


def _draw_web(rng: random.Random, level: int) -> str:
    animals = rng.sample(ANIMALS, level)
    links = [
        f"{prey} feeds {hunter}"
        for prey, hunter in zip(animals, [*animals[1:], CHAIN_END], strict=True)
    ]
    rng.shuffle(links)
    return f"web {' '.join(links)} from {rng.choice(animals[:-1])}"


def _solve_web(question: str) -> Solution:
    """Follows the links from the animal that is asked for to the end of the food chain."""
    words = question.split()
    link_words = words[1:-2]
    hunter_of = dict(zip(link_words[::3], link_words[2::3], strict=True))
    animal = words[-1]
    steps, states = [], [animal]
    while (hunter := hunter_of[animal]) != CHAIN_END:
        steps.append(f"{animal} feeds {hunter}")
        states.append(hunter)
        animal = hunter
    steps.append(f"{animal} feeds {CHAIN_END}")
    return Solution(steps=tuple(steps), states=tuple(states), answer=animal)


def swap_boxes(contents: Mapping[str, str], operation: list[str]) -> dict[str, str]:
    """The boxes after `swap x y`."""
    _, first, second = operation
    return dict(contents) | {first: contents[second], second: contents[first]}


def boxes_text(contents: Mapping[str, str]) -> str:
    """`x ring y cup z coin`: each box named before what it holds."""
    return " ".join(f"{box} {content}" for box, content in contents.items())


def draw_swap(rng: random.Random) -> str:
    """A swap of two boxes, named in order, so that one swap has one text."""
    first, second = sorted(rng.sample(BOXES, 2))
    return f"swap {first} {second}"


def _draw_track(rng: random.Random, level: int) -> str:
    start = boxes_text(dict(zip(BOXES, rng.sample(OBJECTS, len(BOXES)), strict=True)))
    swaps = labelled([draw_swap(rng) for _ in range(level)])
    return f"boxes {start} {swaps} find {rng.choice(BOXES)}"


def _solve_track(question: str) -> Solution:
    words = question.split()
    asked = words[-1]
    operations = operations_of(words[:-2])
    start = words[1 : 1 + 2 * len(BOXES)]
    contents = dict(zip(start[::2], start[1::2], strict=True))
    states = []
    for _, operation in operations:
        contents = swap_boxes(contents, operation)
        states.append(boxes_text(contents))
    return stepwise(operations, states, contents[asked])


def _draw_fact(rng: random.Random, level: int) -> str:
    animals = rng.sample(ANIMALS, level)
    return f"tell {rng.choice(tuple(PROPERTIES))} of {' and '.join(animals)}"


def _solve_fact(question: str) -> Solution:
    """Animal to class, class to property; the base text states both, never the two together."""
    _, name, _, *rest = question.split()
    steps, states = [], []
    for animal in (word for word in rest if word != "and"):
        kind = CLASS_OF[animal]
        steps.append(f"{animal} is {kind} {kind} {name} {PROPERTIES[name][kind]}")
        states.append(PROPERTIES[name][kind])
    return Solution(steps=tuple(steps), states=tuple(states), answer=" ".join(states))


SCIENCE_FAMILIES = (
    Family(name="web", domain="science", levels=(3, 5), draw=_draw_web, solve=_solve_web),
    Family(name="track", domain="science", levels=(1, 4), draw=_draw_track, solve=_solve_track),
    Family(name="fact", domain="science", levels=(1, 3), draw=_draw_fact, solve=_solve_fact),
)
