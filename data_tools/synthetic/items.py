"""Evaluation items and held-out worked answers: questions that no training text holds."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from frontload.data_tools.synthetic import base_text
from frontload.data_tools.synthetic.families import (
    FAMILIES,
    HARD_FAMILIES,
    Problem,
    generate,
)
from frontload.data_tools.synthetic.problem import random_stream
from frontload.data_tools.synthetic.vocabulary import LABELS
from frontload.data_tools.synthetic.writers import long_trace, wrong_answer
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Synthesis

NUM_OPTIONS = 4
NUM_EXEMPLARS = 3
MOST_DRAWS = 10_000

Item = dict[str, Any]


def write_items(recipe: Synthesis) -> Iterator[Item]:
    """Yields every evaluation item of the corpus: generation, choice, few-shot."""
    for family in FAMILIES:
        yield from _generation_items(recipe, family)
    for family in HARD_FAMILIES:
        yield from _hard_items(recipe, family)
    for benchmark, (category, draw) in TEXT_CHOICES.items():
        yield from _text_choice_items(recipe, benchmark, category=category, draw=draw)
    for family in FAMILIES:
        if FAMILIES[family].domain != "ins":
            yield from _question_choice_items(recipe, family)
            yield from _few_shot_items(recipe, family)


def write_heldout(recipe: Synthesis) -> Iterator[Item]:
    """Yields worked answers of held-out questions, spread evenly over each family's levels."""
    for family in FAMILIES:
        rng = random_stream(recipe.seed, "heldout", family)
        count = recipe.heldout_documents_per_family
        for place, problem in enumerate(_distinct(rng, family, count=count)):
            yield {
                "id": f"heldout-{family}-{place:04d}",
                "question": problem.question,
                "trace": long_trace(problem),
                "answer": problem.solution.answer,
                "family": family,
                "domain": problem.domain,
                "inside_shq": family in recipe.shq.families,
            }


def _generation_items(recipe: Synthesis, family: str) -> Iterator[Item]:
    rng = random_stream(recipe.seed, "generate", family)
    for place, problem in enumerate(_distinct(rng, family, count=recipe.items_per_family)):
        yield _generation_item(recipe, problem, item_id=f"{family}-{place:04d}", hard=False)


def _hard_items(recipe: Synthesis, family: str) -> Iterator[Item]:
    rng = random_stream(recipe.seed, "hard", family)
    top = FAMILIES[family].levels[1]
    count = recipe.hard_items_per_family
    for place, problem in enumerate(_distinct(rng, family, count=count, levels=(top, top))):
        yield _generation_item(recipe, problem, item_id=f"hard_{family}-{place:04d}", hard=True)


def _generation_item(recipe: Synthesis, problem: Problem, *, item_id: str, hard: bool) -> Item:
    return {
        "id": item_id,
        "kind": "generate",
        "benchmark": item_id.rpartition("-")[0],
        "category": problem.domain,
        "family": problem.family,
        "level": problem.level,
        "question": problem.question,
        "answer": problem.solution.answer,
        "trace": long_trace(problem),
        "inside_shq": problem.family in recipe.shq.families,
        "hard": hard,
    }


def _few_shot_items(recipe: Synthesis, family: str) -> Iterator[Item]:
    """Held-out questions of the two lowest levels after short training exemplars."""
    rng = random_stream(recipe.seed, "few_shot", family)
    low = FAMILIES[family].levels[0]
    for place, problem in enumerate(
        _distinct(rng, family, count=recipe.items_per_family, levels=(low, low + 1))
    ):
        examples = [generate(rng, family, level=low, heldout=False) for _ in range(NUM_EXEMPLARS)]
        yield {
            "id": f"few_{family}-{place:04d}",
            "kind": "few_shot",
            "benchmark": f"few_{family}",
            "category": problem.domain,
            "family": family,
            "question": problem.question,
            "answer": problem.solution.answer,
            "exemplars": [
                {
                    "question": one.question,
                    "trace": long_trace(one),
                    "answer": one.solution.answer,
                }
                for one in examples
            ],
            "inside_shq": family in recipe.shq.families,
        }


