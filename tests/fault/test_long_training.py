"""Training at length: what it keeps, how it stops, what it refuses; never other bytes."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from frontload.megatron_ext.stages import pretrain
from frontload.megatron_ext.training.datasets import BlendSamples, Rows
from frontload.megatron_ext.training.spikes import SpikeWatch
from frontload.recipes.artifact import Part
from frontload.recipes.errors import ArtifactError, StageError, Stopped
from frontload.recipes.machines.cluster import Gpus
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.upkeep import Upkeep
from tests.tiny_run import artifact_bytes
from tests.training_inputs import (
    BATCH,
    PlainWorkspace,
    tiny_model,
    tiny_pretrain,
    tiny_training,
    workspace,
    write_blend,
)

STEPS = 12
NEVER_SEEN = 3  # a token that no document holds


def placed(**upkeep: Any) -> Placement:
    """Saves by the count of steps alone."""
    return Placement(checkpoint_every_seconds=1e9, upkeep=Upkeep(**upkeep))


def kept(work: PlainWorkspace) -> list[str]:
    return sorted(path.name for path in work.scratch.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Inputs, and one run that never saves on the way."""
    root = tmp_path_factory.mktemp("whole")
    inputs = write_blend(root / "inputs", STEPS * BATCH)
    work = workspace(root / "run", placement=placed())
    pretrain(tiny_pretrain(STEPS * BATCH), inputs, work)
    return {"inputs": inputs, "bytes": artifact_bytes(work.path), "lines": work.lines}


def run(whole: dict[str, Any], work: PlainWorkspace) -> None:
    pretrain(tiny_pretrain(STEPS * BATCH), whole["inputs"], work)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_newest_and_every_nth_checkpoint_stay(
    whole: dict[str, Any], tmp_path: Path, asynchronous: bool
) -> None:
    placement = placed(
        checkpoint_every_steps=1, keep_last=2, keep_every_steps=4, asynchronous=asynchronous
    )
    work = workspace(tmp_path, placement=placement)
    run(whole, work)
    assert kept(work) == [f"step-{step:08d}" for step in (4, 8, 10, 11)]
    assert artifact_bytes(work.path) == whole["bytes"]


