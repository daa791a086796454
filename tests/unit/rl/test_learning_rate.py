"""The rate of each step by veRL's own schedulers, made as its engines make them of the settings."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from verl.utils.megatron.optimizer import get_megatron_optimizer_param_scheduler
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

from frontload.rl.trainer.settings import verl_settings
from tests.unit.rl.cluster_recipes import FILES, PAIRS, placement_of, recipe_of
from tests.unit.rl.verl_config import composed, dataclass_of, verl_configs

pytestmark = pytest.mark.usefixtures(verl_configs.__name__)

STEPS = 12


def rates(pair: str, *, warmup_steps: int, decay: str) -> list[float]:
    """The share of the rate that each step of a run takes."""
    name, placement, changes = PAIRS[pair]
    recipe = recipe_of(name, **changes, steps=STEPS)
    optimizer = replace(recipe.optimizer, warmup_steps=warmup_steps, decay=decay)
    settings = verl_settings(replace(recipe, optimizer=optimizer), placement_of(placement), FILES)
    config = composed(settings).actor_rollout_ref.actor
    config.optim.total_training_steps = STEPS  # as veRL's trainer does, trainer_base.py:782
    optim = dataclass_of(config).optim
    weight = torch.nn.Parameter(torch.zeros(1))
    torch_optimizer: Any = torch.optim.AdamW([{"params": [weight], "lr": optim.lr}])
    engine: Any = SimpleNamespace(optimizer_config=optim, rank=1)
    scheduler: Any = (
        get_megatron_optimizer_param_scheduler(torch_optimizer, optim)
        if pair == "megatron"
        else FSDPEngine._build_lr_scheduler(engine, torch_optimizer)
    )
    found = []
    for _ in range(STEPS):
        found.append(torch_optimizer.param_groups[0]["lr"] / recipe.optimizer.learning_rate)
        torch_optimizer.step()
        scheduler.step(*([1] if pair == "megatron" else []))
    return found


@pytest.mark.parametrize("pair", PAIRS)
def test_the_rate_is_constant_from_the_first_step_unless_told(pair: str) -> None:
    assert rates(pair, warmup_steps=0, decay="constant") == pytest.approx([1.0] * STEPS, abs=1e-12)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_warm_up_rises_from_zero_and_a_decay_falls_to_it(pair: str) -> None:
    rise = [0.0, 0.25, 0.5, 0.75]
    flat = rates(pair, warmup_steps=4, decay="constant")
    assert flat == pytest.approx([*rise, *[1.0] * 8], abs=1e-12)
    fall = [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert rates(pair, warmup_steps=4, decay="cosine") == pytest.approx([*rise, *fall], abs=1e-12)
