"""Multiple-choice items: continuations of text, steps of a worked answer, answers alone."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from frontload.data_tools.render import generation_prompt
from frontload.data_tools.synthetic import base_text
from frontload.data_tools.synthetic.base_text import Cloze
from frontload.data_tools.synthetic.families import (
    FAMILIES,
    MOST_DRAWS,
    Problem,
    distinct_problems,
    too_few,
)
from frontload.data_tools.synthetic.problem import random_stream
from frontload.data_tools.synthetic.science_families import CHAIN_END
from frontload.data_tools.synthetic.vocabulary import LABELS
from frontload.data_tools.synthetic.writers import kind_of_word, wrong_answer
from frontload.data_tools.tokenizer import ANSWER, SPECIAL_TOKENS
from frontload.recipes.schema import Synthesis

NUM_OPTIONS = 4
STATE_MARK = " = "


def write_choices(recipe: Synthesis) -> Iterator[dict[str, Any]]:
    """Yields every multiple-choice item: `whereabouts`, `copy`, then two benchmarks a family."""
    for name, draw in TEXT_CHOICES.items():
        rng = random_stream(recipe.seed, "choice", name)
        yield from _choices(
            _distinct_clozes(rng, draw, count=recipe.choice_items, name=name),
            rng,
            benchmark=name,
            category="gpr",
        )
    for family, kind in FAMILIES.items():
        if kind.domain == "ins":
            continue
        for form, cut in QUESTION_FORMS.items():
            rng = random_stream(recipe.seed, form, family)
            levels = (kind.levels[0], kind.levels[0] + 1)
            problems = distinct_problems(rng, family, count=recipe.choice_items, levels=levels)
            yield from _choices(
                (cut(problem, rng) for problem in problems),
                rng,
                benchmark=f"{form}_{family}",
                category=kind.domain,
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
        cloze = draw(rng)
        if cloze.context not in seen:
            seen.add(cloze.context)
            yield cloze
    raise too_few(name, wanted=count, found=len(seen))


def _copy(rng: random.Random) -> Cloze:
    """Records told twice, cut after a label of the second telling; never before a sign."""
    told = base_text.records(rng).split()
    values = zip(told, told[1:], strict=False)
    label = rng.choice(
        [place for place, (key, word) in enumerate(values) if key in LABELS and kind_of_word(word)]
    )
    context = f"note {' '.join(told)} again {' '.join(told[: label + 1])}"
    return Cloze(context=context, answer=told[label + 1])


def _answer(problem: Problem, rng: random.Random) -> Cloze:
    """The final answer right after the question, without steps."""
    context = f"{generation_prompt(problem.question)} {SPECIAL_TOKENS[ANSWER]}"
    return Cloze(context=context, answer=problem.solution.answer)


def _step(problem: Problem, rng: random.Random) -> Cloze:
    """The result of one step, not the first where there are more, after the right steps before."""
    steps = [step for step in problem.solution.steps if not step.endswith(CHAIN_END)]
    place = rng.randrange(min(1, len(steps) - 1), len(steps))
    mark = STATE_MARK if STATE_MARK in steps[place] else " "
    operation, _, state = steps[place].rpartition(mark)
    before = " ".join([*steps[:place], operation + mark.rstrip()])
    return Cloze(context=f"{generation_prompt(problem.question)} {before}", answer=state)


TEXT_CHOICES: dict[str, Callable[[random.Random], Cloze]] = {
    "whereabouts": base_text.story,
    "copy": _copy,
}
QUESTION_FORMS: dict[str, Callable[[Problem, random.Random], Cloze]] = {
    "answer": _answer,
    "step": _step,
}
