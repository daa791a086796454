"""What a run hands out when, and what it tells: order, layouts, blocked stages, provenance."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from toy_stages import REGISTRY, toy

from frontload.launch.origins.machine_kind import num_cores
from frontload.launch.stage.jobs import Finished, Tick
from frontload.launch.store import Store, Ticket
from frontload.launch.study import runner
from frontload.launch.study.order import critical_seconds
from frontload.launch.study.price import Price
from frontload.launch.study.runner import Settings, Summary, run_stages
from frontload.recipes.machines.placement import Placement, Placements
from frontload.recipes.stage import Stage


class Told:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.started_labels: list[str] = []
        self.ends: list[tuple[str, bool]] = []
        self.ticks: list[Tick] = []

    def started(self, stage: Stage) -> None:
        self.started_labels.append(stage.label)

    def ticked(self, stage: Stage, tick: Tick) -> None:
        self.ticks.append(tick)

    def finished(self, stage: Stage, end: Finished) -> None:
        self.ends.append((stage.label, end.error is None))

    def waited(self) -> None: ...


def run(
    stages: Sequence[Stage], root: Path, *, told: Told | None = None, **settings: object
) -> Summary:
    usual = {
        "placements": Placements(default=Placement()),
        "workers": 1,
        "registry": REGISTRY,
        "preload": (),
    }
    made = Settings(**{**usual, **settings})  # pyright: ignore[reportArgumentType]
    return run_stages(stages, Store(root), settings=made, watcher=told or Told())


def price(seconds: float) -> Price:
    return Price(tokens=1, flops=1.0, work=2 * seconds, seconds=seconds, is_measured=True)


def seen(root: Path, stage: Stage) -> dict[str, str]:
    return json.loads((root / stage.folder / "seen.json").read_text())


def test_one_worker_takes_the_longest_path_first_and_says_what_it_does(tmp_path: Path) -> None:
    short, long, below = toy("short", size=1), toy("long", size=2), toy("below", size=3)
    top = toy("top", size=4, below=below)
    told = Told()
    prices = {one.key: price(seconds) for one, seconds in ((short, 1), (long, 5), (below, 2))}
    prices[top.key] = price(4)
    summary = run([short, long, below, top], tmp_path, told=told, prices=prices)
    assert told.started_labels == ["below", "long", "top", "short"]
    assert told.ends == [(label, True) for label in told.started_labels]
    assert [stage.label for stage in summary.made] == told.started_labels
    assert told.ticks[-1].done == told.ticks[-1].total == 12


def test_a_stage_without_a_price_counts_as_a_second() -> None:
    a = toy("a", size=1)
    b = toy("b", size=2, a=a)
    c = toy("c", size=3, b=b)
    assert critical_seconds([a, b, c], {b.key: 5.0}) == {a.key: 7.0, b.key: 6.0, c.key: 1.0}


def test_whatever_stands_above_a_failed_stage_is_blocked_and_the_next_run_makes_it(
    tmp_path: Path,
) -> None:
    bad = toy("bad", does="raise", size=1)
    above = toy("above", size=2, bad=bad)
    top = toy("top", size=3, above=above)
    told = Told()
    summary = run([bad, above, top, toy("apart", size=4)], tmp_path, told=told)
    assert [stage.label for stage in summary.blocked] == ["above", "top"]
    assert set(summary.failed) == {bad.key}
    assert sorted(told.ends) == [("apart", True), ("bad", False)]
    store = Store(tmp_path)
    assert "a planted error" in store.error_file(Ticket.of(bad)).read_text()
    assert not store.provenance_file(Ticket.of(bad)).exists()
    again = run([bad, above, top, toy("apart", size=4)], tmp_path)
    assert [stage.label for stage in again.made] == [], "what is made is not made again"
    assert set(again.failed) == {bad.key}


def test_only_stages_with_ranks_get_the_layout_of_the_placement(tmp_path: Path) -> None:
    """Else a data stage would be started on every rank."""
    recipe = toy("x", does="see").recipe
    stages = [Stage(kind=kind, label=kind, recipe=recipe) for kind in ("evaluate", "index")]
    wide = Placement(name="wide", ranks_per_node=2, tensor_parallel=2, threads_per_rank=3)
    summary = run(stages, tmp_path, placements=Placements(default=wide))
    assert len(summary.made) == 2
    for stage in stages:
        assert seen(tmp_path, stage)["OMP_NUM_THREADS"] == "3"
        told = json.loads(Store(tmp_path).provenance_file(Ticket.of(stage)).read_text())
        assert told["placement"]["ranks_per_node"] == 2


def test_there_are_no_more_workers_than_stages(tmp_path: Path) -> None:
    recipes = [toy("x", does="see", size=size).recipe for size in (1, 2, 3)]
    stages = [Stage(kind="index", label=f"i{at}", recipe=one) for at, one in enumerate(recipes)]
    started: list[str] = []

    class Counted(runner.Worker):
        def __init__(self, **options: object) -> None:
            started.append(str(options.get("gpu", "")))
            super().__init__(**options)  # pyright: ignore[reportArgumentType]

    usual = runner.Worker
    runner.Worker = Counted  # pyright: ignore[reportAttributeAccessIssue]
    try:
        run(stages[:1], tmp_path / "one", workers=3)
        assert len(started) == 1
        run(stages, tmp_path / "three", workers=2)
    finally:
        runner.Worker = usual  # pyright: ignore[reportAttributeAccessIssue]
    assert len(started) == 1 + 2
    pids = {seen(tmp_path / "three", stage)["pid"] for stage in stages}
    assert len(pids) <= 2, "a worker is warm: it makes one stage after the other"


def test_provenance_says_where_when_and_at_what_price(tmp_path: Path) -> None:
    stage, unpriced = toy("a", size=1), toy("b", size=2)
    run([stage, unpriced], tmp_path, prices={stage.key: price(3)})
    store = Store(tmp_path)
    told = json.loads(store.provenance_file(Ticket.of(stage)).read_text())
    assert (told["key"], told["label"], told["work"]) == (stage.key, "a", 6)
    assert json.loads(store.provenance_file(Ticket.of(unpriced)).read_text())["work"] == 0.0
    assert told["cores"] == num_cores()
    assert told["cpu_seconds"] > 0
    assert 0.1 < told["wall_seconds"] < 600, "12 steps of 10 ms"
    assert told["wall_seconds"] == round(told["wall_seconds"], 3)


@pytest.mark.parametrize(
    ("cpu", "wall", "cores", "share"),
    [(3.0, 2.0, 2, 0.75), (0.0, 0.0, 2, 0.0), (1.0, 4.0, 1, 0.25)],
)
def test_shares_of_the_cores_and_of_the_gpus(
    cpu: float, wall: float, cores: int, share: float
) -> None:
    summary = Summary(
        made=(),
        failed={},
        blocked=(),
        wall_seconds=wall,
        cpu_seconds=cpu,
        cores=cores,
        gpu_seconds=cpu,
        gpus=cores,
    )
    assert summary.utilisation == summary.gpu_share == share


def test_the_cores_of_a_run_are_those_its_workers_can_use(tmp_path: Path) -> None:
    stages = [toy(f"x{size}", size=size) for size in (1, 2)]
    assert run(stages, tmp_path / "one", workers=1).cores == 1
    wide = Placement(threads_per_rank=2)
    assert run(stages, tmp_path / "wide", placements=Placements(default=wide)).cores == min(
        2, num_cores()
    )
    many = run(stages, tmp_path / "many", workers=2 * num_cores())
    assert many.cores == num_cores()
    assert run(stages, tmp_path / "many").cores == num_cores(), "nothing to do"
