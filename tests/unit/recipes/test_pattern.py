"""Letters, exact counts and cuts of the layer pattern."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.pattern import (
    Layer,
    check_layout,
    check_model,
    parse_pattern,
    short_ends,
    split_pipeline,
)
from frontload.recipes.machines.placement import Placement
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


def test_pipeline_parts_are_equal_or_refused() -> None:
    model = tiny_model(pattern="M-M*-M")
    assert split_pipeline(model, Placement(pipeline_parallel=2)) == ("M-M", "*-M")
    assert split_pipeline(model, Placement()) == ("M-M*-M",)
    with pytest.raises(RecipeError, match=r"is 4 with 6 layers.*\[1, 2, 3, 6\].*\[1, 2, 2, 1\]"):
        split_pipeline(model, Placement(pipeline_parallel=4))


def test_pipeline_parts_of_different_length_are_cut_as_stated() -> None:
    placement = Placement(pipeline_parallel=3, pipeline_layers=(1, 3, 2))
    assert split_pipeline(tiny_model(pattern="M-M*-M"), placement) == ("M", "-M*", "-M")


@pytest.mark.parametrize("layers", [(3, 2), (3, 3, 1), (7, -1), (6,)])
def test_pipeline_parts_that_do_not_add_up_are_refused(layers: tuple[int, ...]) -> None:
    placement = Placement(pipeline_parallel=2, pipeline_layers=layers)
    with pytest.raises(RecipeError, match=r"pipeline_layers: is .*write e.g. \[3, 3\]"):
        split_pipeline(tiny_model(pattern="M-M*-M"), placement)


@given(st.integers(1, 130), st.integers(1, 16))
def test_short_ends_keep_every_layer(num_layers: int, num_stages: int) -> None:
    if num_stages > num_layers:
        return
    counts = short_ends(num_layers, num_stages)
    assert (len(counts), sum(counts)) == (num_stages, num_layers)
    assert min(counts) >= 1


def test_fifty_two_layers_on_eight_stages() -> None:
    assert short_ends(52, 8) == (5, 7, 7, 7, 7, 7, 7, 5)
    assert short_ends(52, 4) == (13, 13, 13, 13)


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
    ("changes", "rule"),
    [
        ({"mamba_num_heads": 3}, "must divide"),
        ({"num_attention_heads": 3}, "must divide"),
        ({"num_query_groups": 0}, "num_query_groups: is 0; sizes of a model are above 0"),
    ],
)
def test_heads_must_fill_groups(changes: dict[str, int], rule: str) -> None:
    with pytest.raises(RecipeError, match=rule):
        check_model(tiny_model(**changes))
