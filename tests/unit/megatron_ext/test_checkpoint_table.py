"""The reader of tables and objects: what torch and Megatron write it reads, and it runs nothing."""

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from frontload.megatron_ext import cpu

cpu.prepare()

from megatron.core.dist_checkpointing import serialization  # noqa: E402
from megatron.core.dist_checkpointing.strategies import torch as strategies  # noqa: E402

from frontload.megatron_ext.checkpoints.save import Parts, load_weights, save_weights  # noqa: E402
from frontload.megatron_ext.checkpoints.table import (  # noqa: E402
    CheckpointReader,
    read_object,
    read_table,
    without_pickled_state,
)
from frontload.megatron_ext.model.stack import build_model, initialise_weights  # noqa: E402
from frontload.megatron_ext.ranks import parallelism  # noqa: E402
from frontload.recipes.errors import ArtifactError  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from tests.fault import strange_checkpoints as strange  # noqa: E402
from tests.training_inputs import tiny_model  # noqa: E402
from tests.unit.megatron_ext.convert_inputs import write_checkpoint  # noqa: E402


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "checkpoint").mkdir()
    return write_checkpoint(tmp_path / "checkpoint", tiny_model()) / "weights"


def test_what_torch_itself_saves_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0), "b": {"c": torch.ones(2, dtype=torch.bfloat16)}, "d": [1, "x"]}
    save(state, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    found, expected = read_table(tmp_path), pickle.loads((tmp_path / ".metadata").read_bytes())
    assert found == expected
    assert expected.storage_meta is not None, "torch says where it was saved"


def test_megatron_reads_through_it(weights: Path) -> None:
    for module in (strategies, serialization):
        reader: Any = module._get_filesystem_reader(str(weights), cache_metadata=False)
        assert type(reader) is CheckpointReader


@pytest.mark.parametrize("name", [*strange.tables(Path("x")), *strange.objects(Path("x"))])
def test_megatrons_own_reading_runs_nothing_without_a_look_before(
    weights: Path, name: str, tmp_path: Path
) -> None:
    """As if the files had changed after `check_whole`: the reader itself refuses them."""
    strange.plant(weights, name, tmp_path / "ran")
    key, _ = strange.objects(tmp_path / "ran").get(name, (strange.COMMON_STATE, b""))
    with pytest.raises(BaseException, match="runs no code|Failed to load|CheckpointException"):
        load(
            {key: io.BytesIO()},
            storage_reader=strategies._get_filesystem_reader(str(weights)),
            no_dist=True,
        )
    assert not (tmp_path / "ran").exists()


def test_an_old_common_file_runs_nothing_whatever_the_environment_says(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (weights / "metadata.json").write_text('{"sharded_backend": "torch_dist"}')
    strange.plant(weights, strange.COMMON_FILE, tmp_path / "ran")
    with pytest.raises(ArtifactError, match=r"asks for posix\.system"):
        serialization.load_common_state_dict(str(weights))
    assert not (tmp_path / "ran").exists()
    torch.save({"iteration": 3}, weights / strange.COMMON)
    assert serialization.load_common_state_dict(str(weights)) == {"iteration": 3}


def test_what_is_no_saved_file_is_told_in_four_parts() -> None:
    with pytest.raises(ArtifactError, match="the file x: it cannot be read .*; a checkpoint holds"):
        read_object(io.BytesIO(b"nothing"), asked="the file x")


class PickledState(torch.nn.Module):
    """As Transformer Engine's modules: the state is a pickle in a byte tensor, or empty."""

    seen: Any = None

    def get_extra_state(self) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.seen = pickle.loads(state.numpy().tobytes()) if state.numel() else None


def test_a_pickle_in_a_byte_tensor_is_not_handed_on(tmp_path: Path) -> None:
    content = pickle.dumps(strange.touch(tmp_path / "ran"))
    state = {"_extra_state": torch.frombuffer(bytearray(content), dtype=torch.uint8)}
    plain = {"layer._extra_state": None, "weight": torch.ones(2)}
    assert without_pickled_state(plain) == plain
    module = PickledState()
    module.load_state_dict(without_pickled_state(state))
    assert not (tmp_path / "ran").exists()
    module.load_state_dict(state)
    assert (tmp_path / "ran").exists(), "the module would run it"


def test_a_load_hands_no_pickle_to_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved and loaded by Megatron, with a linear layer that keeps its state as such modules do."""
    groups = parallelism.join_groups(Placement())
    module: Any = build_model(tiny_model(), Placement(), groups, precision="fp32")
    initialise_weights(module, tiny_model(), 3)
    parts = Parts(module=module, optimizer=None, groups=groups)
    content = torch.frombuffer(bytearray(pickle.dumps(["a state"])), dtype=torch.uint8)
    linear = type(module.decoder.layers[0].mixer.in_proj)
    handed: list[Any] = []
    monkeypatch.setattr(linear, "get_extra_state", lambda self: content)
    monkeypatch.setattr(linear, "set_extra_state", lambda self, state: handed.append(state))
    save_weights(tmp_path / "weights", parts, state={})
    load_weights(tmp_path / "weights", parts)
    assert handed
    assert all(state.numel() == 0 for state in handed)
