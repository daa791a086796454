"""Recipes of one command by name or path, read and checked, and the placement they run on."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.pattern import check_model
from frontload.recipes.grammar.load import Loaded, find_recipe, load_recipe, nearest, recipe_names
from frontload.recipes.machines.checks import check_placement
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.runs.grpo_checks import check_grpo
from frontload.recipes.runs.training import PretrainRecipe, SftRecipe
from frontload.recipes.runs.training_checks import check_train

KINDS: dict[str, type] = {"grpo": GrpoRecipe, "pretrain": PretrainRecipe, "sft": SftRecipe}
"""First word of a file of recipes/training -> what it holds."""

PLACEMENT = "placement."


def load_training(name: str, overrides: Sequence[str]) -> Loaded[Any]:
    """A recipe by name under recipes/training, or by path; its first word says what it holds.

    Raises: RecipeError for an unknown name or kind, and for what the recipe itself has wrong.
    """
    path = _named(name, "training", asked=f"recipe {name}", what="recipe")
    kind = path.stem.partition("_")[0]
    if kind not in KINDS:
        raise RecipeError(
            f"recipe {name}",
            found=f"'{kind}' is no kind of training that can be launched",
            rule="a file begins with the kind of its stage: " + ", ".join(KINDS),
            do="rename it, e.g. grpo_mine.yaml",
        )
    loaded = load_recipe(path, KINDS[kind], overrides=overrides)
    if kind == "grpo":
        check_grpo(loaded)
    else:
        check_train(loaded)
    try:
        check_model(loaded.value.model)
    except RecipeError as error:
        raise loaded.refuse_at(error.asked, error) from error
    return loaded


def only_stages(loaded: Loaded[Any], name: str) -> Loaded[Any]:
    """The recipe, if it is one that `frontload train` runs.

    Raises: RecipeError for a recipe of RL.
    """
    if isinstance(loaded.value, GrpoRecipe):
        raise RecipeError(
            f"train {name}",
            found="a recipe of reinforcement learning",
            rule="train runs pretraining and fine-tuning",
            do=f"frontload rl {name}",
        )
    return loaded


def load_placement(name: str, overrides: Sequence[str]) -> Loaded[Placement]:
    """A placement by name under recipes/placements, or by path.

    Raises: RecipeError for an unknown name, and for what the placement itself has wrong.
    """
    path = _named(name, "placements", asked=f"--placement {name}", what="placement")
    loaded = load_recipe(path, Placement, overrides=overrides)
    check_placement(loaded, loaded.value)
    return loaded


def _named(name: str, folder: str, *, asked: str, what: str) -> Path:
    path = Path(name) if name.endswith(".yaml") else find_recipe(folder, name)
    if path is None or not path.is_file():
        raise RecipeError(
            asked,
            found=f"no such {what}",
            rule=f"a {what} is a name under recipes/{folder} or a path ending in .yaml",
            do=nearest(name, recipe_names(folder)),
        )
    return path


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the recipe, and those of the placement without their first word."""
    placement = [text for text in overrides if text.startswith(PLACEMENT)]
    recipe = [text for text in overrides if not text.startswith(PLACEMENT)]
    return recipe, [text.removeprefix(PLACEMENT) for text in placement]


def with_place(
    error: RecipeError, recipe: Loaded[Any], placement: Loaded[Placement]
) -> RecipeError:
    """The error with the file and line that set its value, where it names a field."""
    asked = error.asked.removeprefix("training.")
    inside = asked.removeprefix(PLACEMENT)
    owner = placement if inside != asked else recipe
    if inside.partition(".")[0] not in {item.name for item in fields(owner.value)}:
        return error
    return owner.refuse_at(inside, error)
