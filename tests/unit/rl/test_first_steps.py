"""A run that cannot learn is ended with what to look at; any other goes on."""

from pathlib import Path

import pytest
import torch
from verl import DataProto
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
from verl.trainer.ppo.metric_utils import compute_data_metrics

from frontload.recipes.errors import StageError
from frontload.rl.watch.first_steps import FIRST_STEPS, FirstSteps

ANSWERS = Path("run/answers")
LENGTH = 3


def logged(*groups: list[float]) -> dict[str, float]:
    """What veRL logs of a step whose answers have these rewards, group by group."""
    rewards = [reward for group in groups for reward in group]
    index = [str(place) for place, group in enumerate(groups) for _ in group]
    scores = torch.zeros(len(rewards), LENGTH)
    scores[:, -1] = torch.tensor(rewards)
    mask = torch.ones_like(scores)
    advantages, _ = compute_grpo_outcome_advantage(
        scores.clone(),
        mask,
        index=index,  # pyright: ignore[reportArgumentType]
    )
    tensors = {
        "token_level_scores": scores,
        "token_level_rewards": scores,
        "advantages": advantages,
        "returns": advantages,
        "responses": torch.zeros(len(rewards), LENGTH),
        "prompts": torch.zeros(len(rewards), LENGTH),
        "attention_mask": torch.ones(len(rewards), 2 * LENGTH),
        "response_mask": mask,
    }
    return compute_data_metrics(DataProto.from_dict(tensors), use_critic=False)


NOTHING = logged([0.0] * 4, [0.0] * 4)
ONE_REWARD = logged([0.0] * 4, [1.0] * 4)
MIXED = logged([0.0] * 4, [0.0, 1.0, 0.0, 0.0])


def look(steps: list[dict[str, float]], *, done: int = 0) -> None:
    first = FirstSteps(done=done, answers=ANSWERS)
    if not done:
        first.look(0, {"val-core/a/acc/mean@1": 0.0})
    for step, data in enumerate(steps, start=done + 1):
        first.look(step, data)


def test_answers_without_any_reward_end_the_run() -> None:
    look([NOTHING] * (FIRST_STEPS - 1))
    with pytest.raises(StageError) as caught:
        look([NOTHING] * FIRST_STEPS)
    assert caught.value.asked == "GRPO, steps 1 to 5"
    assert caught.value.found == "every answer has reward 0"
    assert "5 first steps" in caught.value.rule
    for where in ("layout", "template", "special tokens", "response_tokens", "too hard", "answers"):
        assert where in caught.value.do


def test_groups_of_one_reward_end_the_run() -> None:
    with pytest.raises(StageError, match="neither always nor never") as caught:
        look([NOTHING, ONE_REWARD, ONE_REWARD, NOTHING, ONE_REWARD])
    assert caught.value.found.endswith("the mean is 0.000, 0.500, 0.500, 0.000, 0.500")
    with pytest.raises(StageError, match="1.000"):
        look([logged([1.0] * 8)] * FIRST_STEPS)


def test_one_mixed_group_lets_a_run_go_on() -> None:
    look([*[NOTHING] * (FIRST_STEPS - 1), MIXED, *[NOTHING] * 20])


def test_a_run_that_goes_on_is_judged_by_its_first_steps_alone() -> None:
    look([NOTHING] * 20, done=FIRST_STEPS)
    with pytest.raises(StageError, match="steps 4 to 8"):  # killed before it could be judged
        look([NOTHING] * FIRST_STEPS, done=3)
