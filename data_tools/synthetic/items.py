"""Evaluation items and held-out worked answers: questions that no training text holds."""

import random
from collections.abc import Iterator
from typing import Any

from frontload.data_tools.synthetic.choices import write_choices
from frontload.data_tools.synthetic.families import (
    FAMILIES,
    HARD_FAMILIES,
    Problem,
    distinct_problems,
    families_of,
    generate,
)
from frontload.data_tools.synthetic.problem import random_stream
from frontload.data_tools.synthetic.writers import long_trace
from frontload.recipes.schema import Synthesis

NUM_EXEMPLARS = 3
FEW_SHOT_DOMAINS = ("math", "code", "science")

Item = dict[str, Any]


def write_items(recipe: Synthesis, asked: set[str]) -> Iterator[Item]:
    """Yields every evaluation item of the corpus: generation, choice, few-shot.

    No two benchmarks ask one question: those in `asked` are left out, new ones are added to it.
    """
    families = families_of(recipe)
    for domain in FEW_SHOT_DOMAINS:  # first: low levels have few questions
        yield from _few_shot_items(recipe, domain, asked=asked)
    for family in families:
        yield from _generation_items(recipe, family, asked=asked)
    for family in HARD_FAMILIES:
        if family in families:
            yield from _hard_items(recipe, family, asked=asked)
    yield from write_choices(recipe, asked)


def write_heldout(recipe: Synthesis, asked: set[str]) -> Iterator[Item]:
    """Yields worked answers of held-out questions not in `asked`, over all levels of a family."""
    for family in families_of(recipe):
        rng = random_stream(recipe.seed, "heldout", family)
        count = recipe.heldout_documents_per_family
        problems = distinct_problems(rng, family, count=count, asked=asked)
        for place, problem in enumerate(problems):
            yield {
                "id": f"heldout-{family}-{place:04d}",
                "question": problem.question,
                "trace": long_trace(problem),
                "answer": problem.solution.answer,
                "family": family,
                "domain": problem.domain,
                "inside_shq": family in recipe.shq.families,
            }


def _generation_items(recipe: Synthesis, family: str, *, asked: set[str]) -> Iterator[Item]:
    rng = random_stream(recipe.seed, "generate", family)
    problems = distinct_problems(rng, family, count=recipe.items_per_family, asked=asked)
    for place, problem in enumerate(problems):
        yield _generation_item(recipe, problem, item_id=f"{family}-{place:04d}", hard=False)


def _hard_items(recipe: Synthesis, family: str, *, asked: set[str]) -> Iterator[Item]:
    rng = random_stream(recipe.seed, "hard", family)
    top = FAMILIES[family].levels[1]
    count = recipe.hard_items_per_family
    problems = distinct_problems(rng, family, count=count, asked=asked, levels=(top, top))
    for place, problem in enumerate(problems):
        yield _generation_item(recipe, problem, item_id=f"hard_{family}-{place:04d}", hard=True)


def _generation_item(recipe: Synthesis, problem: Problem, *, item_id: str, hard: bool) -> Item:
    return {
        "id": item_id,
        "kind": "generate",
        "benchmark": problem.family,
        "category": problem.domain,
        "family": problem.family,
        "level": problem.level,
        "question": problem.question,
        "answer": problem.solution.answer,
        "trace": long_trace(problem),
        "inside_shq": problem.family in recipe.shq.families,
        "hard": hard,
    }


def _few_shot_items(recipe: Synthesis, domain: str, *, asked: set[str]) -> Iterator[Item]:
    """Held-out questions of a domain's two lowest levels, each after short training exemplars.

    One benchmark a domain, its families in turn, as many items as a family's own benchmark has.
    """
    families = [name for name in families_of(recipe) if FAMILIES[name].stands_for == domain]
    if not families:
        return
    rng = random_stream(recipe.seed, "few_shot", domain)
    count = -(-recipe.items_per_family // len(families))
    for family in families:
        low = FAMILIES[family].levels[0]
        problems = distinct_problems(rng, family, count=count, asked=asked, levels=(low, low + 1))
        for place, problem in enumerate(problems):
            yield {
                "id": f"few_{domain}-{family}-{place:04d}",
                "kind": "few_shot",
                "benchmark": f"few_{domain}",
                "category": domain,
                "family": family,
                "question": problem.question,
                "answer": problem.solution.answer,
                "exemplars": [_exemplar(rng, family, level=low) for _ in range(NUM_EXEMPLARS)],
                "inside_shq": family in recipe.shq.families,
            }


def _exemplar(rng: random.Random, family: str, *, level: int) -> dict[str, str]:
    problem = generate(rng, family, level=level, heldout=False)
    return {
        "question": problem.question,
        "trace": long_trace(problem),
        "answer": problem.solution.answer,
    }
