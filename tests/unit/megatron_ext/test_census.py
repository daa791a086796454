"""Parameters and operations by layer kind: formulas against models that are built and run."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from frontload.megatron_ext import cpu

cpu.prepare()
from megatron.core.models.hybrid.hybrid_model import HybridModel  # noqa: E402

from frontload.megatron_ext.model.stack import build_model, initialise_weights  # noqa: E402
from frontload.megatron_ext.ranks.parallelism import join_groups  # noqa: E402
from frontload.recipes.facts.census import (  # noqa: E402
    ParameterCount,
    count_layer_parameters,
    count_parameters,
    forward_flops_per_token,
    layer_work,
    output_work,
    training_flops_per_token,
)
from frontload.recipes.facts.pattern import Layer, parse_pattern  # noqa: E402
from frontload.recipes.grammar.load import find_recipe, load_recipe, recipe_names  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from frontload.recipes.schema import Model  # noqa: E402
from tests.parity.reference_model import draw_weights  # noqa: E402
from tests.training_inputs import tiny_model  # noqa: E402

PARAMETERS = {
    "hybrid_138k": 145_432,
    "transformer_144k": 143_808,
    "hybrid_1m": 942_514,
    "hybrid_5m": 4_677_728,
    "hybrid_15m": 14_430_704,
    "hybrid_26m": 25_662_704,
    "hybrid_60m": 58_954_992,
    "hybrid_150m": 150_084_192,
    "hybrid_1b": 1_012_048_352,
    "transformer_1b": 1_182_853_120,
    "hybrid_8b": 8_100_852_736,  # the published count of nvidia/Nemotron-H-8B-Base-8K
    "hybrid_12b": 12_310_001_152,  # the same of nvidia/NVIDIA-Nemotron-Nano-12B-v2-Base
}
LAYERS_8B = {Layer.MAMBA: 109_640_064, Layer.ATTENTION: 41_947_136, Layer.MLP: 176_164_864}


def named(name: str) -> Model:
    path = find_recipe("models", name)
    assert path is not None
    return load_recipe(path, Model).value


def build(model: Model, *, device: str) -> HybridModel:
    """The engine's model; its large tensors have no memory on the device `meta`."""
    groups = join_groups(Placement())
    with torch.device(device):
        return build_model(model, Placement(), groups, precision="fp32")


def by_kind(module: HybridModel, model: Model) -> ParameterCount:
    """Parameters of a built model by where they are, from their names."""
    found: Counter[str] = Counter()
    letters = parse_pattern(model.pattern)
    for name, parameter in module.named_parameters():
        words = name.split(".")
        where = letters[int(words[2])].name.lower() if words[1] == "layers" else words[-2]
        found[where] += parameter.numel()
    return ParameterCount(
        embedding=found["word_embeddings"],
        mamba=found["mamba"],
        attention=found["attention"],
        mlp=found["mlp"],
        final_norm=found["final_norm"],
        output=found["output_layer"],
    )


def test_every_shipped_model_has_its_count_here() -> None:
    assert sorted(PARAMETERS) == recipe_names("models")


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_built_model_has_exactly_these_parameters(name: str) -> None:
    model = named(name)
    found = by_kind(build(model, device="meta"), model)
    assert found == count_parameters(model)
    assert found.total == PARAMETERS[name]


def test_the_built_8b_has_exactly_these_parameters_a_layer() -> None:
    model = named("hybrid_8b")
    module: Any = build(model, device="meta")
    letters = parse_pattern(model.pattern)
    assert Counter(letters) == {Layer.MAMBA: 24, Layer.MLP: 24, Layer.ATTENTION: 4}
    for letter, layer in zip(letters, module.decoder.layers, strict=True):
        assert sum(p.numel() for p in layer.parameters()) == LAYERS_8B[letter]
        assert count_layer_parameters(model, letter) == LAYERS_8B[letter]
    biases = [name for name, _ in module.named_parameters() if name.endswith("bias")]
    assert {name.rsplit(".", 1)[1] for name in biases} == {"conv1d_bias", "dt_bias"}
    assert not any("position" in name for name, _ in module.named_parameters())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("pattern", ["M", "*", "-", "M-M*-M-*"])
