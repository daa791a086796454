"""The converter's files against Megatron's and safetensors' own, and every refusal."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frontload.megatron_ext.checkpoints.table import read_table, write_table
from frontload.megatron_ext.hf.config import exported_chunk, read_config, to_config
from frontload.megatron_ext.hf.convert import export_hf, import_hf, import_into
from frontload.megatron_ext.hf.megatron import DATA, StoredTensors
from frontload.megatron_ext.hf.names import FUSED_NORMS, Slot
from frontload.megatron_ext.hf.safetensors import INDEX, SafetensorsShard, ShardReader, ShardWriter
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.schema import Model
from tests.training_inputs import load_module, tiny_model
from tests.unit.megatron_ext.convert_inputs import write_checkpoint

ROOT = Path(__file__).resolve().parents[3]


def save_with_megatron(folder: Path, model: Model) -> Path:
    from frontload.megatron_ext import cpu

    cpu.prepare()
    from frontload.megatron_ext.checkpoints import save
    from frontload.megatron_ext.model.stack import build_model, initialise_weights
    from frontload.megatron_ext.ranks import parallelism
    from frontload.recipes.machines.placement import Placement

    groups = parallelism.join_groups(Placement())
    module = build_model(model, Placement(), groups, precision="fp32")
    initialise_weights(module, model, 3)
    parts = save.Parts(module=module, optimizer=None, groups=groups)
    save.save_weights(folder / "weights", parts, state={"samples": 0})
    save.write_model(folder, model)
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three layer kinds, weights drawn as for training, saved by Megatron."""
    model = tiny_model(tie_embeddings=bool(request.param))
    return save_with_megatron(tmp_path_factory.mktemp("checkpoint"), model)


def test_back_again_is_the_same_bytes_as_megatron_saved(checkpoint: Path, tmp_path: Path) -> None:
    export_hf(checkpoint, tmp_path / "hf", max_shard_bytes=40_000)
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 2
    import_hf(tmp_path / "hf", tmp_path / "back")
    for name in (f"weights/{DATA}", "weights/metadata.json", "weights/content.json", "model.json"):
        assert (tmp_path / "back" / name).read_bytes() == (checkpoint / name).read_bytes(), name
    tables = [read_table(root / "weights") for root in (checkpoint, tmp_path / "back")]
    for part in ("state_dict_metadata", "storage_data", "version"):
        assert getattr(tables[0], part) == getattr(tables[1], part)
    found, expected = (
        load_module(tmp_path / "back").state_dict(),
        load_module(checkpoint).state_dict(),
    )
    for name, tensor in expected.items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(found[name], tensor), name


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "checkpoint").mkdir()
    return write_checkpoint(tmp_path / "checkpoint", tiny_model())


@pytest.fixture
def hf(small: Path, tmp_path: Path) -> Path:
    export_hf(small, tmp_path / "hf", max_shard_bytes=40_000)
    return tmp_path / "hf"


def test_the_safetensors_library_reads_what_we_write_and_the_other_way(
    hf: Path, tmp_path: Path
) -> None:
    library = pytest.importorskip("safetensors.torch")
    ours, index = ShardReader(hf), json.loads((hf / INDEX).read_text())
    theirs: dict[str, torch.Tensor] = {}
    for file in sorted(hf.glob("*.safetensors")):
        part = library.load_file(file)
        assert all(index["weight_map"][name] == file.name for name in part)
        assert sum(tensor.nbytes for tensor in part.values()) <= 40_000
        theirs |= part
    assert theirs.keys() == ours.shapes.keys() == index["weight_map"].keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in theirs.values())
    for name, tensor in theirs.items():
        assert torch.equal(ours.read(name), tensor), name
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(hf / "config.json", other)
    library.save_file(theirs, other / "model.safetensors", metadata={"format": "pt"})
    import_hf(hf, tmp_path / "a")
    import_hf(other, tmp_path / "b")
    assert (tmp_path / "a/weights" / DATA).read_bytes() == (
        tmp_path / "b/weights" / DATA
    ).read_bytes()


