"""Exported checkpoints in transformers: the same logits, nothing missing, and back bit by bit.

Weights are trained, since errors of the scan hide behind fresh ones, and sequences are several
chunks long. Tolerance 1e-4 of logits of size 5 and more: both sides are float32, in other orders.
Transformers 5.10 on a CPU is wrong beyond one chunk, so the exported chunk is the trained length.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from frontload.megatron_ext.checkpoints.files import read_model
from frontload.megatron_ext.hf.convert import export_hf, import_hf, import_into
from frontload.megatron_ext.hf.megatron import DATA
from frontload.recipes.schema import Model, Pretrain
from tests.training_inputs import (
    BATCH,
    load_module,
    tiny_model,
    tiny_training,
    workspace,
    write_blend,
)

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
STEPS, TOKENS = 200, 32


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A trained checkpoint, its export, and Megatron's own logits of some tokens."""

    checkpoint: Path
    hf: Path
    tokens_BS: Tensor
    logits_BSV: Tensor


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    from frontload.megatron_ext.stages import pretrain

    root = tmp_path_factory.mktemp("trained")
    recipe = Pretrain(
        model=tiny_model(pattern="M-*M*-", tie_embeddings=bool(request.param)),
        training=tiny_training(STEPS * BATCH),
        start_sample=0,
        num_samples=STEPS * BATCH,
    )
    work = workspace(root)
    pretrain(recipe, write_blend(root / "inputs", STEPS * BATCH), work)
    assert work.losses()[-1] < 0.7 * work.losses()[0]
    export_hf(work.path, root / "hf", max_shard_bytes=60_000)
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, recipe.model.vocab_size, (2, TOKENS), generator=generator)
    with torch.no_grad():
        logits = load_module(work.path)(tokens, None, None)
    assert 4 * recipe.model.mamba_chunk_tokens <= TOKENS <= recipe.model.max_sequence_tokens
    assert logits.abs().max() > 5
    return Exported(checkpoint=work.path, hf=root / "hf", tokens_BS=tokens, logits_BSV=logits)


def load(folder: Path, **options: Any) -> Any:
    """The model in transformers, after a look at what it did with the tensors."""
    found, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, **options
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not report[what], f"{what}: {report[what]}"
    return found


@torch.no_grad()
def largest_error(exported: Exported, found: Any) -> float:
    logits = found(exported.tokens_BS, use_cache=False).logits
    return float((logits - exported.logits_BSV).abs().max())


def test_logits_beyond_one_chunk(exported: Exported) -> None:
    found = load(exported.hf)
    assert found.dtype == torch.float32
    assert largest_error(exported, found) < TOLERANCE


def test_the_chunk_covers_the_trained_length(exported: Exported) -> None:
    model = read_model(exported.checkpoint)
    config = load(exported.hf).config
    assert config.chunk_size == model.max_sequence_tokens > model.mamba_chunk_tokens


def _swap(module: Any, name: str, *ranges: tuple[int, int]) -> None:
    """Exchanges two runs of rows of a tensor."""
    weight = module.get_parameter(name)
    (a, b), (c, d) = ranges
    first, second = weight[a:b].clone(), weight[c:d].clone()
    weight[a:b], weight[c:d] = second, first


