"""The filter of groups that teach nothing, as far as it is ours; a whole run is in tests/fault."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from frontload.recipes.errors import StageError
from frontload.rl.plugins.agent_loop import (
    MOST_DRAWS,
    OrderedReplayBuffer,
    PromptDraws,
    group_metrics,
)
from frontload.rl.trainer.settings import verl_settings
from tests.unit.rl.cluster_recipes import FILES, PAIRS, placement_of, recipe_of
from tests.unit.rl.verl_config import composed, dataclass_of, verl_configs

pytestmark = pytest.mark.usefixtures(verl_configs.__name__)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("is_on", [False, True])
def test_veRL_filters_by_the_reward_where_it_is_asked_to(pair: str, *, is_on: bool) -> None:
    name, placement, changes = PAIRS[pair]
    recipe = recipe_of(name, **changes)
    recipe = replace(recipe, grpo=replace(recipe.grpo, filter_one_reward_groups=is_on))
    config = composed(verl_settings(recipe, placement_of(placement), FILES))
    found = dataclass_of(config.algorithm).filter_groups
    assert (found.enable, found.metric) == (is_on, "reward")


def buffer_of(*, filtered_batch: int) -> OrderedReplayBuffer:
    kwargs = OmegaConf.create({"rows_an_update": 4, "filtered_batch": filtered_batch})
    return OrderedReplayBuffer(
        trainer_mode="sync",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs=kwargs,
        refill_fn=lambda count: count,
    )


def test_the_buffer_filters_only_where_a_batch_is_to_be_filled() -> None:
    assert buffer_of(filtered_batch=0).filter_groups_metric is None
    assert buffer_of(filtered_batch=32).filter_groups_metric == "reward"


def test_the_groups_that_were_asked_first_are_taken() -> None:
    """veRL sorts a set of random names by their step: among equals any may come first."""
    buffer = buffer_of(filtered_batch=3)
    asked = {f"u{number}": (number // 4, number % 4) for number in range(8)}
    for name, (draw, place) in reversed(asked.items()):
        buffer.prompt_global_steps["train"][name] = 7
        buffer.partitions["train"][f"{name}_0_0"] = {"draw": draw, "place": place}
    left = {"u6", "u1", "u7", "u4", "u3"}
    chosen, _, _ = buffer._select_prompt_uids("train", left, 3)
    assert chosen == ["u1", "u3", "u4"]


def test_a_step_that_finds_no_batch_is_ended() -> None:
    draws = PromptDraws(limit=MOST_DRAWS)
    assert [draws.next(1) for _ in range(MOST_DRAWS)] == list(range(MOST_DRAWS))
    with pytest.raises(StageError, match="too hard or too easy") as caught:
        draws.next(1)
    assert caught.value.asked == "grpo.filter_one_reward_groups, step 1"
    assert draws.next(2) == 0


def test_groups_of_two_draws_are_two_groups_and_their_seconds_add_up() -> None:
    draws = PromptDraws(limit=MOST_DRAWS)
    draws.next(1)
    draws.add({"generation": 2.0})
    draws.next(1)
    seconds = draws.add({"generation": 3.0})
    shared = {"group": 0, "formed": 1.0, "cut": False}
    first = [{"draw": 0, "score": score, **shared} for score in (0.0, 1.0)]
    later = [{"draw": 1, "score": score, "seconds": seconds, **shared} for score in (1.0, 1.0)]
    found = group_metrics([*first, *later])
    assert found["frontload/degenerate_groups"] == 0.5
    assert found["frontload/generation_seconds"] == 5.0
