"""Pins names and sizes of a user's own files into the recipe, so that other files move its keys."""

from dataclasses import replace

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.study.schema import StudyRecipe


def pin_own_files(loaded: Loaded[StudyRecipe]) -> Loaded[StudyRecipe]:
    """The same study with its files by name and size; no file is opened.

    Raises: RecipeError naming file, line and pattern if a pattern names no file.
    """
    own = loaded.value.own
    if own is None:
        return loaded
    from frontload.data_tools.corpus.own_data import list_own_files
    from frontload.data_tools.raw.manifest import sizes_of

    try:
        files = sizes_of(list_own_files(own))
    except RecipeError as error:
        field, _, pattern = error.asked.partition(" ")
        found = f"{pattern}: {error.found}" if pattern else error.found
        raise loaded.refuse(field, found=found, rule=error.rule, do=error.do) from error
    return replace(loaded, value=replace(loaded.value, own=replace(own, files=files)))
