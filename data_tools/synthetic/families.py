"""All reasoning families by name: questions, worked answers and exact verification."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from frontload.data_tools.raw.parse import nearest_name
from frontload.data_tools.synthetic.code_families import CODE_FAMILIES
from frontload.data_tools.synthetic.instruction_families import INSTRUCTION_FAMILIES
from frontload.data_tools.synthetic.math_families import MATH_FAMILIES
from frontload.data_tools.synthetic.problem import Family, Solution, is_heldout
from frontload.data_tools.synthetic.science_families import SCIENCE_FAMILIES
from frontload.data_tools.synthetic.sequence_families import SEQUENCE_FAMILIES
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Synthesis

FAMILIES: dict[str, Family] = {
    family.name: family
    for families in (
        MATH_FAMILIES,
        CODE_FAMILIES,
        SCIENCE_FAMILIES,
        SEQUENCE_FAMILIES,
        INSTRUCTION_FAMILIES,
    )
    for family in families
}
HARD_FAMILIES = ("chain", "add")
"""The analogue of AIME 2024 and 2025: asked more often at the top level, in the same benchmark."""

MOST_DRAWS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A question of a family with its worked answer."""

    family: str
    domain: str
    level: int
    question: str
    solution: Solution


def in_order(shares: Iterable[str]) -> list[str]:
    """Names of families in the order of `FAMILIES`: a draw does not hang on that of a recipe.

    A key ignores the order in which a mapping was written, so what it names must too.
    """
    named = set(shares)
    return [name for name in FAMILIES if name in named]


def families_of(recipe: Synthesis) -> list[str]:
    """The families that a corpus trains on, in the order of `FAMILIES`: those it evaluates too."""
    named = {*recipe.ldq.families, *recipe.shq.families}
    return [name for name in FAMILIES if name in named]


def family_named(name: str) -> Family:
    """The family of this name.

    Raises: RecipeError naming the nearest family.
    """
    if name not in FAMILIES:
        raise RecipeError(
            f"reasoning family {name!r}",
            found=f"no family of this name{nearest_name(name, FAMILIES)}",
            rule=f"a family is one of {', '.join(FAMILIES)}",
            do="correct the name in synthesis.ldq.families or synthesis.shq.families",
        )
    return FAMILIES[name]


def generate(rng: random.Random, family: str, *, level: int, heldout: bool) -> Problem:
    """Draws a problem of one side of the split: for training, or (`heldout`) for evaluation only.

    Raises: RecipeError for a level outside the family's range.
    """
    kind = family_named(family)
    low, high = kind.levels
    if not low <= level <= high:
        raise RecipeError(
            f"family {family}: level {level}",
            found="a level outside its range",
            rule=f"the levels of {family} are {low} to {high}",
            do=f"ask for a level from {low} to {high}",
        )
    for _ in range(MOST_DRAWS):
        question = kind.draw(rng, level)
        if is_heldout(kind.matter(question)) == heldout:
            solution = kind.solve(question)
            return Problem(
                family=family,
                domain=kind.stands_for,
                level=level,
                question=question,
                solution=solution,
            )
    raise AssertionError(f"family {family} has no question of level {level} on one side")


def level_at(family: str, share: float) -> int:
    """The level at `share` (0 to 1) of a family's range; every level has an equal part of it."""
    low, high = family_named(family).levels
    return min(high, low + int(share * (high - low + 1)))


def distinct_problems(
    rng: random.Random,
    family: str,
    *,
    count: int,
    asked: set[str],
    levels: tuple[int, int] | None = None,
) -> Iterator[Problem]:
    """`count` held-out problems that are not in `asked`, where they are then, level after level.

    Raises: RecipeError when there are fewer.
    """
    low, high = levels or FAMILIES[family].levels
    found = 0
    for draw in range(MOST_DRAWS):
        if found == count:
            return
        level = low + draw % (high - low + 1)
        problem = generate(rng, family, level=level, heldout=True)
        if problem.question not in asked:
            asked.add(problem.question)
            found += 1
            yield problem
    raise too_few(family, wanted=count, found=found)


def too_few(name: str, *, wanted: int, found: int) -> RecipeError:
    """The refusal of more evaluation items than there are questions."""
    return RecipeError(
        f"{wanted} evaluation items of {name}",
        found=f"{found} different held-out questions",
        rule="an evaluation question is asked once",
        do="lower synthesis.items_per_family, choice_items or heldout_documents_per_family",
    )


def verify(family: str, question: str, final_answer: str) -> bool:
    """Whether a final answer is right, recomputed from the text of the question alone."""
    return " ".join(final_answer.split()) == family_named(family).solve(question).answer
