"""A run that changes its layout after every step ends like one that nothing interrupted.

The walk goes from each of five layouts to each other one: every pair of saving and resuming layout.
A run keeps its kind of optimizer state, whole on every replica or cut over them; both walk.
"""

from itertools import accumulate, pairwise, permutations
from pathlib import Path
from typing import Any

import pytest

from frontload.recipes.errors import Stopped
from frontload.recipes.machines.placement import Placement
from tests.ranks import run_on_ranks
from tests.training_inputs import BATCH, tiny_pretrain, workspace, write_blend

LAYOUTS: dict[str, dict[str, Any]] = {
    "tp2-dp2-sp": {"tensor_parallel": 2, "sequence_parallel": True},
    "pp2-dp2": {"pipeline_parallel": 2, "micro_batch_sequences": 1},
    "tp2-pp2-uneven": {
        "tensor_parallel": 2,
        "pipeline_parallel": 2,
        "pipeline_layers": [1, 3],
        "micro_batch_sequences": 2,
    },
    "tp2-pp2": {"tensor_parallel": 2, "pipeline_parallel": 2, "micro_batch_sequences": 2},
    "dp4": {},
}
NUM = len(LAYOUTS)  # a prime: strides of 1, then of 2 and so on meet every ordered pair once
WALK = [
    list(LAYOUTS)[at % NUM]
    for at in accumulate((stride for stride in range(1, NUM) for _ in range(NUM)), initial=0)
]
STEPS = len(WALK) + 1  # the first layout takes two steps


def walk_layouts(root: str, *, is_cut: bool) -> list[Any]:
    """On a rank: one step a layout, stopped and resumed after each; the lines of all steps."""
    from frontload.megatron_ext.stages import pretrain

    inputs = {path.name: path for path in (Path(root) / "inputs").iterdir()}
    lines: list[Any] = []
    for step, name in enumerate(WALK, start=2):
        placement = Placement(
            ranks_per_node=4,
            checkpoint_every_seconds=1e9,
            distributed_optimizer=is_cut,
            **LAYOUTS[name],
        )
        work = workspace(
            Path(root) / "walk", placement=placement, lines=lines, ask_to_stop_at=step % STEPS
        )
        try:
            pretrain(tiny_pretrain(STEPS * BATCH), inputs, work)
        except Stopped:
            assert step < STEPS
        lines = work.lines
    return lines


def test_the_walk_meets_every_pair() -> None:
    assert sorted(pairwise(WALK)) == sorted(permutations(LAYOUTS, 2))


@pytest.mark.parametrize("is_cut", [False, True])
def test_every_layout_resumes_what_every_other_saved(tmp_path: Path, *, is_cut: bool) -> None:
    from frontload.megatron_ext.stages import pretrain

    inputs = write_blend(tmp_path / "inputs", STEPS * BATCH)
    alone = workspace(tmp_path / "alone")
    pretrain(tiny_pretrain(STEPS * BATCH), inputs, alone)
    arguments = {"root": str(tmp_path), "is_cut": is_cut}
    lines, *silent = run_on_ranks(__file__, "walk_layouts", 4, arguments=arguments)
    assert silent == [[], [], []]
    assert [step for step, _ in lines] == list(range(1, STEPS + 1))
    # float32 sums in another order, over all steps: as in test_layouts.py
    assert [line["train__loss"] for _, line in lines] == pytest.approx(alone.losses(), abs=2e-5)
