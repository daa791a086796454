"""Prompts for reinforcement learning: training questions, each asked once, with gold answers."""

from collections.abc import Iterator
from typing import Any

from frontload.data_tools.synthetic.families import family_named, generate, in_order, level_at
from frontload.data_tools.synthetic.problem import random_stream
from frontload.data_tools.text.document import Conversation, Row
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import RlPrompts

MOST_TRIES = 1_000  # draws for one new question of a family before it is called exhausted
SHARE_TOLERANCE = 1e-6


def write_prompts(recipe: RlPrompts) -> Iterator[Conversation]:
    """Yields `num_prompts` different questions of the training side of the split.

    Each prompt goes to the family furthest below its share of the prompts so far; no two prompts
    have the same matter. A prompt is a conversation without a trace.
    Raises: RecipeError for shares that do not sum to 1, an unknown family, or a family with too few
        questions.
    """
    total = sum(recipe.families.values())
    for family in recipe.families:
        family_named(family)
    if abs(total - 1) > SHARE_TOLERANCE or min(recipe.families.values()) < 0:
        raise RecipeError(
            "rl.prompts.families",
            found=f"shares that sum to {total:g}",
            rule="the shares of prompts are not negative and sum to 1",
            do="scale them, or add the missing family",
        )
    families = in_order(recipe.families)
    streams = {family: random_stream(recipe.seed, "rl", family) for family in families}
    written = dict.fromkeys(families, 0)
    asked: set[tuple[str, str]] = set()
    for place in range(recipe.num_prompts):
        family = max(families, key=lambda one: recipe.families[one] * (place + 1) - written[one])
        written[family] += 1
        kind = family_named(family)
        for _ in range(MOST_TRIES):
            share = (
                recipe.level_low + (recipe.level_high - recipe.level_low) * streams[family].random()
            )
            level = level_at(family, share)
            problem = generate(streams[family], family, level=level, heldout=False)
            matter = (family, kind.matter(problem.question))
            if matter not in asked:
                break
        else:
            raise RecipeError(
                f"{recipe.num_prompts} prompts with a share of {recipe.families[family]:g} "
                f"of family {family}",
                found=f"only about {written[family] - 1} different questions of it",
                rule="a prompt is asked once",
                do="lower rl.prompts.num_prompts or the share of this family",
            )
        asked.add(matter)
        yield Conversation(
            id=f"rl-{place:06d}",
            question=problem.question,
            trace="",
            answer=problem.solution.answer,
            family=family,
            domain=problem.domain,
        )


def prompt_counts(prompts: list[Conversation], trained: Iterator[Row]) -> dict[str, Any]:
    """Counts of a prompt set: by family and domain, and how many stand in a training set as well.

    Reported, not refused: the paper's own RL data may overlap with its SFT data too.
    """
    seen = {row.question for row in trained if isinstance(row, Conversation)}
    counts: dict[str, Any] = {"format": 1, "prompts": len(prompts), "by_family": {}}
    counts["by_domain"] = {}
    for prompt in prompts:
        for name, key in (("by_family", prompt.family), ("by_domain", prompt.domain)):
            counts[name][key] = counts[name].get(key, 0) + 1
    counts["also_in_a_training_set"] = sum(prompt.question in seen for prompt in prompts)
    return counts
