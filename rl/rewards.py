"""The reward of a response: right and well formed, by the function that evaluation grades with."""

from functools import cache
from typing import Any

from frontload.eval.grading.grade import Grader, row_reference
from frontload.eval.grading.layout import AnswerLayout


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any],
    *,
    layout: str,
) -> dict[str, float]:
    """1 for a right answer in the right form, else 0; named and called as veRL asks.

    `solution_str` is the whole response, special tokens written out: whole_text.py and
    agent_loop.py see to that. `layout` is the recipe's `reward_layout`, which settings.py puts into
    veRL's `reward.custom_reward_function.reward_kwargs`.

    Source: Nemotron-CrossThink, "Rule Based Reward Modeling": R_acc and R_format.
    """
    row = {"family": data_source, **extra_info}  # a row of a family names it as its source
    reference = row_reference(ground_truth, row, layout=AnswerLayout(layout))
    grade = _grader().grade(solution_str, reference)
    return {
        "score": grade.reward,
        "acc": float(grade.correct),
        "format": float(grade.formatted),
    }


@cache
def _grader() -> Grader:
    """One a process; its own processes for algebra start with the first answer that needs them."""
    return Grader()
