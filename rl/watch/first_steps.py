"""Ends a run that cannot learn: in its first steps no group of answers had two different rewards.

GRPO learns from the differences inside a group. Without any it moves by the KL and the weight decay
alone, for as many steps as it is given, and nothing but the reward shows it.
"""

from collections.abc import Mapping
from pathlib import Path

from frontload.recipes.errors import StageError

FIRST_STEPS = 5
"""Steps without a difference, from a run's first, after which it is ended. Ours: where 45% of the
groups have one reward, as in the laptop study, all 32 of a step have once in 10**11 steps."""

HIGHEST, LOWEST = "critic/advantages/max", "critic/advantages/min"
REWARD = "critic/score/mean"


class FirstSteps:
    """What the first steps of a run, or of what is left of it, have shown."""

    def __init__(self, *, done: int, answers: Path) -> None:
        self._left = FIRST_STEPS if done < FIRST_STEPS else 0
        self._answers = answers
        self._rewards: list[float] = []

    def look(self, step: int, data: Mapping[str, float]) -> None:
        """Notes one line of veRL's log, here and on a cluster alike.

        Raises: StageError when the first steps are over and none had a difference.
        """
        if not self._left or HIGHEST not in data:  # a validation's own line
            return
        if data[HIGHEST] != data[LOWEST]:
            self._left = 0
            return
        self._rewards.append(data[REWARD])
        self._left -= 1
        if not self._left:
            raise self._refusal(step)

    def _refusal(self, step: int) -> StageError:
        asked = f"GRPO, steps {step - FIRST_STEPS + 1} to {step}"
        rule = f"a run is ended after {FIRST_STEPS} first steps in which no group of answers has "
        rule += "two different rewards: there is nothing to learn from"
        if any(self._rewards):
            return StageError(
                asked,
                found="all answers to a prompt have one reward, in every group; the mean is "
                + ", ".join(f"{one:.3f}" for one in self._rewards),
                rule=rule,
                do=f"read {self._answers}; choose prompts that the model answers rightly now and "
                "then, neither always nor never, or raise grpo.rollouts_per_prompt",
            )
        return StageError(
            asked,
            found="every answer has reward 0",
            rule=rule,
            do=f"read {self._answers}: whether answers have the layout that the reward asks for, "
            "whether template and special tokens are those that the model was tuned with, whether "
            "response_tokens cut them, and whether the prompts are too hard for it",
        )
