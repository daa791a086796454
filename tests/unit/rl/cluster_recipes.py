"""Recipes and placements of the RL tests; every number differs from veRL's default."""

from dataclasses import replace
from pathlib import Path

from frontload.recipes.grammar.load import RECIPES, load_recipe
from frontload.recipes.machines.cluster import RlPlacement
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.trainer.settings import RunFiles

FILES = RunFiles(
    model=Path("/run/it's a model"),
    train_prompts=Path("/run/train, all.parquet"),
    validation_prompts=Path("/run/validation=1.parquet"),
    checkpoints=Path("/run/checkpoints"),
    work=Path("/run/work {1}"),
    validation_responses=Path("/run/responses"),
)
PAIRS = {
    "laptop": ("grpo_tiny", "cpu", {"actor": "fsdp2"}),
    "fsdp": ("grpo_8b", "slurm", {"actor": "fsdp2"}),
    "megatron": ("grpo_8b", "slurm_megatron", {"actor": "megatron"}),
}


def recipe_of(name: str, **changes: object) -> GrpoRecipe:
    """A recipe that ships, with fields changed."""
    found = load_recipe(RECIPES / "training" / f"{name}.yaml", GrpoRecipe).value
    return replace(found, **changes)  # pyright: ignore[reportArgumentType]


def placement_of(name: str, **changes: object) -> Placement:
    """A placement that ships, with fields changed."""
    found = load_recipe(RECIPES / "placements" / f"{name}.yaml", Placement).value
    return replace(found, **changes)  # pyright: ignore[reportArgumentType]


def odd_recipe(pair: str) -> GrpoRecipe:
    """The recipe of a pair with numbers that no default has, so that no default can pass for it."""
    name, _, changes = PAIRS[pair]
    found = recipe_of(name, **changes)
    return replace(
        found,
        batch_prompts=192,
        mini_batch_prompts=96,
        steps=321,
        prompt_tokens=60,
        response_tokens=68,
        grpo=replace(
            found.grpo,
            rollouts_per_prompt=4,
            normalize_by_std=False,
            kl_coefficient=0.0017,
            kl_estimator="k2",
            clip_ratio_low=0.13,
            clip_ratio_high=0.27,
            dual_clip_ratio=4.5,
            entropy_coefficient=0.003,
            loss_aggregation="seq-mean-token-mean",
        ),
        optimizer=replace(
            found.optimizer,
            learning_rate=3e-7,
            adam_beta1=0.85,
            adam_beta2=0.96,
            weight_decay=0.02,
            clip_grad=0.7,
            warmup_steps=7,
            decay="cosine",
        ),
        sampling=replace(
            found.sampling,
            temperature=0.9,
            top_p=0.95,
            validation_temperature=0.6,
            validation_samples=3,
        ),
        validate_every_steps=17,
        checkpoint_every_steps=19,
        seed=123,
    )


def odd_placement(pair: str) -> Placement:
    """The placement of a pair with numbers that no default has."""
    _, name, _ = PAIRS[pair]
    found = placement_of(name)
    machines = RlPlacement(
        rollout_tensor_parallel=1 if pair == "laptop" else 4,
        rollout_memory_share=0.35,
        rollout_sequences=77,
        rollout_batched_tokens=9_000,
        agent_workers=3,
        reward_workers=5,
        offload=True,
        checkpoints_kept=4,
        loggers=("console", "file", "tensorboard"),
        ray_cpus=6,
    )
    return replace(found, rl=machines, threads_per_rank=2)