def test_bf16_is_round_to_nearest_even(tmp_path: Path) -> None:
    """Against the rounding of the bits themselves, with ties, denormals and both infinities."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 60_000, dtype=np.uint64).astype(np.uint32)
    ties = (rng.integers(0, 2**16, 4_000).astype(np.uint32) << 16) | 0x8000
    bits = np.concatenate([bits, ties, np.arange(0, 1 << 17, 97, dtype=np.uint32)])
    bits = bits[~np.isnan(bits.view(np.float32))]
    numbers = torch.from_numpy(bits.view(np.float32).copy())
    shard = SafetensorsShard(name="one", slots=(Slot(name="numbers", shape=tuple(numbers.shape)),))
    writer = ShardWriter(tmp_path, [shard], torch.bfloat16)
    writer.write("numbers", numbers)
    content = (tmp_path / "one").read_bytes()
    found = np.frombuffer(content[8 + int.from_bytes(content[:8], "little") :], "<u2")
    wide = bits.astype(np.uint64)
    expected = (wide + 0x7FFF + ((wide >> 16) & 1)) >> 16
    np.testing.assert_array_equal(found, expected.astype(np.uint16))


def test_bf16_there_and_back(small: Path, tmp_path: Path) -> None:
    export_hf(small, tmp_path / "half", dtype="bf16")
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "bfloat16"
    import_hf(tmp_path / "half", tmp_path / "wide")
    import_hf(tmp_path / "half", tmp_path / "narrow", dtype="bf16")
    original, wide, narrow = (
        StoredTensors(tmp_path / name / "weights") for name in ("checkpoint", "wide", "narrow")
    )
    for name in original.shapes:
        rounded = original.read([name])[name].bfloat16()
        assert torch.equal(wide.read([name])[name], rounded.float())
        assert torch.equal(narrow.read([name])[name], rounded)


def test_norms_where_transformer_engine_keeps_them(small: Path, hf: Path, tmp_path: Path) -> None:
    """The same checkpoint under the fused names gives the same export."""
    table = read_table(small / "weights")

    def fused(name: str) -> str:
        words = name.split(".", 3)
        is_norm = words[0] == "decoder" and words[-1] in FUSED_NORMS
        return ".".join([*words[:3], FUSED_NORMS[words[3]]]) if is_norm else name

    entries, places = table.state_dict_metadata, table.storage_data
    table.state_dict_metadata = {fused(name): entry for name, entry in entries.items()}
    assert sum(name not in entries for name in table.state_dict_metadata) == 4
    table.storage_data = {
        type(index)(fused(index.fqn), index.offset): place for index, place in places.items()
    }
    shutil.copytree(small, tmp_path / "fused")
    write_table(tmp_path / "fused/weights/.metadata", table)
    export_hf(tmp_path / "fused", tmp_path / "again", max_shard_bytes=40_000)
    for file in hf.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_fused_names_are_megatrons() -> None:
    """Its local layers of a GPT name the same norms for checkpoints of Transformer Engine."""
    from frontload.megatron_ext import cpu

    cpu.prepare()
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_submodules

    known = get_gpt_layer_local_submodules().sharded_state_dict_keys_map
    for ours, theirs in known.items():
        assert FUSED_NORMS[f"{ours}weight"] == f"{theirs}weight"
    assert len(known) == 2


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(hf: Path) -> None:
        config = json.loads((hf / "config.json").read_text())
        if "layers_block_type" in changes:
            del config["hybrid_override_pattern"]
        (hf / "config.json").write_text(json.dumps(config | changes))

    return edit


def edit_header(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Rewrites the header of the first shard; the numbers stay."""

    def edit(hf: Path) -> None:
        file = min(hf.glob("*.safetensors"))
        content = file.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        change(header)
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])

    return edit


def truncate(hf: Path) -> None:
    file = max(hf.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-5])


def tear_header(hf: Path) -> None:
    file = min(hf.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:50])


