"""Multiple-choice items: continuations of base text, and steps of worked answers."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from frontload.data_tools.synthetic import base_text
from frontload.data_tools.synthetic.base_text import Cloze, draw_one_side
from frontload.data_tools.synthetic.families import (
    FAMILIES,
    MOST_DRAWS,
    Problem,
    distinct_problems,
    families_of,
    too_few,
)
from frontload.data_tools.synthetic.problem import random_stream
from frontload.data_tools.synthetic.writers import wrong_answer
from frontload.data_tools.text.render import generation_prompt
from frontload.recipes.schema import Synthesis

NUM_OPTIONS = 4
STATE_MARK = " = "


def write_choices(recipe: Synthesis, asked: set[str]) -> Iterator[dict[str, Any]]:
    """Yields every multiple-choice item: continuations of base text, then `step_<family>`."""
    for name, draw in TEXT_CHOICES.items():
        rng = random_stream(recipe.seed, "choice", name)
        yield from _choices(
            _distinct_clozes(rng, draw, count=recipe.choice_items, name=name),
            rng,
            benchmark=name,
            category="gpr",
        )
    for family in families_of(recipe):
        kind = FAMILIES[family]
        if kind.stands_for == "ins":
            continue
        rng = random_stream(recipe.seed, "step", family)
        problems = distinct_problems(rng, family, count=recipe.choice_items, asked=asked)
        yield from _choices(
            (_step(problem, rng) for problem in problems),
            rng,
            benchmark=f"step_{family}",
            category=kind.stands_for,
        )


def _choices(
    clozes: Iterator[Cloze], rng: random.Random, *, benchmark: str, category: str
) -> Iterator[dict[str, Any]]:
    for place, cloze in enumerate(clozes):
        options = _options(cloze, rng)
        yield {
            "id": f"{benchmark}-{place:04d}",
            "kind": "choice",
            "benchmark": benchmark,
            "category": category,
            "context": cloze.context,
            "options": options,
            "gold": options.index(cloze.answer),
        }


def _options(cloze: Cloze, rng: random.Random) -> list[str]:
    """The right continuation and three wrong ones, in random order."""
    options = [cloze.answer]
    while len(options) < NUM_OPTIONS:
        option = wrong_answer(cloze.answer, rng, question=cloze.context)
        if option not in options:
            options.append(option)
    rng.shuffle(options)
    return options


def _distinct_clozes(
    rng: random.Random, draw: Callable[[random.Random], Cloze], *, count: int, name: str
) -> Iterator[Cloze]:
    seen: set[str] = set()
    for _ in range(MOST_DRAWS):
        if len(seen) == count:
            return
        cloze = draw_one_side(rng, draw, heldout=True)
        if cloze.context not in seen:
            seen.add(cloze.context)
            yield cloze
    raise too_few(name, wanted=count, found=len(seen))


def _step(problem: Problem, rng: random.Random) -> Cloze:
    """The state after one step (not the first, where there are more), given the steps before."""
    steps = problem.solution.steps
    place = rng.randrange(min(1, len(steps) - 1), len(steps))
    operation, mark, state = steps[place].rpartition(STATE_MARK)
    before = " ".join([*steps[:place], operation + mark.rstrip()])
    return Cloze(context=f"{generation_prompt(problem.question)} {before}", answer=state)


TEXT_CHOICES: dict[str, Callable[[random.Random], Cloze]] = {
    "odd_one": base_text.odd_one,
    "reversed_list": base_text.reversed_list,
}
