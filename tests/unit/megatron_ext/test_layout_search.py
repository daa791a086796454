"""The model of a step's time, the cut of a pipeline, and the search over layouts."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.megatron_ext.sizing.search import LayoutEstimate, estimate_layout, search_layouts
from frontload.megatron_ext.sizing.timing import balance_pipeline, layer_seconds
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.cluster import TRANSFORMER_ENGINE, Gpus
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import find_precision
from frontload.recipes.schema import Model
from tests.training_inputs import tiny_model, tiny_training

GPUS = Gpus(kind="h100_sxm", kernel_mfu=0.5)
NODE = Placement(
    name="node", ranks_per_node=8, distributed_optimizer=True, micro_batch_sequences=1,
    kernels=TRANSFORMER_ENGINE, gpus=GPUS,
)  # fmt: skip


def estimated(model: Model, precision: str = "bf16", **changes: Any) -> LayoutEstimate:
    recipe = tiny_training(32, sequence_tokens=64, global_batch_sequences=32)
    placement = replace(NODE, **changes)
    return estimate_layout(model, recipe, placement=placement, precision=find_precision(precision))


@settings(max_examples=60)
@given(st.text("M*-", min_size=1, max_size=9), st.integers(1, 5))
def test_a_balanced_pipeline_has_the_fastest_slowest_stage(pattern: str, stages: int) -> None:
    if stages > len(pattern):
        return
    recipe = tiny_training(32, sequence_tokens=64, global_batch_sequences=32)
    model, bf16 = tiny_model(pattern=pattern), find_precision("bf16")
    costs = layer_seconds(model, recipe, placement=NODE, precision=bf16)
    counts = balance_pipeline(costs, stages)
    assert (len(counts), sum(counts), min(counts) >= 1) == (stages, len(pattern), True)

    def slowest(bounds: tuple[int, ...]) -> float:
        return max(sum(costs[low:high]) for low, high in itertools.pairwise(bounds))

    size = len(pattern)
    best = min(
        slowest((0, *cuts, size)) for cuts in itertools.combinations(range(1, size), stages - 1)
    )
    assert slowest(tuple(itertools.accumulate(counts, initial=0))) == pytest.approx(best)


def test_a_step_takes_its_operations_over_the_stated_rate() -> None:
    one = estimated(tiny_model(), ranks_per_node=1)
    assert one.time is not None
    rate = 0.5 * 989.4e12  # kernel_mfu of GPUS, h100_sxm's dense bf16
    assert one.time.total == pytest.approx(one.time.flops / rate)
    assert one.time.mfu == pytest.approx(0.5)
    assert (one.time.bubble, one.time.tensor, one.time.data, one.time.pipeline) == (0, 0, 0, 0)


def test_recomputation_costs_a_third_and_saves_memory() -> None:
    plain, again = estimated(tiny_model()), estimated(tiny_model(), recompute=True)
    assert plain.time is not None and again.time is not None  # noqa: PT018
    assert again.time.recompute == pytest.approx(plain.time.compute / 3)
    assert again.fullest.activations < plain.fullest.activations


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, 4),  # an all-reduce of the output and of the input's gradient: each is sent twice
        ({"sequence_parallel": True}, 5),  # gather, scatter both ways, and the input once more
        ({"sequence_parallel": True, "recompute": True}, 7),
        ({"recompute": True, "pipeline_parallel": 2}, 6),
    ],
)
def test_tensor_ranks_send_what_lies_between_layers(changes: dict[str, Any], passes: int) -> None:
    model = tiny_model(pattern="--MM")
    stages = changes.get("pipeline_parallel", 1)
    one = estimated(model, ranks_per_node=2 * stages, tensor_parallel=2, **changes)
    assert one.time is not None
    sent = 32 * 64 * 4 / stages * passes * 2 * model.hidden_size / 2  # half of it to another rank
    assert one.time.tensor == pytest.approx(sent / (450e9 * 0.7))
    assert one.time.total == pytest.approx(
        one.time.compute + one.time.recompute + one.time.bubble + one.time.tensor
        + one.time.pipeline
    )  # fmt: skip


def test_a_step_of_two_stages_is_as_long_as_its_schedule() -> None:
    """Micro-batches pass the slowest stage one by one, the first also the other stage."""
    model = tiny_model(pattern="----", vocab_size=2)
    changes = {"ranks_per_node": 2, "pipeline_parallel": 2, "pipeline_layers": (1, 3)}
    for recompute in (False, True):
        one = estimated(model, recompute=recompute, **changes)
        assert one.time is not None
        busy = one.time.compute + one.time.recompute  # of the mean of both stages
        slowest, other = busy * 3 / 2 / 32, busy / 2 / 32
        waited = 31 * slowest + slowest + other
        assert busy + one.time.bubble == pytest.approx(waited, rel=0.01)


def test_a_share_of_the_rate_lies_above_0_and_at_most_at_1() -> None:
    whole = estimated(tiny_model(), ranks_per_node=1, gpus=replace(GPUS, kernel_mfu=1.0))
    assert whole.time is not None
    assert whole.time.mfu == pytest.approx(1.0)
    for share in (0.0, 1.01):
        with pytest.raises(RecipeError, match="kernel_mfu"):
            estimated(tiny_model(), gpus=replace(GPUS, kernel_mfu=share))


@pytest.mark.parametrize("distributed_optimizer", [False, True])
def test_two_replicas_exchange_half_of_what_they_hold(*, distributed_optimizer: bool) -> None:
    model = tiny_model()
    one = estimated(model, ranks_per_node=2, distributed_optimizer=distributed_optimizer)
    assert one.time is not None
    weights = one.memory[0].gradients / 4
    sent = weights * (4 + 2 if distributed_optimizer else 2 * 4)  # scatter, gather; or all-reduce
    assert one.time.data == pytest.approx(sent / 2 / (450e9 * 0.7))


def test_stages_send_every_micro_batch_both_ways() -> None:
    model = tiny_model(pattern="MMMM")
    one = estimated(model, pipeline_parallel=4, ranks_per_node=4)
    assert one.time is not None
    hidden = 64 * 2 * model.hidden_size  # tokens of a micro-batch, bf16
    assert one.time.pipeline == pytest.approx(2 * (32 + 3) * hidden / (50e9 * 0.7))
    assert one.time.bubble_share == pytest.approx(one.time.bubble / one.time.total)


def test_gpu_hours_are_those_of_all_gpus() -> None:
    one = estimated(tiny_model())
    assert one.time is not None
    assert one.time.gpu_hours(32 * 64) == pytest.approx(8 * one.time.total / 3600)


def test_the_bubble_of_equal_stages_is_stages_less_one_over_micro_batches() -> None:
    model = tiny_model(pattern="MMMM", vocab_size=2)
    one = estimated(model, pipeline_parallel=4, ranks_per_node=4)
    assert one.time is not None
    # 3 / 32 micro-batches; the output layer, of 2 words, is 0.1% of the last stage
    assert one.time.bubble / one.time.compute == pytest.approx(3 / 32, rel=0.05)


def test_fp8_is_faster_where_it_applies_and_keeps_bf16_edges() -> None:
    model = tiny_model(
        pattern="M-M-M-M-",
        hidden_size=64,
        ffn_hidden_size=256,
        mamba_num_heads=16,
        mamba_head_dim=4,
    )
    plain, fp8 = estimated(model), estimated(model, "nemotron_h_current_scaling")
    assert plain.time is not None and fp8.time is not None  # noqa: PT018
    assert 0.5 * plain.time.compute < fp8.time.compute < plain.time.compute
    assert fp8.fullest.weights > plain.fullest.weights  # both FP8 copies beside the bf16 weights


@pytest.mark.parametrize(("sequence_parallel", "share"), [(False, 1.0), (True, 0.25)])
def test_sequence_parallelism_cuts_what_lies_between_layers(
    *, sequence_parallel: bool, share: float
) -> None:
    model = tiny_model(pattern="----", vocab_size=112, ffn_hidden_size=64, num_query_groups=4)
    alone = estimated(model, ranks_per_node=1)
    cut = estimated(model, ranks_per_node=4, tensor_parallel=4, sequence_parallel=sequence_parallel)
    norms = 4 * 64 * (2 * 2 * model.hidden_size + 4)  # layers, tokens: input, normed input, root
    wide = 4 * 64 * 2 * 2 * model.ffn_hidden_size
    ids = 8 * 64
    assert alone.fullest.activations == norms + wide + ids
    assert cut.fullest.activations == share * norms + wide / 4 + ids


def test_only_legal_layouts_are_found_and_all_are_explained() -> None:
    model = tiny_model(pattern="M-M-M-M-")
    recipe = tiny_training(32, sequence_tokens=64, global_batch_sequences=32)
    found, refused = search_layouts(model, recipe, placement=NODE, precision=find_precision("bf16"))
    shapes = {(one.placement.tensor_parallel, one.placement.pipeline_parallel) for one in found}
    assert shapes == {(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4)}
    for one in found:  # each can be asked for as it is printed
        again = estimate_layout(
            model, recipe, placement=one.placement, precision=find_precision("bf16")
        )
        assert again == one
    reasons = " ".join(one.reason for one in refused)
    assert "tensor_parallel: is 4 with model.mamba_num_groups 2" in reasons
