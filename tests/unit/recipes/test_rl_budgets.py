"""The GRPO recipes that ship hold the paper's numbers; what cannot be is refused by name."""

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.census import count_parameters
from frontload.recipes.grammar.load import RECIPES, Loaded, load_recipe
from frontload.recipes.runs import grpo
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.runs.grpo_checks import check_grpo


def loaded(name: str, *overrides: str) -> Loaded[GrpoRecipe]:
    return load_recipe(RECIPES / "training" / f"{name}.yaml", GrpoRecipe, overrides=overrides)


@pytest.mark.parametrize(
    "path", sorted((RECIPES / "training").glob("grpo_*.yaml")), ids=lambda p: p.stem
)
def test_every_recipe_of_rl_loads(path: Path) -> None:
    check_grpo(load_recipe(path, GrpoRecipe))


def test_the_8b_recipe_is_the_papers() -> None:
    """Front-Loading Reasoning, section 3.1."""
    recipe = loaded("grpo_8b").value
    assert (recipe.batch_prompts, recipe.mini_batch_prompts) == (128, 128)
    assert (recipe.grpo.rollouts_per_prompt, recipe.grpo.kl_coefficient) == (8, 0.001)
    assert recipe.optimizer.learning_rate == 1e-6
    assert (recipe.sampling.temperature, recipe.sampling.top_p) == (1.0, 1.0)
    assert recipe.context_tokens == 8192
    assert recipe.grpo.normalize_by_std


def test_the_twin_differs_in_size_and_place_only() -> None:
    big, tiny = loaded("grpo_8b").value, loaded("grpo_tiny").value
    assert (big.grpo, big.optimizer, big.sampling) == (tiny.grpo, tiny.optimizer, tiny.sampling)
    assert tiny.rollout == "frontload"
    assert (tiny.batch_prompts, tiny.mini_batch_prompts) == (4, 4)


def test_a_hashed_field_has_no_default_but_the_value_that_keeps_old_keys() -> None:
    kinds = [kind for kind in vars(grpo).values() if isinstance(kind, type)]
    mine = [kind for kind in kinds if is_dataclass(kind) and kind.__module__ == grpo.__name__]
    assert len(mine) == 5
    for kind in mine:
        for item in fields(kind):
            neutral = item.metadata.get("neutral", MISSING)
            assert item.default == neutral, f"{kind.__name__}.{item.name}"
            assert item.default_factory is MISSING


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("grpo.kl_estimator=k9", "grpo.kl_estimator"),
        ("grpo.kl_estimator=full", "grpo.kl_estimator"),
        ("grpo.loss_aggregation=mean", "grpo.loss_aggregation"),
        ("precision=fp16", "precision"),
        ("actor=fsdp", "actor"),
        ("rollout=sglang", "rollout"),
        ("batch_prompts=0", "batch_prompts"),
        ("steps=0", "steps"),
        ("prompt_tokens=0", "prompt_tokens"),
        ("sampling.temperature=0.0", "sampling.temperature"),
        ("sampling.top_p=0.0", "sampling.top_p"),
        ("sampling.top_p=0.9", "sampling.top_p"),  # vLLM draws from it, no actor scores it
        ("sampling.top_p=1.1", "sampling.top_p"),
        ("optimizer.warmup_steps=-1", "optimizer.warmup_steps"),
        ("optimizer.warmup_steps=2_197", "optimizer.warmup_steps"),
        ("optimizer.decay=linear", "optimizer.decay"),
        ("sampling.validation_samples=4", "sampling.validation_samples"),
        ("sampling.validation_temperature=-1.0", "sampling.validation_temperature"),
        ("optimizer.learning_rate=-1.0e-6", "optimizer.learning_rate"),
        ("optimizer.adam_beta1=1.0", "optimizer.adam_beta1"),
        ("optimizer.clip_grad=0.0", "optimizer.clip_grad"),
        ("grpo.rollouts_per_prompt=1", "grpo.rollouts_per_prompt"),
        ("grpo.dual_clip_ratio=1.0", "grpo.dual_clip_ratio"),
        ("grpo.clip_ratio_low=-0.1", "grpo.clip_ratio_low"),
        ("mini_batch_prompts=48", "mini_batch_prompts"),
        ("mini_batch_prompts=256", "mini_batch_prompts"),
        ("response_tokens=40_000", "response_tokens"),
        ("checkpoint_every_steps=0", "checkpoint_every_steps"),
        ("validate_every_steps=-1", "validate_every_steps"),
        ("seed=-1", "seed"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_name(override: str, path: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_grpo(loaded("grpo_8b", override))
    assert caught.value.asked == f"command line: {path}"


def test_a_refusal_says_what_to_write() -> None:
    with pytest.raises(RecipeError, match="write at most 31744"):
        check_grpo(loaded("grpo_8b", "response_tokens=40_000"))
    with pytest.raises(RecipeError, match="write 128, or a divisor"):
        check_grpo(loaded("grpo_8b", "mini_batch_prompts=48"))


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.learning_rate=0.0",  # the control that must leave the weights as they are
        "mini_batch_prompts=64",
        "grpo.kl_coefficient=0.0",
        "optimizer.warmup_steps=2_196",
        "optimizer.decay=cosine",
        "validate_every_steps=0",
        "sampling.validation_temperature=0.6",
    ],
)
def test_the_ends_of_the_ranges_are_allowed(override: str) -> None:
    check_grpo(loaded("grpo_8b", override))


def test_the_number_of_parameters_is_the_published_one() -> None:
    """8,100,852,736: Nemotron-H-8B; counted by the engine's own rule."""
    assert count_parameters(loaded("grpo_8b").value.model).total == 8_100_852_736
