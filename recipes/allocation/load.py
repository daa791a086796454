"""An allocation by name or path, checked."""

from collections.abc import Sequence

from frontload.recipes.allocation.checks import check_allocation
from frontload.recipes.allocation.schema import AllocationRecipe
from frontload.recipes.grammar.load import Loaded, load_recipe, recipe_path

FOLDER = "allocations"


def load_allocation(name: str, *, overrides: Sequence[str] = ()) -> Loaded[AllocationRecipe]:
    """Loads an allocation by name (recipes/allocations) or path.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    path = recipe_path(name, folder=FOLDER, what="allocation")
    loaded = load_recipe(path, AllocationRecipe, overrides=overrides)
    check_allocation(loaded)
    return loaded