def rename(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    return lambda header: header.__setitem__(new, header.pop(old))


def other_shape(header: dict[str, Any]) -> None:
    header["backbone.embeddings.weight"]["shape"] = [32, 112]


def other_type(header: dict[str, Any]) -> None:
    header["backbone.embeddings.weight"]["dtype"] = "I32"


TABLE = "backbone.embeddings.weight"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "experts": (edit_config(hybrid_override_pattern="MEM*"), "experts"),
    "experts by name": (edit_config(layers_block_type=["mamba", "moe"]), "moe"),
    "rope": (edit_config(rope_scaling={"factor": 8}), "rope_scaling"),
    "prediction": (edit_config(num_nextn_predict_layers=1), "num_nextn_predict_layers"),
    "attention bias": (edit_config(attention_bias=True), "attention_bias"),
    "gated activation": (edit_config(mlp_hidden_act="silu"), "mlp_hidden_act"),
    "window": (edit_config(sliding_window=128), "sliding_window"),
    "no conv bias": (edit_config(use_conv_bias=False), "use_conv_bias"),
    "conv taps": (edit_config(conv_kernel=3), "conv_kernel"),
    "limit of dt": (edit_config(time_step_limit=[0.001, 0.1]), "time_step_limit"),
    "epsilon": (edit_config(layer_norm_epsilon=1e-6), "layer_norm_epsilon"),
    "another type": (edit_config(model_type="llama"), "'llama'"),
    "missing field": (edit_config(hidden_size=None), "does not give a model"),
    "groups": (edit_config(num_key_value_heads=3), "num_query_groups"),
    "no config": (lambda hf: (hf / "config.json").unlink(), "config.json"),
    "no index": (lambda hf: (hf / INDEX).unlink(), "no weights"),
    "torn index": (lambda hf: (hf / INDEX).write_text("{"), "does not read"),
    "no shard": (lambda hf: min(hf.glob("*.safetensors")).unlink(), "no file model-00001"),
    "truncated shard": (truncate, "its header says"),
    "torn header": (tear_header, "no readable header"),
    "integers": (edit_header(other_type), "is I32"),
    "too few layers": (edit_config(hybrid_override_pattern="M-*"), "also has"),
    "too many layers": (edit_config(hybrid_override_pattern="M-*M-"), "has no"),
    "another width": (edit_config(intermediate_size=65), "has another shape"),
    "turned table": (edit_header(other_shape), "has another shape"),
    "a strange name": (edit_header(rename(TABLE, "backbone.table.weight")), f"has no {TABLE}"),
    "false tie": (edit_config(tie_word_embeddings=True), "tie_word_embeddings"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_not_ours_is_refused_whole(hf: Path, tmp_path: Path, case: str) -> None:
    change, expected = REFUSED[case]
    change(hf)
    (tmp_path / "stage").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for run in (
        lambda: import_hf(hf, tmp_path / "out"),
        lambda: import_into(hf, tmp_path / "stage"),
    ):
        with pytest.raises(ArtifactError) as caught:
            run()
        assert expected in str(caught.value)
        assert all((caught.value.found, caught.value.rule, caught.value.do))
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("backbone.embedding.weight", TABLE), ("model.embeddings.weight", TABLE)],
)
def test_other_writers_names_are_understood(
    hf: Path, tmp_path: Path, theirs: str, ours: str
) -> None:
    import_hf(hf, tmp_path / "a")
    edit_header(rename(ours, theirs))(hf)
    import_hf(hf, tmp_path / "b")
    assert (tmp_path / "a/weights" / DATA).read_bytes() == (
        tmp_path / "b/weights" / DATA
    ).read_bytes()


def test_a_recipe_of_another_model_is_refused(hf: Path, tmp_path: Path) -> None:
    known = tiny_model(mamba_chunk_tokens=32, init_std=0.2)
    import_hf(hf, tmp_path / "kept", model=known)
    assert Model(**json.loads((tmp_path / "kept/model.json").read_text())) == known
    with pytest.raises(ArtifactError, match="mamba_num_groups"):
        import_hf(hf, tmp_path / "other", model=tiny_model(mamba_num_groups=1))


def drop_tensor(checkpoint: Path) -> None:
    table = read_table(checkpoint / "weights")
    del table.state_dict_metadata["decoder.final_norm.weight"]
    write_table(checkpoint / "weights/.metadata", table)


def cut_data(checkpoint: Path) -> None:
    file = checkpoint / "weights" / DATA
    file.write_bytes(file.read_bytes()[:-100])


def change_model(checkpoint: Path, **changes: Any) -> None:
    model = json.loads((checkpoint / "model.json").read_text())
    (checkpoint / "model.json").write_text(json.dumps(model | changes))


NOT_EXPORTED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "gone": (shutil.rmtree, "there is no such folder"),
    "no weights": (lambda at: shutil.rmtree(at / "weights"), "no weights folder"),
    "no model": (lambda at: (at / "model.json").unlink(), "model.json"),
    "no table": (lambda at: (at / "weights/.metadata").unlink(), ".metadata"),
    "torn": (cut_data, "bytes"),
    "a tensor is missing": (drop_tensor, "has no decoder.final_norm.weight"),
    "another model": (lambda at: change_model(at, pattern="M-*M-"), "has no decoder.layers.4"),
    "another width": (lambda at: change_model(at, kv_channels=16), "has another shape"),
    "epsilon": (lambda at: change_model(at, norm_epsilon=1e-6), "epsilon"),
}


