"""Who gets a GPU: stages of a run on devices that the test makes up, with toy stages on a CPU."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from toy_stages import REGISTRY, toy

from frontload.launch.shown.show import summary_lines
from frontload.launch.stage.jobs import Finished, Tick
from frontload.launch.store import Store
from frontload.launch.study.runner import Settings, Summary, run_stages
from frontload.recipes.machines.placement import Placement, Placements
from frontload.recipes.stage import Stage

Seen = dict[str, Any]


class Silent:
    """A watcher that shows nothing."""

    def started(self, stage: Stage) -> None: ...
    def ticked(self, stage: Stage, tick: Tick) -> None: ...
    def finished(self, stage: Stage, end: Finished) -> None: ...
    def waited(self) -> None: ...


def stages_of(kind: str, count: int, *, does: str = "see") -> list[Stage]:
    recipes = [toy("x", does=does, size=size + 1).recipe for size in range(count)]
    return [Stage(kind=kind, label=f"{kind}{at}", recipe=one) for at, one in enumerate(recipes)]


def run(stages: Sequence[Stage], root: Path, *, gpus: tuple[str, ...], workers: int = 2) -> Summary:
    settings = Settings(
        placements=Placements(default=Placement(name="fake", threads_per_rank=3)),
        workers=workers,
        gpus=gpus,
        registry=REGISTRY,
        preload=(),
    )
    return run_stages(stages, Store(root), settings=settings, watcher=Silent())


def seen_by(root: Path, kind: str) -> list[Seen]:
    return [json.loads(path.read_text()) for path in sorted((root / kind).glob("*/seen.json"))]


def overlap(one: Seen, other: Seen) -> bool:
    return one["begin"] < other["end"] and other["begin"] < one["end"]


def pairs(seen: list[Seen]) -> list[tuple[Seen, Seen]]:
    return [(one, other) for at, one in enumerate(seen) for other in seen[at + 1 :]]


def test_one_gpu_takes_one_stage_at_a_time_and_data_is_made_beside_it(tmp_path: Path) -> None:
    stages = [*stages_of("evaluate", 4), *stages_of("index", 4)]
    summary = run(stages, tmp_path, gpus=("7",))
    assert not summary.failed
    assert 4 * 0.25 <= summary.gpu_seconds <= summary.wall_seconds
    assert "1 GPU worker held a stage for" in summary_lines(summary)[0]
    scored, made = seen_by(tmp_path, "evaluate"), seen_by(tmp_path, "index")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in scored] == ["7"] * 4
    assert [one["CUDA_VISIBLE_DEVICES"] for one in made] == ["-1"] * 4
    assert not [1 for pair in pairs(scored) if overlap(*pair)], "two stages had the GPU at once"
    assert len({one["pid"] for one in scored}) == 1, "one warm process keeps the device"
    assert [1 for one in scored for other in made if overlap(one, other)], "nothing ran beside it"
    assert {one["OMP_NUM_THREADS"] for one in scored} == {"3"}
    assert {one["OMP_NUM_THREADS"] for one in made} == {"1"}


def test_each_gpu_has_its_own_stage_and_no_two_stages_the_same(tmp_path: Path) -> None:
    run(stages_of("evaluate", 6), tmp_path, gpus=("0,1", "2,3"), workers=1)
    seen = seen_by(tmp_path, "evaluate")
    at_once = [pair for pair in pairs(seen) if overlap(*pair)]
    assert at_once, "two devices, and nothing ran side by side"
    for one, other in at_once:
        assert one["CUDA_VISIBLE_DEVICES"] != other["CUDA_VISIBLE_DEVICES"]
    assert {one["CUDA_VISIBLE_DEVICES"] for one in seen} == {"0,1", "2,3"}


def test_a_gpu_may_be_shared_by_as_many_stages_as_the_placement_says(tmp_path: Path) -> None:
    run(stages_of("evaluate", 4), tmp_path, gpus=("0", "0"), workers=1)
    assert [1 for pair in pairs(seen_by(tmp_path, "evaluate")) if overlap(*pair)]


def test_without_gpus_every_worker_runs_every_stage_and_sees_no_device(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    stages = [*stages_of("evaluate", 2), *stages_of("index", 2)]
    assert len(run(stages, tmp_path, gpus=()).made) == 4
    seen = seen_by(tmp_path, "evaluate") + seen_by(tmp_path, "index")
    assert {one["CUDA_VISIBLE_DEVICES"] for one in seen} == {"-1"}
    assert {one["OMP_NUM_THREADS"] for one in seen} == {"3"}


def test_a_gpu_worker_that_dies_is_followed_by_one_on_the_same_gpu(tmp_path: Path) -> None:
    dying = stages_of("evaluate", 1, does="die")
    summary = run([*dying, *stages_of("evaluate", 2)], tmp_path, gpus=("5",))
    assert len(summary.failed) == 1
    assert [one["CUDA_VISIBLE_DEVICES"] for one in seen_by(tmp_path, "evaluate")] == ["5", "5"]
    assert len(run(dying, tmp_path, gpus=("5",)).made) == 1, "the next run makes it"
