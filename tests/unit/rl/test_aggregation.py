"""What one token weighs in the loss of an update, by veRL's own loss on the rendered settings."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from verl.trainer.ppo.core_algos import agg_loss

from frontload.recipes.runs.grpo import LOSS_AGGREGATIONS
from frontload.rl.trainer.settings import verl_settings
from tests.unit.rl.cluster_recipes import FILES, placement_of, recipe_of
from tests.unit.rl.verl_config import composed, dataclass_of, verl_configs

pytestmark = pytest.mark.usefixtures(verl_configs.__name__)

LENGTHS = [4] * 8 + [60] * 8  # of an update's rows, which stand by length
LIMIT = 64


def actor_of(aggregation: str) -> Any:
    """The actor's settings as veRL's workers read them."""
    recipe = recipe_of("grpo_tiny", response_tokens=LIMIT)
    grpo = replace(recipe.grpo, loss_aggregation=aggregation)
    settings = verl_settings(replace(recipe, grpo=grpo), placement_of("cpu"), FILES)
    return dataclass_of(composed(settings).actor_rollout_ref.actor)


def token_weights(aggregation: str, *, rows_a_time: int) -> list[torch.Tensor]:
    """The derivative of an update's loss by the loss of each token, a row an answer.

    The micro-batches are padded to their own longest row, and told what veRL's ppo_loss tells them
    (workers/utils/losses.py:65).
    """
    actor = actor_of(aggregation)
    losses = [torch.ones(length, requires_grad=True) for length in LENGTHS]
    for first in range(0, len(losses), rows_a_time):
        part = losses[first : first + rows_a_time]
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in part], True)
        agg_loss(
            loss_mat=torch.nn.utils.rnn.pad_sequence(part, True),
            loss_mask=mask,
            loss_agg_mode=actor.loss_agg_mode,
            dp_size=1,
            batch_num_tokens=sum(LENGTHS),
            global_batch_size=len(LENGTHS),
            loss_scale_factor=actor.loss_scale_factor,
        ).backward()
    return [row.grad for row in losses if row.grad is not None]


@pytest.mark.parametrize("aggregation", LOSS_AGGREGATIONS)
def test_micro_batches_do_not_change_what_a_token_weighs(aggregation: str) -> None:
    whole, halves, single = (token_weights(aggregation, rows_a_time=rows) for rows in (16, 8, 1))
    for one, half, alone in zip(whole, halves, single, strict=True):
        torch.testing.assert_close(half, one)
        torch.testing.assert_close(alone, one)


def test_dr_grpo_divides_by_the_longest_answer_that_may_be() -> None:
    weights = torch.cat(token_weights("seq-mean-token-sum-norm", rows_a_time=8))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / len(LENGTHS) / LIMIT))
    assert actor_of("token-mean").loss_scale_factor is None
