"""The reinforcement-learning stages of a study, and what must hold before they are made."""

from dataclasses import fields

from frontload.recipes import schema
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.cluster import RlPlacement
from frontload.recipes.runs.grpo import GrpoKnobs, GrpoRecipe
from frontload.recipes.runs.grpo_checks import (
    MAX_VALIDATION_PROMPTS,
    grpo_problems,
    num_validation_prompts,
)
from frontload.recipes.schema import Model
from frontload.recipes.stage import Stage
from frontload.recipes.study.schema import RlKnobs, StudyRecipe

CPU_ROLLOUT, VLLM = "frontload", "vllm"


def prompts_stage(knobs: RlKnobs, corpus: Stage, *, seed: int) -> Stage:
    """The prompts, drawn once for every model and seed of a study."""
    asked = knobs.prompts
    assert asked is not None, "check_rl refuses a synthetic study without prompts"
    recipe = schema.RlPrompts(
        families=asked.families,
        level_low=asked.level_low,
        level_high=asked.level_high,
        num_prompts=asked.num_prompts,
        seed=seed,
    )
    return Stage(kind="rl_prompts", label="rl", recipe=recipe, inputs={"corpus": corpus})


def reinforce(knobs: RlKnobs, tuned: Stage, *, prompts: Stage, seed: int) -> Stage:
    """GRPO from a fine-tuned model; an outside engine generates for it from an exported copy."""
    recipe = grpo_recipe(knobs, tuned.recipe.model, seed=seed)
    tokenizer = tuned.inputs["tokenizer"]
    inputs = {"start": tuned, "prompts": prompts, "tokenizer": tokenizer}
    if knobs.rollout == VLLM:
        inputs["exported"] = Stage(
            kind="convert",
            label=tuned.label,
            recipe=schema.Export(form="nemotron_h"),
            inputs={"checkpoint": tuned, "tokenizer": tokenizer},
        )
    return Stage(kind="grpo", label=f"{tuned.label}+rl", recipe=recipe, inputs=inputs)


def grpo_recipe(knobs: GrpoKnobs, model: Model, *, seed: int) -> GrpoRecipe:
    """The stage's recipe: what the study states for RL, its model, one seed."""
    shared = {field.name: getattr(knobs, field.name) for field in fields(GrpoKnobs)}
    return GrpoRecipe(model=model, seed=seed, **shared)


def check_rl(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses RL on cells that the study does not have, too few prompts, or a wrong GRPO recipe.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    recipe = loaded.value
    knobs = recipe.rl
    if knobs is None:
        return
    if recipe.own is not None:
        raise loaded.refuse(
            "rl",
            found="a study on files of your own",
            rule="the prompts of a study's RL are drawn from the procedural families, or read from "
            "the files of raw.prompts",
            do="leave `rl` out of this study",
        )
    if (recipe.synthesis is None) != (knobs.prompts is None):
        is_missing = knobs.prompts is None
        raise loaded.refuse(
            "rl.prompts",
            found="is missing" if is_missing else "is stated beside raw.prompts",
            rule="a synthetic study draws its prompts, one on raw files reads them",
            do="add the section" if is_missing else "set it to null",
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
    _check_place(loaded, knobs)
    if knobs.prompts is not None:
        _check_number(loaded, knobs, knobs.prompts.num_prompts)
    for problem in grpo_problems(grpo_recipe(knobs, recipe.model, seed=1)):
        raise loaded.refuse(
            f"rl.{problem.path}", found=problem.found, rule=problem.rule, do=problem.do
        )


def _check_place(loaded: Loaded[StudyRecipe], knobs: RlKnobs) -> None:
    """On a placement without GPUs GRPO is the CPU plug-in's, alone in processes of one core."""
    recipe = loaded.value
    placement = recipe.placements.get("grpo", recipe.placement)
    if (placement.gpus is None) != (knobs.rollout == CPU_ROLLOUT):
        raise loaded.refuse(
            "rl.rollout",
            found=f"is '{knobs.rollout}' on placement {placement.name}",
            rule=f"GRPO computes on a CPU with rollout {CPU_ROLLOUT}, and on the GPUs of a "
            "placement with another",
            do=f"write {CPU_ROLLOUT}, or name GPUs in placements.grpo"
            if placement.gpus is None
            else f"write {VLLM}, or a placement without `gpus` in placements.grpo",
        )
    if placement.gpus is None and placement.rl != RlPlacement():
        path = "placements.grpo.rl" if "grpo" in recipe.placements else "placement.rl"
        raise loaded.refuse(
            path,
            found="is set",
            rule="GRPO of a study runs alone in processes of one core; this section would be "
            "ignored",
            do="leave it out, or run a recipe of its own: frontload rl",
        )


def _check_number(loaded: Loaded[StudyRecipe], knobs: RlKnobs, found: int) -> None:
    """A prompt that is drawn is asked once."""
    needed = knobs.batch_prompts * knobs.steps
    held = num_validation_prompts(found)
    if needed > found - held:
        raise loaded.refuse(
            "rl.prompts.num_prompts",
            found=f"{found} prompts, {held} of them for validation, for {knobs.steps} steps of "
            f"{knobs.batch_prompts}",
            rule="a prompt is asked once, as in the paper's one epoch",
            do=f"write {needed + MAX_VALIDATION_PROMPTS} or more, or lower rl.steps",
        )
