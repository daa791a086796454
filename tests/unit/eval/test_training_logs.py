"""Curves of the training runs of a study: which are drawn, where, and what of them."""

import json
from pathlib import Path

import pytest

from frontload.eval.report.figures import INK, color_of
from frontload.eval.report.training_logs import (
    MOST_POINTS,
    LoggedRun,
    pretraining_panel,
    read_runs,
    sft_panels,
    smoothed_tail,
)


def write_run(folder: Path, *, steps: int, batch: int = 8) -> Path:
    folder.mkdir()
    rows = [
        {"step": step, "data/samples": batch * step, "train/loss": 5.0 - step / steps}
        for step in range(1, steps + 1)
    ]
    other = {"step": 1, "data/epoch": 0.5}
    text = "".join(json.dumps(row) + "\n" for row in [rows[0], other, *rows[1:]])
    (folder / "metrics.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[LoggedRun]:
    """Two seeds of a trunk, two branches and their tunings, one of them alone on its set."""
    folder = tmp_path_factory.mktemp("runs")
    labels = [
        f"{label}-seed{seed}"
        for seed in (2, 1)
        for label in ("lmq", "base", "trunk", "base+shq-x1", "lmq+shq-x1", "lmq+ldq-x1")
    ]
    labels += ["base+shq-x2-seed1", "base+shq-x1-seed1+rl", "tokenizer"]
    checkpoints = {label: write_run(folder / label, steps=10) for label in labels}
    checkpoints["shq-seed1"] = folder / "not-there"
    return read_runs(checkpoints)


def test_a_label_says_arm_set_times_and_seed(runs: list[LoggedRun]) -> None:
    found = {(run.arm, run.mix, run.times, run.seed) for run in runs}
    assert ("lmq", "", 1, 2) in found
    assert ("base", "shq", 2, 1) in found
    assert len(found) == len(runs) == 13, "not the ones of RL, of other labels, without a log"
    for run in runs:
        assert run.samples == tuple(8 * step for step in range(1, 11))
        assert run.losses[-1] == 4.0


def test_pretraining_is_one_panel_with_the_trunk_and_where_it_ends(runs: list[LoggedRun]) -> None:
    (panel,) = pretraining_panel(runs)
    assert [curve.label for curve in panel.curves] == 2 * ["trunk", "M_base", "M_LMQ"]
    assert [curve.is_faint for curve in panel.curves] == 3 * [False] + 3 * [True]
    assert panel.boundary == 80
    assert [curve.color for curve in panel.curves[:3]] == [
        INK,
        color_of("pt:base"),
        color_of("pt:LMQ"),
    ]
    (alone,) = pretraining_panel([run for run in runs if run.arm != "trunk"])
    assert alone.boundary is None
    (one_seed,) = pretraining_panel([run for run in runs if run.seed == 1])
    assert one_seed.boundary == 80
    assert pretraining_panel([run for run in runs if run.mix]) == []


def test_a_set_that_one_model_alone_was_tuned_on_compares_nothing(runs: list[LoggedRun]) -> None:
    (panel,) = sft_panels(runs)
    assert panel.title == "SFT on SHQ"
    assert [(curve.label, curve.is_faint) for curve in panel.curves] == [
        ("M_base", False),
        ("M_LMQ", False),
        ("M_base", True),
        ("M_LMQ", True),
    ], "the doubled run is another budget"


def test_runs_without_a_step_are_not_drawn(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "metrics.jsonl").write_text("")
    labels = ("trunk-seed1", "base+shq-x1-seed1", "lmq+shq-x1-seed1")
    found = read_runs(dict.fromkeys(labels, empty))
    assert len(found) == 3
    assert pretraining_panel(found) == sft_panels(found) == []


def run_of(losses: list[float]) -> LoggedRun:
    samples = tuple(float(place) for place in range(1, len(losses) + 1))
    return LoggedRun(arm="base", mix="", times=1, seed=1, samples=samples, losses=tuple(losses))


@pytest.mark.parametrize("steps", [1, 2, MOST_POINTS, 2 * MOST_POINTS, 10 * MOST_POINTS])
def test_a_long_run_is_thinned_and_ends_where_it_ended(steps: int) -> None:
    (panel,) = pretraining_panel([run_of([1.0] * steps)])
    (curve,) = panel.curves
    assert len(curve.samples) == len(curve.values) == min(steps, MOST_POINTS)
    assert curve.samples[-1] == steps
    gaps = {two - one for one, two in zip(curve.samples, curve.samples[1:], strict=False)}
    assert len(gaps) <= 1, "evenly"


def test_a_curve_is_the_mean_of_the_last_steps() -> None:
    """By hand: 4% of 50 steps are 2, and the first has no other before it."""
    values = tuple(float(place * place) for place in range(50))
    found = smoothed_tail(values, share=0.04)
    assert found[0] == 0.0
    assert found[1:] == [(one + two) / 2 for one, two in zip(values, values[1:], strict=False)]
    assert smoothed_tail(values, share=0.001) == list(values)
    assert smoothed_tail((), share=0.5) == []


def test_a_curve_is_smoothed_before_it_is_thinned() -> None:
    """Else a point shows one step of many: here every other step is 0."""
    (panel,) = pretraining_panel([run_of([0.0, 2.0] * MOST_POINTS)])
    assert panel.curves[0].values[-1] == pytest.approx(1.0, abs=0.02)
