"""Evaluation items and held-out worked answers: questions that no training text holds."""

from collections.abc import Iterator
from typing import Any

from frontload.data_tools.synthetic.choices import write_choices
from frontload.data_tools.synthetic.families import (
    FAMILIES,
    HARD_FAMILIES,
    Problem,
    distinct_problems,
    generate,
)
from frontload.data_tools.synthetic.problem import random_stream
from frontload.data_tools.synthetic.writers import long_trace
from frontload.recipes.schema import Synthesis

NUM_EXEMPLARS = 3

Item = dict[str, Any]


def write_items(recipe: Synthesis) -> Iterator[Item]:
    """Yields every evaluation item of the corpus: generation, choice, few-shot."""
    for family in FAMILIES:
        yield from _generation_items(recipe, family)
    for family in HARD_FAMILIES:
        yield from _hard_items(recipe, family)
    yield from write_choices(recipe)
    for family in FAMILIES:
        if FAMILIES[family].domain != "ins":
            yield from _few_shot_items(recipe, family)


def write_heldout(recipe: Synthesis) -> Iterator[Item]:
    """Yields worked answers of held-out questions, spread evenly over each family's levels."""
    for family in FAMILIES:
        rng = random_stream(recipe.seed, "heldout", family)
        count = recipe.heldout_documents_per_family
        for place, problem in enumerate(distinct_problems(rng, family, count=count)):
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
    for place, problem in enumerate(distinct_problems(rng, family, count=recipe.items_per_family)):
        yield _generation_item(recipe, problem, item_id=f"{family}-{place:04d}", hard=False)


def _hard_items(recipe: Synthesis, family: str) -> Iterator[Item]:
    rng = random_stream(recipe.seed, "hard", family)
    top = FAMILIES[family].levels[1]
    count = recipe.hard_items_per_family
    for place, problem in enumerate(distinct_problems(rng, family, count=count, levels=(top, top))):
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
        distinct_problems(rng, family, count=recipe.items_per_family, levels=(low, low + 1))
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
