"""What our metrics say of veRL's log: its own validation, its own sums, and the clock apart."""

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.generate import Response
from frontload.rl.plugins.agent_loop import group_metrics, is_cut
from frontload.rl.watch.metrics import step_metrics

ACCURACY = "train__validation_accuracy_family_mean"
REWARD = "train__validation_reward_family_mean"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers of a validation, one entry an answer."""

    families: list[str]
    prompts: list[str]
    right: list[float]
    formed: list[float]

    @property
    def rewards(self) -> list[float]:
        return [right * formed for right, formed in zip(self.right, self.formed, strict=True)]

    def as_verl_logs_them(self) -> dict[str, float]:
        infos = {"reward": self.rewards, "acc": self.right, "format": self.formed}
        turns = [2] * len(self.right)
        trainer: Any = types.SimpleNamespace()
        return PPOTrainer._val_metrics_update(
            trainer, np.array(self.families), self.prompts, infos, turns
        )

    def family_mean(self, values: Sequence[float]) -> float:
        of_family = {name: list[float]() for name in self.families}
        for name, value in zip(self.families, values, strict=True):
            of_family[name].append(value)
        return float(np.mean([np.mean(one) for one in of_family.values()]))


def drawn(
    samples: int, families: dict[str, tuple[float, int]], *, formed_share: float = 1.0
) -> Answers:
    """Answers of families, each with its share of right ones and its number of prompts."""
    draw = np.random.default_rng(1)
    found = Answers(families=[], prompts=[], right=[], formed=[])
    for family, (right_share, prompts) in families.items():
        for prompt in range(prompts):
            for _ in range(samples):
                found.families.append(family)
                found.prompts.append(f"{family}{prompt}")
                found.right.append(float(draw.random() < right_share))
                found.formed.append(float(draw.random() < formed_share))
    return found


@pytest.mark.parametrize(
    ("answers", "accuracy", "reward"),
    [
        (drawn(1, {"a": (0.3, 200), "b": (0.3, 200)}), 0.310, 0.310),
        # veRL logs best-of-4 and standard deviations beside the mean: all averaged, they say 0.402
        (drawn(4, {"a": (0.3, 200), "b": (0.3, 200)}), 0.305, 0.305),
        (drawn(1, {"a": (0.9, 4), "b": (0.1, 196)}), 0.541, 0.541),  # 0.100 of all prompts
        (drawn(1, {"a": (0.5, 200)}, formed_share=0.5), 0.540, 0.265),
        (drawn(3, {"of/two parts": (0.5, 9), "b": (0.5, 2)}, formed_share=0.5), 0.389, 0.259),
    ],
)
def test_validation_is_the_mean_over_families_of_all_answers(
    answers: Answers, accuracy: float, reward: float
) -> None:
    found = step_metrics(answers.as_verl_logs_them())
    assert found[ACCURACY] == pytest.approx(answers.family_mean(answers.right), abs=1e-12)
    assert found[REWARD] == pytest.approx(answers.family_mean(answers.rewards), abs=1e-12)
    assert round(found[ACCURACY], 3) == accuracy
    assert round(found[REWARD], 3) == reward


def test_clock_and_learning_are_kept_apart() -> None:
    data = {"actor/kl_loss": 0.5, "timing_s/step": 2.0, "perf/mfu/actor": 3.0}
    assert step_metrics(data) == {"train__kl": 0.5, "system__step_seconds": 2.0}


def test_a_group_without_differences_is_degenerate() -> None:
    scores = [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    tags = [
        {"group": group, "score": score, "formed": 1.0, "cut": False, "draw": 0}
        for group, pair in enumerate(scores)
        for score in pair
    ]
    found = group_metrics(tags)
    assert found["frontload/reward"] == 3 / 8
    assert found["frontload/degenerate_groups"] == 3 / 4


def test_cut_are_the_answers_that_the_limit_ended_and_no_others() -> None:
    sampling = Sampling(max_new_tokens=4, temperature=1.0, seed=1, stop_token=9, num_samples=4)

    def share(*answers: list[int]) -> float:
        tags = [
            {"group": 0, "score": 0.0, "formed": 1.0, "cut": is_cut(response, sampling), "draw": 0}
            for tokens in answers
            if (response := Response(tokens=tokens, log_probabilities=[0.0] * len(tokens)))
        ]
        return step_metrics(group_metrics(tags))["train__cut_share"]

    assert share([5, 9], [5, 5, 9]) == 0.0  # the longest of a batch is not cut for that
    assert share([5, 5, 5, 9], [9]) == 0.0  # it ended on the last token that it had
    assert share([5, 5, 5, 5], [9], [5, 5, 5, 9], [5, 9, 5, 5]) == 0.5