@pytest.mark.parametrize("case", NOT_EXPORTED)
def test_a_bad_checkpoint_is_refused_whole(small: Path, tmp_path: Path, case: str) -> None:
    change, expected = NOT_EXPORTED[case]
    change(small)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArtifactError) as caught:
        export_hf(small, tmp_path / "out")
    assert expected in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_published_before_the_end(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure at any tensor leaves nothing; the same call then works."""
    writes = [0]
    write = ShardWriter.write

    def failing(self: ShardWriter, name: str, tensor: torch.Tensor) -> None:
        writes[0] += 1
        if writes[0] == 9:
            raise KeyboardInterrupt
        write(self, name, tensor)

    monkeypatch.setattr(ShardWriter, "write", failing)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        export_hf(small, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / ".out.partial").mkdir()  # as after SIGKILL
    (tmp_path / ".out.partial" / "junk").write_text("x")
    export_hf(small, tmp_path / "out")
    assert not (tmp_path / "out" / "junk").exists()
    with pytest.raises(RecipeError, match="it exists"):
        export_hf(small, tmp_path / "out")
    with pytest.raises(RecipeError, match="it exists"):
        import_hf(tmp_path / "out", tmp_path / "out")


PEAK = """
import resource, sys
from pathlib import Path
from frontload.megatron_ext.hf.convert import export_hf, import_hf
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
warm, large, out = map(Path, sys.argv[1:])
export_hf(warm, out / "warm"); import_hf(out / "warm", out / "warm-back")
before = peak()
export_hf(large, out / "large"); import_hf(out / "large", out / "large-back")
print(peak() - before)
"""


def test_memory_is_a_layer_and_the_table_not_the_model(small: Path, tmp_path: Path) -> None:
    """Peak memory of a process that converts 48 layers there and back, over its own start.

    Tolerance: layer and table as parts and joined once more (x2), and 16 MiB of allocator.
    """
    model = tiny_model(pattern="M-*-" * 12, hidden_size=384, ffn_hidden_size=1536, vocab_size=2048)
    (tmp_path / "large").mkdir()
    write_checkpoint(tmp_path / "large", model)
    stored = StoredTensors(tmp_path / "large/weights")
    sizes = {name: 4 * int(np.prod(shape)) for name, shape in stored.shapes.items()}
    layer = sum(size for name, size in sizes.items() if name.startswith("decoder.layers.1."))
    table = sizes["embedding.word_embeddings.weight"]
    limit = 2 * (layer + table) + 2**24
    assert sum(sizes.values()) > 3 * limit
    command = [sys.executable, "-W", "ignore", "-c", PEAK]
    command += [str(tmp_path / name) for name in ("checkpoint", "large", "made")]
    path = {"PYTHONPATH": str(ROOT / ".imports"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=True)
    assert int(done.stdout) < limit, f"{int(done.stdout) / 1e6:.0f} MB over {limit / 1e6:.0f} MB"


@pytest.mark.parametrize(
    ("changes", "chunk"),
    [
        ({"mamba_chunk_tokens": 8, "max_sequence_tokens": 128}, 128),
        ({"mamba_chunk_tokens": 8, "max_sequence_tokens": 96}, 128),  # kernels take powers of two
        ({"mamba_chunk_tokens": 8, "max_sequence_tokens": 129}, 256),
        ({"mamba_chunk_tokens": 256, "max_sequence_tokens": 128}, 256),
        # 4 heads x 16 states x 4096^2 x 4 bytes are 4 GiB
        ({"mamba_chunk_tokens": 8, "max_sequence_tokens": 4096}, 4096),
        ({"mamba_chunk_tokens": 8, "max_sequence_tokens": 4097}, 8),
        ({"mamba_chunk_tokens": 8, "max_sequence_tokens": 4096, "mamba_state_dim": 32}, 8),
    ],
)
def test_the_exported_chunk_covers_the_trained_length_that_a_cpu_can_hold(
    changes: dict[str, int], chunk: int
) -> None:
    model = tiny_model(**changes)
    assert exported_chunk(model) == chunk
    config = to_config(model, dtype="float32", token_ids={})
    assert config["chunk_size"] == chunk
    assert config["mamba_chunk_tokens"] == model.mamba_chunk_tokens


def test_the_chunk_of_training_comes_back(hf: Path, tmp_path: Path) -> None:
    """Also from a folder of another writer, which states one chunk only."""
    config = json.loads((hf / "config.json").read_text())
    trained = read_config(hf).mamba_chunk_tokens
    assert config["chunk_size"] > trained
    config.pop("mamba_chunk_tokens")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config(tmp_path).mamba_chunk_tokens == config["chunk_size"]
