"""Letters, exact counts and cuts of the layer pattern."""

import pytest

from frontload.megatron_ext.pattern import (
    Layer,
    check_layout,
    check_model,
    count_parameters,
    forward_flops_per_token,
    parse_pattern,
    split_pipeline,
    training_flops_per_token,
)
from frontload.recipes.errors import RecipeError
from frontload.recipes.placement import Placement
from frontload.recipes.schema import Model
from tests.parity.reference_model import draw_weights
from tests.training_inputs import tiny_model


def test_letters_are_megatrons() -> None:
    assert parse_pattern("M*-M") == (Layer.MAMBA, Layer.ATTENTION, Layer.MLP, Layer.MAMBA)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", ["empty"]),
        ("MEM", ["layer 1", "mixture of experts", "MLP"]),
        ("M*+", ["layer 2", "latent attention", "* (attention)"]),
        ("MM|MM", ["pipeline", "pipeline_parallel"]),
        ("MM/M", ["multi-token prediction"]),
        ("Gm", ["gated delta net"]),
        ("Mm", ["layer 1", "did you mean M?"]),
        ("Ma", ["did you mean *?"]),
        ("M?", ["'?'", "write one of these letters"]),
    ],
)
def test_other_letters_are_refused_by_name(pattern: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        parse_pattern(pattern)
    for word in ["model.pattern", *words]:
        assert word in str(error.value)


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


def test_pipeline_parts_are_equal_or_refused() -> None:
    model = tiny_model(pattern="M-M*-M")
    assert split_pipeline(model, 2) == ("M-M", "*-M")
    assert split_pipeline(model, 1) == ("M-M*-M",)
    with pytest.raises(RecipeError, match=r"pipeline_parallel: is 4 with 6 layers.*\[1, 2, 3, 6\]"):
        split_pipeline(model, 4)


@pytest.mark.parametrize(
    ("changes", "tensor_parallel", "field"),
    [
        ({"mamba_num_groups": 1}, 2, "mamba_num_groups"),
        ({"num_query_groups": 1}, 2, "num_query_groups"),
        ({"ffn_hidden_size": 63}, 2, "ffn_hidden_size"),
        ({"vocab_size": 111}, 2, "vocab_size"),
        ({}, 4, "num_query_groups"),
    ],
)
def test_tensor_parallel_must_divide(
    changes: dict[str, int], tensor_parallel: int, field: str
) -> None:
    placement = Placement(tensor_parallel=tensor_parallel, ranks_per_node=tensor_parallel)
    with pytest.raises(RecipeError, match=f"model.{field}"):
        check_layout(tiny_model(**changes), placement)


def test_layout_that_fits_passes_and_ranks_must_match() -> None:
    model = tiny_model()
    fitting = Placement(tensor_parallel=2, pipeline_parallel=2, ranks_per_node=4)
    check_layout(model, fitting)
    check_layout(tiny_model(pattern="--", mamba_num_groups=1), Placement(
        tensor_parallel=2, ranks_per_node=2
    ))  # fmt: skip
    with pytest.raises(RecipeError, match="3 ranks for tp x pp x cp = 2"):
        check_layout(model, Placement(tensor_parallel=2, ranks_per_node=3))


@pytest.mark.parametrize(
    "changes", [{"mamba_num_heads": 3}, {"num_attention_heads": 3}, {"num_query_groups": 0}]
)
def test_heads_must_fill_groups(changes: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="must divide"):
        check_model(tiny_model(**changes))
