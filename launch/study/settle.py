"""What a checked study still needs before it is expanded: what only other rooms can check of it.

A layout that fits, a machine that has it, an RL that its trainer takes, the sizes of its files.
"""

from frontload.launch.study.own_files import pin_own_files
from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.gemms import check_layers
from frontload.recipes.facts.layout import cut_batch
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.cluster import TORCH
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import find_precision
from frontload.recipes.study.reinforcement import grpo_recipe
from frontload.recipes.study.schema import StudyRecipe
from frontload.rl.trainer.guards import check_parts


def settle(loaded: Loaded[StudyRecipe]) -> Loaded[StudyRecipe]:
    """The study with its files pinned, after its models and batches were cut as it is placed.

    Raises: RecipeError naming file, line and key of the layout or the file that does not fit.
    """
    _check_places(loaded)
    recipe = loaded.value
    for kind, section in (("pretrain", "pretraining"), ("sft", "sft")):
        knobs = getattr(recipe, section)
        placement = recipe.placements.get(kind, recipe.placement)
        try:
            cut_batch(recipe.model, knobs, placement=placement)
            check_layers(placement, find_precision(knobs.precision))
        except RecipeError as error:
            path = error.asked.replace("training.", f"{section}.")
            raise loaded.refuse_at(path, error) from error
    if recipe.rl is not None:
        try:
            placement = recipe.placements.get("grpo", recipe.placement)
            where = Placement() if placement.gpus is None else placement
            check_parts(grpo_recipe(recipe.rl, recipe.model, seed=1), where)
        except RecipeError as error:
            raise loaded.refuse_at(f"rl.{error.asked}", error) from error
    return pin_own_files(loaded)


def _check_places(loaded: Loaded[StudyRecipe]) -> None:
    """Every kind of stage runs where its placement can be had: here, or as jobs of one cluster."""
    recipe = loaded.value
    places = {"placement": recipe.placement}
    places |= {f"placements.{kind}": one for kind, one in recipe.placements.items()}
    for path, placement in places.items():
        if placement.num_nodes != 1 and placement.slurm is None:
            raise loaded.refuse(
                f"{path}.num_nodes",
                found=f"is {placement.num_nodes}",
                rule="without a `slurm` section the stages of a study run on one machine",
                do="write 1, or add placement.slurm",
            )
        if placement.kernels != TORCH and placement.gpus is None:
            raise loaded.refuse(
                f"{path}.kernels",
                found=f"is {placement.kernels} in a placement without `gpus`",
                rule="these layers need CUDA, and a placement without `gpus` shows a study none",
                do=f"write {TORCH}, or add `gpus`",
            )
    grpo = recipe.placements.get("grpo", recipe.placement)
    if recipe.rl is not None and grpo.gpus is not None and grpo.slurm is None:
        raise loaded.refuse(
            "placements.grpo" if "grpo" in recipe.placements else "placement",
            found=f"{grpo.name} has `gpus` and no `slurm` section",
            rule="on GPUs GRPO is a job of a cluster; this machine runs it on its CPU",
            do="write rl: null, or a placement with `slurm`, or one without `gpus`",
        )
    folders = {
        path: one.slurm.shared_folder if one.slurm else "this machine"
        for path, one in places.items()
    }
    if len(set(folders.values())) > 1:
        raise loaded.refuse(
            "placements",
            found=", ".join(f"{path}: {folder}" for path, folder in folders.items()),
            rule="a stage reads what another one left: all run on this machine, or as jobs of one "
            "cluster with one shared folder",
            do="write the same slurm.shared_folder in all of them, or choose other placements",
        )
