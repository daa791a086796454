"""Curves of GRPO runs from the metrics that the stage logs."""

import json
import math
import re
from pathlib import Path

from frontload.eval.report import figures
from frontload.eval.report.rl_curves import PANELS, rl_panels

HELD_OUT = "train/validation_accuracy_family_mean"


def write_run(folder: Path, *, steps: int, level: float) -> Path:
    folder.mkdir()
    rows = [
        {"step": step, **{name: level + math.tanh(step / steps) for name in PANELS}}
        for step in range(1, steps + 1)
    ]
    start = {"step": 0, HELD_OUT: 0.1}
    lines = "".join(json.dumps(row) + "\n" for row in [start, *rows])
    (folder / "metrics.jsonl").write_text(lines)
    return folder


def test_every_rl_run_is_a_curve_in_every_panel_and_other_runs_are_none(tmp_path: Path) -> None:
    runs = {
        "base+shq-x1-seed1+rl": write_run(tmp_path / "a", steps=20, level=0.0),
        "lmq+shq-x1-seed1+rl": write_run(tmp_path / "b", steps=20, level=0.3),
        "lmq+shq-x1-seed2+rl": write_run(tmp_path / "c", steps=20, level=0.5),
        "lmq+shq-x1-seed2": write_run(tmp_path / "d", steps=20, level=0.5),
        "lmq-seed2": write_run(tmp_path / "e", steps=20, level=0.5),
    }
    panels = rl_panels(runs)
    assert [panel.title for panel in panels] == list(PANELS.values())
    for metric, panel in zip(PANELS, panels, strict=True):
        assert [curve.is_faint for curve in panel.curves] == [False, False, True]
        assert panel.curves[0].label == "M_base + SFT[SHQ]"
        first = 0 if metric == HELD_OUT else 1  # the line before step 1 has no reward
        assert panel.curves[0].samples == tuple(range(first, 21))
    reward = panels[0].curves[0].values
    assert math.isclose(reward[0], math.tanh(1 / 20))
    assert math.isclose(reward[-1], (math.tanh(1.0) + math.tanh(19 / 20)) / 2), "mean of two steps"


def test_the_figure_has_every_panel_and_no_run_gives_none(tmp_path: Path) -> None:
    assert rl_panels({"lmq-seed1": tmp_path}) == []
    run = write_run(tmp_path / "a", steps=9, level=0.0)
    svg = figures.save(
        figures.rl_curves(rl_panels({"base+shq-x1-seed1+rl": run})), tmp_path, name="rl"
    )
    for title in PANELS.values():
        assert title in svg
    words = re.findall(r'<text[^>]*style="([^"]*)"', svg)
    assert len(words) > len(PANELS)
    assert all("fill: currentColor" in style for style in words), "black is unread on a dark page"
    assert (tmp_path / "rl.png").stat().st_size > 1000


def test_no_axis_goes_below_0_for_what_never_is(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    levels = dict.fromkeys(PANELS, 0.0) | {"train/reward": 0.4, "train/response_tokens": 28.0}
    rows = [{"step": step, **levels} for step in range(1, 9)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    panels = rl_panels({"base+shq-x1-seed1+rl": folder})
    lowest = [ax.get_ylim()[0] for ax in figures.rl_curves(panels).axes]
    shown = dict(zip(PANELS, lowest, strict=True))
    assert shown.pop("train/response_tokens") > 20.0, "a count is not drawn from 0"
    assert set(shown.values()) == {0.0}