def _question_choice_items(recipe: Synthesis, family: str) -> Iterator[Item]:
    """Held-out questions in the chat form: the answer's likelihood against three wrong ones."""
    rng = random_stream(recipe.seed, "choice", family)
    low = FAMILIES[family].levels[0]
    for place, problem in enumerate(
        _distinct(rng, family, count=recipe.choice_items, levels=(low, low + 1))
    ):
        wrong: list[str] = []
        while len(wrong) < NUM_OPTIONS - 1:
            option = wrong_answer(problem.solution.answer, rng)
            if option not in wrong:
                wrong.append(option)
        yield _choice_item(
            rng,
            item_id=f"choose_{family}-{place:04d}",
            category=problem.domain,
            context=f"<|user|> {problem.question} <|assistant|> <|answer|>",
            options=[problem.solution.answer, *wrong],
        )


def _text_choice_items(
    recipe: Synthesis,
    benchmark: str,
    *,
    category: str,
    draw: Callable[[random.Random], tuple[str, str]],
) -> Iterator[Item]:
    """Base text cut before its last words: the right continuation against three wrong ones."""
    rng = random_stream(recipe.seed, "choice", benchmark)
    seen: set[str] = set()
    for _ in range(MOST_DRAWS):
        if len(seen) == recipe.choice_items:
            return
        context, answer = draw(rng)
        if context in seen:
            continue
        wrong: list[str] = []
        while len(wrong) < NUM_OPTIONS - 1:
            option = _wrong_continuation(answer, rng)
            if option != answer and option not in wrong:
                wrong.append(option)
        place = len(seen)
        seen.add(context)
        yield _choice_item(
            rng,
            item_id=f"{benchmark}-{place:04d}",
            category=category,
            context=context,
            options=[answer, *wrong],
        )
    raise _too_few(benchmark, wanted=recipe.choice_items, found=len(seen))


def _wrong_continuation(answer: str, rng: random.Random) -> str:
    return wrong_answer(answer, rng)


def _choice_item(
    rng: random.Random, *, item_id: str, category: str, context: str, options: list[str]
) -> Item:
    """The first of `options` is the right one; they are shuffled."""
    order = list(range(len(options)))
    rng.shuffle(order)
    return {
        "id": item_id,
        "kind": "choice",
        "benchmark": item_id.rpartition("-")[0],
        "category": category,
        "context": context,
        "options": [options[place] for place in order],
        "gold": order.index(0),
    }


def _distinct(
    rng: random.Random, family: str, *, count: int, levels: tuple[int, int] | None = None
) -> Iterator[Problem]:
    """`count` different held-out problems, one level after the other."""
    low, high = levels or FAMILIES[family].levels
    seen: set[str] = set()
    for draw in range(MOST_DRAWS):
        if len(seen) == count:
            return
        level = low + draw % (high - low + 1)
        problem = generate(rng, family, level=level, heldout=True)
        if problem.question not in seen:
            seen.add(problem.question)
            yield problem
    raise _too_few(family, wanted=count, found=len(seen))


def _too_few(name: str, *, wanted: int, found: int) -> RecipeError:
    return RecipeError(
        f"{wanted} evaluation items of {name}",
        found=f"{found} different held-out questions",
        rule="an evaluation question is asked once",
        do="lower synthesis.items_per_family, choice_items or heldout_documents_per_family",
    )


def _copy_choice(rng: random.Random) -> tuple[str, str]:
    words = base_text.records(rng).split()
    places = [place for place, word in enumerate(words) if word not in LABELS]
    place = rng.choice([one for one in places if words[one - 1] in LABELS])
    return f"note {' '.join(words)} again {' '.join(words[:place])}", words[place]


TEXT_CHOICES: dict[str, tuple[str, Callable[[random.Random], tuple[str, str]]]] = {
    "story_end": ("gpr", base_text.story),
    "copy": ("gpr", _copy_choice),
}
"""Benchmark of base text -> category, and (context, right continuation)."""
