"""Ranks under torchrun that stand still or are killed: the run ends like an undisturbed one.

The short form of `make soak`: one job that meets a fault at each start, and one run on one rank.
"""

from pathlib import Path

import pytest

from frontload.launch import cli
from tests.soak import faulty_rank
from tests.soak.faults import TOLERANCE, Bench, Fault, Launch, Plan, losses, wrong_faults

pytestmark = pytest.mark.slow

FAULTS: list[Fault] = [
    {**{"kind": "stop", "where": "step", "rank": 1, "step": 14, "share": 0.3}, "file": ".metadata"},
    {"kind": "kill", "where": "save", "rank": 0, "step": 20, "place": "table", "calls": 0},
]
"""A rank stops after it has torn the newest checkpoint; another dies in the middle of a save."""


@pytest.mark.parametrize(
    ("module", "name"),
    [*faulty_rank.SAVE_PLACES.values(), *faulty_rank.RENDEZVOUS_PLACES.values()],
    ids=lambda word: word.rpartition(".")[2],
)
def test_every_place_of_a_drawn_fault_is_in_the_code(module: str, name: str) -> None:
    assert callable(getattr(*faulty_rank.owner_of(module, name)))


def test_stopped_torn_and_killed_in_a_save_it_ends_like_an_undisturbed_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    plan = Plan(name="both", moment="", launches=(Launch(faults=FAULTS),))
    done = bench.start(plan, tmp_path / "job")
    assert done.codes == [0], done.said[-3000:]
    assert wrong_faults(plan, done) == []
    assert done.restarts == len(FAULTS)
    alone = tmp_path / "alone"
    words = ["train", str(bench.recipe), *bench.data.flags("first"), "--until", "first"]
    assert cli.main([*words, "--out", str(alone)]) == 0
    # two ranks add the same gradients in another order than one; `make soak` compares bytes
    assert losses(done.out / "first") == pytest.approx(losses(alone / "first"), abs=TOLERANCE)
