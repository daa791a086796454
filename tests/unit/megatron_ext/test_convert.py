"""The converter's files: shards, index, config, tokenizer; and every refusal, with nothing left."""

import pickle
from pathlib import Path

import pytest
import torch

from frontload.megatron_ext.convert import export_hf, import_hf, import_into
from frontload.megatron_ext.convert_checkpoint import DATA
from frontload.recipes.schema import Model
from tests.training_inputs import load_module, tiny_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three layer kinds, weights drawn as for training."""
    return save_drawn(tmp_path_factory.mktemp("checkpoint"), tiny_model())


def save_drawn(folder: Path, model: Model, *, precision: str = "fp32") -> Path:
    from frontload.megatron_ext import cpu

    cpu.prepare()
    from frontload.megatron_ext import checkpoint, parallelism
    from frontload.megatron_ext.stack import build_model, initialise_weights
    from frontload.recipes.placement import Placement

    groups = parallelism.join_groups(Placement())
    module = build_model(model, Placement(), groups, precision=precision)
    initialise_weights(module, model, 3)
    parts = checkpoint.Parts(module=module, optimizer=None, groups=groups)
    checkpoint.save_weights(folder / "weights", parts, state={"samples": 0})
    checkpoint.write_model(folder, model)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "hf"
    export_hf(checkpoint, out, max_shard_bytes=40_000)
    return out


def test_back_again_is_the_same_bytes_as_megatron_saved(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    import_hf(exported, tmp_path / "back")
    for name in (f"weights/{DATA}", "weights/metadata.json", "weights/content.json", "model.json"):
        assert (tmp_path / "back" / name).read_bytes() == (checkpoint / name).read_bytes(), name
    tables = [
        pickle.loads((root / "weights" / ".metadata").read_bytes())
        for root in (checkpoint, tmp_path / "back")
    ]
    for part in ("state_dict_metadata", "storage_data", "version"):
        assert getattr(tables[0], part) == getattr(tables[1], part)


def test_the_engine_loads_an_imported_checkpoint(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    import_into(exported, tmp_path)
    found, expected = load_module(tmp_path).state_dict(), load_module(checkpoint).state_dict()
    tensors = {name: value for name, value in expected.items() if isinstance(value, torch.Tensor)}
    assert len(tensors) > 20
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name
