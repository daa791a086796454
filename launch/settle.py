"""What a checked study still needs before it is expanded: a layout that fits, its files' digest."""

from frontload.launch.own_files import pin_own_files
from frontload.megatron_ext.layout import cut_batch
from frontload.recipes.errors import RecipeError
from frontload.recipes.load import Loaded
from frontload.recipes.study_schema import StudyRecipe


def settle(loaded: Loaded[StudyRecipe]) -> Loaded[StudyRecipe]:
    """The study with its files pinned, after its models and batches were cut as it is placed.

    Raises: RecipeError naming file, line and key of the layout or the file that does not fit.
    """
    recipe = loaded.value
    for section in ("pretraining", "sft"):
        try:
            cut_batch(recipe.model, getattr(recipe, section), placement=recipe.placement)
        except RecipeError as error:
            path = error.asked.replace("training.", f"{section}.")
            raise loaded.refuse(path, found=error.found, rule=error.rule, do=error.do) from error
    return pin_own_files(loaded)
