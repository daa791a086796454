"""Pins the bytes of a user's own files into the recipe, so that an edited file moves its keys."""

from dataclasses import replace

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.study.schema import StudyRecipe

FILE_FIELDS = ("base_files", "reasoning_files", "heldout_files")


def pin_own_files(loaded: Loaded[StudyRecipe]) -> Loaded[StudyRecipe]:
    """The same study with the digest of its files where the recipe leaves it open.

    Raises: RecipeError naming file, line and pattern if a pattern names no file.
    """
    own = loaded.value.own
    if own is None:
        return loaded
    from frontload.data_tools.own_data import digest_files, expand_files

    for field in FILE_FIELDS:
        try:
            expand_files(getattr(own, field), field=field)
        except RecipeError as error:
            pattern = error.asked.removeprefix(f"own.{field}: ")
            raise loaded.refuse(
                f"own.{field}", found=f"{pattern}: {error.found}", rule=error.rule, do=error.do
            ) from error
    if own.base_digest:
        return loaded
    digest = digest_files((*own.base_files, *own.reasoning_files, *own.heldout_files))
    value = replace(loaded.value, own=replace(own, base_digest=digest))
    return replace(loaded, value=value)
