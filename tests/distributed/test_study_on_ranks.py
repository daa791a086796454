"""A study's training stages on two ranks, started as `frontload run` starts them, against one."""

import json
from pathlib import Path

import pytest

from frontload.launch.stage.jobs import Finished, Tick
from frontload.launch.store import Store
from frontload.launch.study.runner import Settings, run_stages
from frontload.recipes.machines.placement import Placement, Placements
from frontload.recipes.stage import Stage
from frontload.recipes.study.expand import load_study

TOLERANCE = 1e-5  # fp32 sums in another order, over the steps below
SMALL = ("pretraining.tokens=12_800", "sft.tokens=2_560")
TRAINED = ("pretrain/trunk-seed1", "pretrain/shq-seed1", "sft/shq+shq-x1-seed1")

pytestmark = pytest.mark.slow


class Silent:
    """A watcher that says nothing."""

    def started(self, stage: Stage) -> None: ...
    def ticked(self, stage: Stage, tick: Tick) -> None: ...
    def finished(self, stage: Stage, end: Finished) -> None: ...
    def waited(self) -> None: ...


def stages_below(wanted: set[str]) -> list[Stage]:
    """The wanted stages of the small study and all they need, inputs first."""
    found: list[Stage] = []
    for stage in reversed(load_study("smoke", overrides=SMALL).stages):
        if f"{stage.kind}/{stage.label}" in wanted:
            found.append(stage)
            wanted |= {f"{below.kind}/{below.label}" for below in stage.inputs.values()}
    return found[::-1]


def train(store: Store, **placement: int) -> dict[str, list[float]]:
    """Losses of every training stage under a placement."""
    settings = Settings(placements=Placements(default=Placement(**placement)), workers=1)
    stages = stages_below(set(TRAINED))
    summary = run_stages(stages, store, settings=settings, watcher=Silent())
    assert not summary.failed
    found = {}
    for stage in stages:
        path = store.root / stage.folder / "metrics.jsonl"
        if f"{stage.kind}/{stage.label}" in TRAINED:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found[stage.label] = [line["train/loss"] for line in lines]
    return found


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    return train(Store(tmp_path_factory.mktemp("one")))


@pytest.mark.parametrize("layout", [{}, {"pipeline_parallel": 2}], ids=["dp2", "pp2"])
def test_a_study_on_two_ranks_trains_as_on_one(
    one_rank: dict[str, list[float]], tmp_path: Path, layout: dict[str, int]
) -> None:
    found = train(Store(tmp_path), ranks_per_node=2, **layout)
    assert set(found) == set(one_rank)
    for label, losses in found.items():
        assert losses == pytest.approx(one_rank[label], abs=TOLERANCE), label