MISTAKES: dict[str, Callable[[Any], None]] = {
    "z and x": lambda m: _swap(m, "model.layers.0.mixer.in_proj.weight", (0, 64), (64, 128)),
    "B and C": lambda m: _swap(m, "model.layers.0.mixer.in_proj.weight", (128, 160), (160, 192)),
    "two heads of dt": lambda m: _swap(
        m, "model.layers.0.mixer.in_proj.weight", (192, 193), (194, 195)
    ),
    "B and C of conv": lambda m: _swap(
        m, "model.layers.0.mixer.conv1d.weight", (64, 96), (96, 128)
    ),
    "two queries of unlike groups": lambda m: _swap(
        m, "model.layers.2.mixer.q_proj.weight", (8, 16), (16, 24)
    ),
    "two keys": lambda m: _swap(m, "model.layers.2.mixer.k_proj.weight", (0, 8), (8, 16)),
    "gated norm": lambda m: m.get_parameter("model.layers.3.mixer.norm.weight").fill_(1.0),
    "layer norm": lambda m: m.get_parameter("model.layers.1.norm.weight").fill_(1.0),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_map_would_show(exported: Exported, mistake: str) -> None:
    """Guards the tests above: with these weights every confusion is a large error."""
    found = load(exported.hf)
    with torch.no_grad():
        MISTAKES[mistake](found)
    assert largest_error(exported, found) > 20 * TOLERANCE


def test_dt_below_the_clamp_of_transformers(exported: Exported, tmp_path: Path) -> None:
    """Megatron does not clamp dt; what the config says about it must not either."""
    hf, small = tmp_path / "hf", tmp_path / "small"
    found = load(exported.hf)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.endswith("dt_bias"):
                parameter.sub_(6.0)  # dt from about 0.01 to about 3e-5
    found.save_pretrained(small)
    import_hf(small, tmp_path / "checkpoint", model=read_model(exported.checkpoint))
    export_hf(tmp_path / "checkpoint", hf)
    with torch.no_grad():
        logits = load_module(tmp_path / "checkpoint")(exported.tokens_BS, None, None)
    moved = replace(exported, logits_BSV=logits)
    assert largest_error(moved, load(hf)) < TOLERANCE
    clamped = load(hf, time_step_min=1e-3)  # the default of transformers
    assert largest_error(moved, clamped) > 20 * TOLERANCE


def test_there_and_back_is_bit_exact(exported: Exported, tmp_path: Path) -> None:
    import_hf(exported.hf, tmp_path / "back")
    found, expected = (
        dict(load_module(folder).state_dict())
        for folder in (tmp_path / "back", exported.checkpoint)
    )
    for name, tensor in expected.items():
        if isinstance(tensor, Tensor):
            assert torch.equal(found[name], tensor), name
    assert read_model(tmp_path / "back") == read_model(exported.checkpoint)
    export_hf(tmp_path / "back", tmp_path / "again", max_shard_bytes=60_000)
    for file in sorted(exported.hf.iterdir()):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_what_transformers_saves_comes_back_bit_exact(exported: Exported, tmp_path: Path) -> None:
    """The way of RL: 5.10 writes other names, other layer kinds and no pattern."""
    load(exported.hf, chunk_size=64).save_pretrained(tmp_path / "saved")
    import_hf(exported.hf, tmp_path / "direct")
    (tmp_path / "through").mkdir()
    known = read_model(exported.checkpoint)
    for _ in range(2):  # as after a kill
        import_into(tmp_path / "saved", tmp_path / "through", model=known)
    for name in (f"weights/{DATA}", "model.json"):
        direct, through = (tmp_path / way / name for way in ("direct", "through"))
        assert direct.read_bytes() == through.read_bytes()


def test_sft_starts_from_what_came_back(exported: Exported, tmp_path: Path) -> None:
    from frontload.megatron_ext.stages import sft
    from frontload.recipes.schema import Sft
    from tests.training_inputs import write_pack

    import_hf(exported.hf, tmp_path / "back")
    (tmp_path / "pack").mkdir()
    pack = write_pack(tmp_path / "pack", 2 * BATCH)
    model: Model = read_model(exported.checkpoint)
    recipe = Sft(model=model, training=tiny_training(2 * BATCH), num_samples=2 * BATCH)
    losses = []
    for start in (exported.checkpoint, tmp_path / "back"):
        work = workspace(tmp_path / f"sft-{start.name}")
        sft(recipe, {"pack": pack, "start": start}, work)
        losses.append(work.losses())
    assert losses[0] == losses[1]
