"""What veRL would take and run wrongly is refused, with the reason; what is right is not."""

from dataclasses import replace
from typing import Any

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.trainer import guards
from frontload.rl.trainer.settings import verl_settings
from tests.unit.rl.cluster_recipes import FILES, PAIRS, placement_of, recipe_of

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
MODEL = "actor_rollout_ref.model"


def parts(pair: str) -> tuple[GrpoRecipe, Placement]:
    name, placement, changes = PAIRS[pair]
    return recipe_of(name, **changes), placement_of(placement)


def refusal(pair: str, own: dict[str, str]) -> RecipeError:
    """What a placement's own veRL settings are answered with."""
    recipe, placement = parts(pair)
    asking = replace(placement, rl=replace(placement.rl, verl=own))
    with pytest.raises(RecipeError) as caught:
        verl_settings(recipe, asking, FILES)
    return caught.value


def attention_only(recipe: GrpoRecipe) -> GrpoRecipe:
    """The recipe for a model without Mamba layers."""
    return replace(recipe, model=replace(recipe.model, pattern="*-*-"))


@pytest.mark.parametrize("pair", PAIRS)
def test_what_ships_is_accepted(pair: str) -> None:
    assert verl_settings(*parts(pair), FILES).overrides


@pytest.mark.parametrize(
    ("pair", "key", "value", "reason"),
    [
        ("laptop", f"{MODEL}.use_remove_padding", "True", "no sequence index"),
        ("fsdp", f"{MODEL}.use_remove_padding", "true", "no sequence index"),
        ("fsdp", f"++{MODEL}.use_remove_padding", "true", "no sequence index"),
        ("fsdp", f"{ACTOR}.use_remove_padding", "true", "no sequence index"),
        ("megatron", f"{MODEL}.use_remove_padding", "true", "without `total_tokens`"),
        ("megatron", f"{ACTOR}.megatron.use_remove_padding", "true", "without `total_tokens`"),
        ("fsdp", f"{ACTOR}.ulysses_sequence_parallel_size", "2", "needs packed rows"),
        ("megatron", f"{ACTOR}.megatron.context_parallel_size", "2", "needs packed rows"),
        ("fsdp", f"+{ROLLOUT}.engine_kwargs.vllm.mamba_ssm_cache_dtype", "bfloat16", "float32"),
        ("megatron", f"+{ROLLOUT}.engine_kwargs.vllm.mamba_ssm_cache_dtype", "auto", "float32"),
        ("fsdp", f"{ROLLOUT}.enable_prefix_caching", "true", "experimental"),
        ("fsdp", f"{ROLLOUT}.checkpoint_engine.backend", "delta_sharded", "mixer.D"),
        ("fsdp", f"{ACTOR}.checkpoint.save_contents", "[model,hf_model]", "in bf16"),
        ("megatron", f"{ACTOR}.megatron.use_dist_checkpointing", "true", "Megatron-Bridge writes"),
        ("fsdp", f"{ACTOR}.fsdp_config.dtype", "float32", "does not read it"),
        ("laptop", f"+{MODEL}.override_config.chunk_size", "16", "wrong state past one chunk"),
        ("laptop", "+ray_kwargs.ray_init.address", "auto", "its own Ray"),
    ],
)
def test_a_setting_known_to_be_wrong_is_refused_with_its_reason(
    pair: str, key: str, value: str, reason: str
) -> None:
    error = refusal(pair, {key: value})
    assert key.lstrip("+") in error.asked
    assert value.lower() in error.found
    assert reason in error.rule
    assert error.do


def test_a_run_on_this_machine_may_ask_for_a_ray_of_its_own() -> None:
    recipe, placement = parts("laptop")
    local = {"+ray_kwargs.ray_init.address": "local"}
    asking = replace(placement, rl=replace(placement.rl, verl=local))
    assert "+ray_kwargs.ray_init.address=local" in verl_settings(recipe, asking, FILES).overrides


def test_a_missing_cache_type_is_refused_like_a_wrong_one() -> None:
    recipe, placement = parts("fsdp")
    with pytest.raises(RecipeError, match="is not set"):
        guards.check_rendered(recipe, placement, {f"{ROLLOUT}.enable_prefix_caching": "false"})


def test_a_model_without_mamba_layers_may_pack_and_cache() -> None:
    recipe, placement = parts("fsdp")
    settings = {f"{MODEL}.use_remove_padding": "true", f"{ROLLOUT}.enable_prefix_caching": "true"}
    guards.check_rendered(attention_only(recipe), placement, settings)
    rendered = verl_settings(attention_only(recipe), placement, FILES).overrides
    assert not any("mamba_ssm_cache_dtype" in text for text in rendered)


def test_stock_chunks_on_a_cpu_are_refused_where_they_are_too_short() -> None:
    """Without the override the model's own chunk decides: 128 tokens of context in chunks of 32."""
    recipe, placement = parts("laptop")
    short = replace(recipe, model=replace(recipe.model, mamba_chunk_tokens=32))
    with pytest.raises(RecipeError, match="is 32 for sequences of up to 128 tokens"):
        guards.check_rendered(short, placement, {})
    long = replace(recipe, model=replace(recipe.model, mamba_chunk_tokens=128))
    guards.check_rendered(long, placement, {})


@pytest.mark.parametrize(
    ("pair", "recipe_changes", "placement_changes", "asked"),
    [
        ("megatron", {"precision": "fp32"}, {}, "precision"),
        ("fsdp", {}, {"tensor_parallel": 2}, "placement.tensor_parallel"),
        ("fsdp", {}, {"pipeline_parallel": 2}, "placement.pipeline_parallel"),
        ("megatron", {}, {"context_parallel": 2}, "placement.context_parallel"),
        ("megatron", {}, {"tensor_parallel": 3}, "placement.tensor_parallel"),
        ("megatron", {}, {"num_nodes": 3}, "mini_batch_prompts"),
        ("fsdp", {}, {"micro_batch_sequences": 5}, "placement.micro_batch_sequences"),
        ("laptop", {}, {"ranks_per_node": 2}, "placement cpu"),
        ("laptop", {}, {"num_nodes": 2}, "placement cpu"),
        ("laptop", {"actor": "megatron"}, {}, "actor"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(
    pair: str, recipe_changes: dict[str, Any], placement_changes: dict[str, Any], asked: str
) -> None:
    recipe, placement = parts(pair)
    changed = replace(placement, **placement_changes)
    with pytest.raises(RecipeError) as caught:
        verl_settings(replace(recipe, **recipe_changes), changed, FILES)
    assert caught.value.asked == asked


@pytest.mark.parametrize("gpus", [0, 3, 16])
def test_a_rollout_engine_stays_inside_a_node(gpus: int) -> None:
    recipe, placement = parts("fsdp")
    wide = replace(placement, rl=replace(placement.rl, rollout_tensor_parallel=gpus))
    with pytest.raises(RecipeError, match="stays inside a node"):
        verl_settings(recipe, wide, FILES)
