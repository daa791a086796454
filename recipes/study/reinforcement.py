"""The reinforcement-learning stages of a study, and what must hold before they are made."""

from dataclasses import fields

from frontload.recipes import schema
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.cluster import RlPlacement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.runs.grpo_checks import (
    MAX_VALIDATION_PROMPTS,
    grpo_problems,
    num_validation_prompts,
)
from frontload.recipes.schema import Model
from frontload.recipes.stage import Stage
from frontload.recipes.study.schema import RlKnobs, StudyRecipe

RL_DATA = "CrossThink"
"""The paper's RL data, whose place our prompts take in the cells of claims.json."""

CPU_ROLLOUT = "frontload"
NOT_SHARED = ("model", "seed", "reward_layout")
"""Fields of GrpoRecipe that a study states elsewhere; its models write the template's marks."""


def prompts_stage(knobs: RlKnobs, corpus: Stage, *, seed: int) -> Stage:
    """The prompts, drawn once for every model and seed of a study."""
    asked = knobs.prompts
    recipe = schema.RlPrompts(
        families=asked.families,
        level_low=asked.level_low,
        level_high=asked.level_high,
        num_prompts=asked.num_prompts,
        seed=seed,
    )
    return Stage(kind="rl_prompts", label="rl", recipe=recipe, inputs={"corpus": corpus})


def reinforce(knobs: RlKnobs, tuned: Stage, *, prompts: Stage, seed: int) -> Stage:
    """GRPO from a fine-tuned model."""
    recipe = grpo_recipe(knobs, tuned.recipe.model, seed=seed)
    inputs = {"start": tuned, "prompts": prompts, "tokenizer": tuned.inputs["tokenizer"]}
    return Stage(kind="grpo", label=f"{tuned.label}+rl", recipe=recipe, inputs=inputs)


def grpo_recipe(knobs: RlKnobs, model: Model, *, seed: int) -> GrpoRecipe:
    """The stage's recipe: what the study states for RL, its model, one seed."""
    shared = {
        field.name: getattr(knobs, field.name)
        for field in fields(GrpoRecipe)
        if field.name not in NOT_SHARED
    }
    return GrpoRecipe(model=model, seed=seed, **shared)


def check_rl(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses RL on cells that the study does not have, too few prompts, or a wrong GRPO recipe.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    recipe = loaded.value
    knobs = recipe.rl
    if knobs is None:
        return
    if recipe.synthesis is None:
        raise loaded.refuse(
            "rl",
            found="a study on files of your own",
            rule="the prompts of a study's RL are drawn from the procedural families",
            do="leave `rl` out of this study",
        )
    grid = {(arm, mix) for arm in recipe.arms for mix in recipe.sft.mixes}
    for place, cell in enumerate(knobs.cells):
        if (cell.arm, cell.mix) not in grid:
            raise loaded.refuse(
                f"rl.cells.{place}",
                found=f"no SFT cell of arm '{cell.arm}' on mix '{cell.mix}'",
                rule="reinforcement learning goes on from a cell of arms x sft.mixes",
                do="name an arm of `arms` and a mix of `sft.mixes`, or add them there",
            )
    if knobs.rollout != CPU_ROLLOUT:
        raise loaded.refuse(
            "rl.rollout",
            found=f"is '{knobs.rollout}'",
            rule="GRPO of a study computes on the CPU of this machine; on GPUs it is a job of its "
            "own",
            do=f"write {CPU_ROLLOUT}, or leave `rl` out and `frontload launch` a recipe of "
            "recipes/training",
        )
    if recipe.placement.rl != RlPlacement():
        raise loaded.refuse(
            "placement.rl",
            found="is set",
            rule="GRPO of a study runs alone in processes of one core; this section would be "
            "ignored",
            do="leave it out, or run a recipe of its own: frontload rl",
        )
    needed = knobs.batch_prompts * knobs.steps
    found = knobs.prompts.num_prompts
    held = num_validation_prompts(found)
    if needed > found - held:
        raise loaded.refuse(
            "rl.prompts.num_prompts",
            found=f"{found} prompts, {held} of them for validation, for {knobs.steps} steps of "
            f"{knobs.batch_prompts}",
            rule="a prompt is asked once, as in the paper's one epoch",
            do=f"write {needed + MAX_VALIDATION_PROMPTS} or more, or lower rl.steps",
        )
    for problem in grpo_problems(grpo_recipe(knobs, recipe.model, seed=1)):
        raise loaded.refuse(
            f"rl.{problem.path}", found=problem.found, rule=problem.rule, do=problem.do
        )
