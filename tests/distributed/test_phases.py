"""A trunk and the branch that starts from it end with the bytes of one run over both phases."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontload.recipes.machines.placement import Placement
from tests.ranks import run_on_ranks
from tests.training_inputs import BATCH, tiny_pretrain, workspace, write_blend

STEPS = 6  # of a phase: the masters drift from what bf16 can hold from the first on
PRECISIONS = ("fp32", "bf16")
LAYOUTS: dict[str, dict[str, Any]] = {
    "dp4": {},
    "tp2-pp2": {"tensor_parallel": 2, "pipeline_parallel": 2, "micro_batch_sequences": 2},
    "tp2-dp2-cut": {"tensor_parallel": 2, "distributed_optimizer": True},
}
"""On four ranks; cut = the optimizer's state, masters included, is cut over the replicas."""


def write_phases(root: Path) -> None:
    """One blend over both phases, and the same samples as two blends."""
    whole = write_blend(root / "whole", 2 * STEPS * BATCH)
    samples = np.load(whole["blend"] / "samples.npy")
    for number, name in enumerate(("trunk", "branch")):
        shutil.copytree(root / "whole", root / name)
        part = samples[number * STEPS * BATCH :][: STEPS * BATCH]
        np.save(root / name / "blend" / "samples.npy", part)
        plan = json.loads((root / name / "blend/plan.json").read_text())
        plan["num_samples"] = len(part)
        for source in plan["sources"]:
            source["num_samples"] = len(part) // 2
        (root / name / "blend/plan.json").write_text(json.dumps(plan))


def train_phases(root: str, out: str, precision: str, layout: dict[str, Any]) -> list[Any]:
    """On a rank: both phases as one run, then as trunk and branch; the lines of each."""
    from frontload.megatron_ext.stages import pretrain

    placement = Placement(checkpoint_every_seconds=1e9, **layout)
    phase, start = STEPS * BATCH, Path(out) / "trunk/path"
    lines: list[Any] = []
    for name, first, num in (
        ("whole", 0, 2 * phase),
        ("trunk", 0, phase),
        ("branch", phase, phase),
    ):
        recipe = tiny_pretrain(num, start_sample=first, total=2 * phase)
        recipe = replace(recipe, training=replace(recipe.training, precision=precision))
        inputs = {path.name: path for path in (Path(root) / name).iterdir()}
        if name == "branch":
            inputs["start"] = start
        work = workspace(Path(out) / name, placement=placement)
        pretrain(recipe, inputs, work)
        lines.append(work.lines)
    return lines


def check_same(lines: list[Any], out: Path) -> None:
    """The numbers of every step, and every byte of weights, masters and moments at the end."""
    whole, trunk, branch = ([values for _, values in one] for one in lines)
    assert len(whole) == 2 * STEPS
    assert trunk + branch == whole
    files = sorted(path.name for path in (out / "whole/path/weights").iterdir())
    assert any(name.endswith(".distcp") for name in files)
    for name in files:
        one, other = (out / run / "path/weights" / name for run in ("whole", "branch"))
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_rank_goes_on_at_a_phase_border_as_if_there_were_none(
    tmp_path: Path, precision: str
) -> None:
    write_phases(tmp_path / "in")
    lines = train_phases(str(tmp_path / "in"), str(tmp_path), precision, {})
    check_same(lines, tmp_path)


def train_all(root: str) -> dict[str, Any]:
    """On a rank: every layout in each precision."""
    return {
        f"{name}-{precision}": train_phases(
            f"{root}/in",
            f"{root}/{name}-{precision}",
            precision,
            {"ranks_per_node": 4, **layout},
        )
        for name, layout in LAYOUTS.items()
        for precision in PRECISIONS
    }


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("phases")
    write_phases(root / "in")
    return root, run_on_ranks(__file__, "train_all", 4, arguments={"root": str(root)})[0]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_four_ranks_go_on_at_a_phase_border_as_if_there_were_none(
    on_ranks: tuple[Path, dict[str, Any]], layout: str, precision: str
) -> None:
    root, lines = on_ranks
    name = f"{layout}-{precision}"
    check_same(lines[name], root / name)
