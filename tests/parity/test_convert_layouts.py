"""Checkpoints of any layout export to the same bytes, and what came back loads in any layout."""

from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from frontload.megatron_ext.checkpoints.files import WEIGHTS
from frontload.megatron_ext.hf.convert import export_hf, import_hf
from frontload.recipes.machines.placement import Placement
from tests.ranks import run_on_ranks
from tests.training_inputs import BATCH, tiny_pretrain, workspace, write_blend

LAYOUTS: dict[str, dict[str, int]] = {
    "tp2": {"tensor_parallel": 2},
    "pp2": {"pipeline_parallel": 2},
    "tp2-pp2": {"tensor_parallel": 2, "pipeline_parallel": 2},
}


def save_in_layouts(starts: dict[str, str], out: str, layouts: dict[str, dict[str, int]]) -> bool:
    """On one of four ranks: loads each checkpoint in each layout and saves it again."""
    from frontload.megatron_ext import cpu

    cpu.prepare()
    from frontload.megatron_ext.checkpoints import save
    from frontload.megatron_ext.checkpoints.files import read_model
    from frontload.megatron_ext.model.stack import build_model
    from frontload.megatron_ext.ranks import parallelism

    for name, options in layouts.items():
        placement = Placement(ranks_per_node=4, **options)
        groups = parallelism.join_groups(placement)
        for start, folder in starts.items():
            model = read_model(Path(folder))
            module = build_model(model, placement, groups, precision="fp32")
            parts = save.Parts(module=module, optimizer=None, groups=groups)
            save.load_weights(Path(folder) / WEIGHTS, parts)
            target = Path(out) / f"{start}-{name}"
            save.save_weights(target / WEIGHTS, parts, state={})
            if dist.get_rank() == 0:
                save.write_model(target, model)
    return True


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one rank (with its optimizer), its export, and both saved in all layouts."""
    from frontload.megatron_ext.stages import pretrain

    root = tmp_path_factory.mktemp("layouts")
    work = workspace(root)
    pretrain(tiny_pretrain(3 * BATCH), write_blend(root / "inputs", 3 * BATCH), work)
    export_hf(work.path, root / "hf", max_shard_bytes=50_000)
    import_hf(root / "hf", root / "back")
    starts = {"alone": str(work.path), "back": str(root / "back")}
    arguments = {"starts": starts, "out": str(root / "saved"), "layouts": LAYOUTS}
    assert run_on_ranks(__file__, "save_in_layouts", 4, arguments=arguments) == [True] * 4
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("start", ["alone", "back"])
def test_same_bytes_as_one_rank(root: Path, start: str, layout: str) -> None:
    saved: Any = root / "saved" / f"{start}-{layout}"
    assert len(list((saved / WEIGHTS).glob("*.distcp"))) > 1, "cut over ranks"
    export_hf(saved, root / "exported" / saved.name, max_shard_bytes=50_000)
    files = sorted((root / "hf").iterdir())
    assert len(files) > 4
    for file in files:
        found = root / "exported" / saved.name / file.name
        assert found.read_bytes() == file.read_bytes(), file.name