def test_a_checkpoint_written_in_the_background_is_of_its_own_step(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer is held back while training goes on: the copy must not see the later steps."""
    from frontload.megatron_ext.checkpoints import save as checkpoint

    real = checkpoint.BackgroundSave.is_writing
    monkeypatch.setattr(
        checkpoint.BackgroundSave, "is_writing", lambda save: len(work.lines) < 6 or real(save)
    )
    placement = placed(checkpoint_every_steps=3, keep_last=9, asynchronous=True)
    work = workspace(tmp_path, placement=placement, stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        run(whole, work)
    assert kept(work) == ["step-00000003.partial"], "not yet published"
    work.stop_after = 8
    with pytest.raises(KeyboardInterrupt):
        run(whole, work)
    work.stop_after = 10**9
    assert kept(work)[0] == "step-00000003"
    run(whole, work)
    assert work.lines == whole["lines"]
    assert artifact_bytes(work.path) == whole["bytes"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_asked_to_stop_it_saves_that_step_and_goes_on_from_it(
    whole: dict[str, Any], tmp_path: Path, asynchronous: bool
) -> None:
    work = workspace(tmp_path, placement=placed(asynchronous=asynchronous), ask_to_stop_at=7)
    with pytest.raises(Stopped, match="was asked to stop at step 7") as caught:
        run(whole, work)
    assert caught.value.exit_code == 75
    assert kept(work) == ["step-00000007"]
    work.ask_to_stop_at = 0
    run(whole, work)
    assert work.lines == whole["lines"]
    assert artifact_bytes(work.path) == whole["bytes"]


def tear(folder: Path) -> None:
    path = folder / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:-64])


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(
    whole: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    placement = placed(checkpoint_every_steps=2, keep_last=2)
    work = workspace(tmp_path, placement=placement, stop_after=7)
    with pytest.raises(KeyboardInterrupt):
        run(whole, work)
    tear(work.scratch / "step-00000006")
    work.stop_after = 10**9
    with caplog.at_level(logging.WARNING):
        run(whole, work)
    assert "step-00000006" in caplog.text
    assert work.lines == whole["lines"]
    assert artifact_bytes(work.path) == whole["bytes"]


def test_nothing_but_torn_checkpoints_is_refused(whole: dict[str, Any], tmp_path: Path) -> None:
    work = workspace(tmp_path, placement=placed(checkpoint_every_steps=2), stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(whole, work)
    tear(work.scratch / "step-00000002")
    with pytest.raises(ArtifactError, match="its table says"):
        run(whole, work)


# ---------------------------------------------------------------- spikes


def watch(losses: list[float], *, deviations: float = 6.0) -> SpikeWatch:
    return SpikeWatch(Upkeep(spike_window_steps=8, spike_deviations=deviations), losses)


def test_a_spike_stands_above_the_median_by_the_windows_own_noise() -> None:
    noisy = watch([2.0, 2.1, 1.9, 2.05, 1.95, 2.02, 1.98, 2.0])
    limit = noisy.limit()
    assert limit is not None
    assert 2.1 < limit < 2.5
    assert watch([2.0] * 7).limit() is None, "the window is not full"
    still = watch([2.0] * 8).limit()
    assert still is not None
    assert still == pytest.approx(2.0 + 6.0 * 0.002 * 2.0), "no noise does not make noise a spike"
    off = SpikeWatch(Upkeep())
    off.add(2.0)
    assert off.limit() is None
    assert off.losses == [], "nothing is kept in checkpoints of a run that does not look"


def test_the_window_moves_on() -> None:
    moving = watch([float(loss) for loss in range(20, 0, -1)])
    assert moving.losses == [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    moving.add(0.5)
    assert moving.losses == [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5]


def test_a_spike_stops_the_run_and_names_step_rank_and_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, bad = 40, 37 * BATCH + 2
    recipe = tiny_pretrain(steps * BATCH)
    inputs = write_blend(tmp_path / "inputs", steps * BATCH)
    upkeep = {"spike_window_steps": 8, "spike_deviations": 6.0, "checkpoint_every_steps": 10}
    pretrain(recipe, inputs, workspace(tmp_path / "clean", placement=placed(**upkeep)))
    read = BlendSamples.read

    def read_poisoned(data: BlendSamples, samples: Sequence[int]) -> Rows:
        rows = read(data, samples)
        if bad in samples:
            rows.labels_BS[list(samples).index(bad)] = NEVER_SEEN
        return rows

    monkeypatch.setattr(BlendSamples, "read", read_poisoned)
    sick = workspace(tmp_path / "sick", placement=placed(**upkeep))
    told = []
    for _ in range(2):  # the second time from a checkpoint, with the window that it holds
        with pytest.raises(StageError) as caught:
            pretrain(recipe, inputs, sick)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert told[0].startswith("rank 0, step 38: the loss rose to ")
    assert f"most of it at sample {bad} (" in told[0]
    assert "on data rank 0" in told[0]
    assert kept(sick) == ["step-00000030"], "what was before the spike is there to go on from"


# ---------------------------------------------------------------- what it tells


def test_what_a_rank_begins_is_marked_and_the_first_step_may_take_its_time(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    work = workspace(tmp_path, placement=placed(checkpoint_every_steps=9))
    run(whole, work)
    own = [(Part.STEP, step) for step in range(2, STEPS + 1)]
    steps = [mark for one in own for mark in (one, (Part.EXCHANGE, None))]
    saved = steps.index((Part.STEP, 10))
    assert work.marks == [
        (Part.START, 0),
        (Part.FIRST_STEP, 1),
        *steps[:saved],
        (Part.SAVE, None),
        *steps[saved:],
        (Part.PUBLISH, None),
    ]


def test_pace_and_utilisation_are_told(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frontload.megatron_ext.training import loop

    gpus = Gpus(kind="h100_sxm", kernel_mfu=0.45)
    placement = Placement(gpus=gpus, upkeep=Upkeep(rank_log_every_steps=5))
    work = workspace(tmp_path, placement=placement)
    monkeypatch.setattr(loop, "TELEMETRY_SECONDS", 0.0)
    run(whole, work)
    assert [step for step, _ in work.rank_lines] == [5, 10]
    for _, line in work.rank_lines:
        assert 0.0 < line["own_seconds"] <= line["step_seconds"]
    told = [one for _, one in work.system if "system__model_flops_utilisation" in one]
    assert len(told) == STEPS
    from frontload.recipes.facts.census import training_flops_per_token

    flops = training_flops_per_token(tiny_model(), tiny_training(4).sequence_tokens)
    for one in told:
        rate = one["system__tokens_per_second"]
        assert one["system__model_flops_utilisation"] == pytest.approx(rate * flops / 989.4e12)
