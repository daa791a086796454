"""Stages that a command names with --only: by kind, label or key, with what they need."""

from collections.abc import Sequence

from frontload.launch.origins.made_by import stage_names
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import nearest
from frontload.recipes.stage import Stage
from frontload.recipes.study.expand import Study, in_order


def choose_stages(study: Study, only: Sequence[str]) -> tuple[Stage, ...]:
    """The stages of these names and everything below them; all if none is named.

    Raises: RecipeError for a name that no stage has.
    """
    chosen: list[Stage] = []
    for name in only:
        mine = [one for one in study.stages if name == one.kind or name in stage_names(one)]
        mine = mine or [one for one in study.stages if f"{name}-seed1" in stage_names(one)]
        if not mine:
            names = [f"{stage.kind}/{stage.label}" for stage in study.stages]
            raise RecipeError(
                f"run --only {name}",
                found="no such stage",
                rule="a stage is named by its kind, its label or its key, as `plan -v` prints them",
                do=nearest(name, [*dict.fromkeys(stage.kind for stage in study.stages), *names]),
            )
        chosen += mine
    return in_order(chosen) if only else study.stages
