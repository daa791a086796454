"""A budget in real tokens: the rows it reads, the step of each, where the last one is cut."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from frontload.data_tools.packing.place import order_rows
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.training import READ


@dataclass(frozen=True, kw_only=True)
class StepBudget:
    """A budget in tokens read or in tokens with loss, spread over steps."""

    unit: str  # read or loss
    steps: int
    batch_rows: int  # most rows of a step; a training fills the others of a batch with padding


@dataclass(frozen=True, kw_only=True)
class StepRows:
    """What a budget reads of a pack.

    Shapes: order_N int64, row of each place; starts int64 [steps + 1], place of each step's first
    row, and behind the last row N.
    """

    order_N: np.ndarray
    starts: np.ndarray
    last_row_tokens: int  # of the last row, the first so many are read


def cut_steps(
    amounts: np.ndarray,
    *,
    tokens: int,
    budget: StepBudget,
    mask_of_row: Callable[[int], np.ndarray],
    seed: int,
) -> StepRows:
    """Reads rows epoch after epoch, each in its own order, up to exactly `tokens`.

    Step k ends behind the row whose end lies nearest to its share, k / steps of the budget, if it
    then has a row and at most `batch_rows`. `amounts`: tokens of each row in the budget's unit.

    Raises: RecipeError when the rows are more than the steps hold, or fewer than the steps.
    """
    num_epochs = -(-tokens // int(amounts.sum()))
    order = order_rows(len(amounts), num_epochs * len(amounts), seed=seed)
    ends = np.cumsum(amounts[order])
    num_rows = int(np.searchsorted(ends, tokens)) + 1
    order, ends = order[:num_rows], ends[:num_rows]
    over, last = int(ends[-1]) - tokens, int(order[-1])
    kept = int(amounts[last]) - over
    if budget.unit != READ:
        kept = int(np.flatnonzero(mask_of_row(last))[kept - 1]) + 1
    ends[-1] = tokens
    if num_rows < budget.steps:
        raise _too_many_steps(tokens, budget, num_rows=num_rows)
    if num_rows > budget.steps * budget.batch_rows:
        raise _too_few_steps(tokens, budget, num_rows=num_rows)
    return StepRows(order_N=order, starts=step_starts(ends, budget), last_row_tokens=kept)


def step_starts(ends_N: np.ndarray, budget: StepBudget) -> np.ndarray:
    """Place of the first row of each step, and of the row behind the last.

    `ends_N`: tokens up to the end of each row; the last of them is the budget.
    """
    steps, num_rows, total = budget.steps, len(ends_N), int(ends_N[-1])
    before = np.concatenate([[0], ends_N]).astype(np.int64)
    shares = np.arange(steps + 1, dtype=np.int64) * total
    at = np.searchsorted(before * steps, shares)
    is_nearer = shares - before[at - 1] * steps <= before[at] * steps - shares
    wanted = np.where((at > 0) & is_nearer, at - 1, at).tolist()
    starts = [0]
    for step in range(1, steps + 1):
        left = steps - step
        least = max(starts[-1] + 1, num_rows - left * budget.batch_rows)
        most = min(starts[-1] + budget.batch_rows, num_rows - left)
        starts.append(min(max(wanted[step], least), most))
    return np.array(starts, dtype=np.int64)


def budget_of(pack: Mapping[str, Any]) -> StepBudget | None:
    """What a pack.json says of its steps; None of one whose samples are its rows."""
    return StepBudget(**found) if (found := pack.get("step_budget")) else None


def _too_many_steps(tokens: int, budget: StepBudget, *, num_rows: int) -> RecipeError:
    return RecipeError(
        f"{tokens:_} tokens in {budget.steps:_} steps",
        found=f"{num_rows:_} rows hold them",
        rule="every step has a row or more",
        do=f"raise sft.step_tokens to at least {-(-tokens // num_rows):_}",
    )


def _too_few_steps(tokens: int, budget: StepBudget, *, num_rows: int) -> RecipeError:
    steps = -(-num_rows // budget.batch_rows)
    return RecipeError(
        f"{tokens:_} tokens in {budget.steps:_} steps of at most {budget.batch_rows} rows",
        found=f"{num_rows:_} rows hold them, which are {num_rows / budget.steps:.1f} a step",
        rule="every step is one batch",
        do=f"lower sft.step_tokens to at most {tokens // steps:_}, or raise "
        "sft.global_batch_sequences or sft.sequence_tokens",
    )