def test_parameters_are_counted_exactly(pattern: str, *, tied: bool) -> None:
    model = tiny_model(pattern=pattern, tie_embeddings=tied, ffn_hidden_size=72)
    count = count_parameters(model)
    weights = draw_weights(model, seed=0)
    assert count.total == sum(weight.numel() for weight in weights.values())
    assert count.embedding == weights["embedding.word_embeddings.weight"].numel()
    assert (count.mamba > 0, count.attention > 0, count.mlp > 0) == tuple(
        letter in pattern for letter in "M*-"
    )


def test_flops_are_those_of_the_products() -> None:
    model = Model(
        pattern="M*-", hidden_size=8, ffn_hidden_size=24, num_attention_heads=4,
        num_query_groups=2, kv_channels=3, mamba_num_heads=2, mamba_head_dim=5, mamba_state_dim=7,
        mamba_num_groups=1, mamba_chunk_tokens=16, vocab_size=11, max_sequence_tokens=64,
        tie_embeddings=True, norm_epsilon=1e-5, init_std=0.02, embedding_init_std=0.02,
    )  # fmt: skip
    inner, channels = 10, 10 + 2 * 7
    mamba = 8 * (inner + channels + 2) + inner * 8 + channels * 4
    mamba += 16 * 7 + 16 * inner + 2 * inner * 7  # scores, chunk, state in, state out
    attention = 8 * (4 + 2 * 2) * 3 + 4 * 3 * 8 + 2 * 4 * 3 * (64 + 1) / 2
    expected = 2 * (mamba + attention + 2 * 8 * 24 + 8 * 11)
    assert forward_flops_per_token(model, 64) == expected
    assert training_flops_per_token(model, 64) == 3 * expected
    assert forward_flops_per_token(model, 8) < expected  # shorter rows: less attention, less chunk


ROWS, TOKENS = 2, 64
aten = torch.ops.aten


def _batched(_out: object, a: list[int], b: list[int], *_: object, **__: object) -> int:
    return 2 * a[0] * a[1] * a[2] * b[2]


def _attention(query: list[int], key: list[int], value: list[int], *_: object, **__: object) -> int:
    batch, heads, tokens, width = query
    return 2 * batch * heads * tokens * key[2] * (width + value[3])


def _attention_backward(_grad: object, *args: list[int], **__: object) -> int:
    return 5 * _attention(*args[:3]) // 2  # scores again, then four products


NOT_IN_TORCH = {
    aten.baddbmm_: _batched,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Products that torch's counter has no entry for: of the chunked scan, and of a CPU's attention."""


def counted(model: Model) -> tuple[int, int]:
    """Operations that torch counts in a forward pass and in a whole step of the built model."""
    module = build(model, device="cpu")
    initialise_weights(module, model, seed=1)
    tokens = torch.arange(ROWS * TOKENS).view(ROWS, TOKENS) % model.vocab_size
    with FlopCounterMode(display=False, custom_mapping=NOT_IN_TORCH) as forward:
        loss = module(tokens, None, None, labels=tokens)
        forward_flops = forward.get_total_flops()
        loss.sum().backward()
    return forward_flops, forward.get_total_flops()


@pytest.mark.parametrize("letter", ["M", "-", "*"])
def test_products_of_a_layer_kind_are_those_torch_counts(letter: str) -> None:
    """The counter sees matrix products: attention over the whole square, no convolution."""
    model = tiny_model(pattern=letter * 2, hidden_size=64, ffn_hidden_size=336)
    kind = parse_pattern(letter)[0]
    work, output = layer_work(model, kind, TOKENS), output_work(model)
    causal = (TOKENS + 1) / (2 * TOKENS) if kind is Layer.ATTENTION else 1.0
    expected = 2 * (work.projections + work.mixing / causal) + output.projections
    forward, step = counted(model)
    assert forward == expected * ROWS * TOKENS
    if kind is not Layer.ATTENTION:  # its kernel computes the scores again: 5 products for 2
        assert step == 3 * forward


def test_flops_of_a_step_are_within_one_percent_of_what_torch_counts() -> None:
    model = tiny_model(pattern="M-M-M-M*-", hidden_size=256, ffn_hidden_size=1_344)
    _, step = counted(model)
    expected = training_flops_per_token(model, TOKENS) * ROWS * TOKENS
    # not counted: the taps; counted and not credited: the masked half of the scores, their replay
    assert step == pytest.approx(expected, rel=0.01)
