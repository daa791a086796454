"""Estimated memory of the torch layers against what a CPU allocates in a step of tiny models."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from frontload.megatron_ext import cpu

cpu.prepare()
from frontload.megatron_ext.model.layers import document_resets  # noqa: E402
from frontload.megatron_ext.model.stack import build_model, initialise_weights  # noqa: E402
from frontload.megatron_ext.ranks.parallelism import join_groups  # noqa: E402
from frontload.megatron_ext.sizing.memory import StageMemory, stage_memory  # noqa: E402
from frontload.recipes.facts.layout import cut_batch  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from frontload.recipes.machines.precision import find_precision  # noqa: E402
from frontload.recipes.schema import Model, Training  # noqa: E402
from tests.training_inputs import tiny_model, tiny_training  # noqa: E402

ROWS, TOKENS = 2, 64
WIDE = {"hidden_size": 64, "ffn_hidden_size": 336}


def estimated(model: Model, training: Training, placement: Placement) -> list[StageMemory]:
    return stage_memory(
        model,
        training,
        placement=placement,
        batching=cut_batch(model, training, placement=placement),
        precision=find_precision(training.precision),
    )


def training(**changes: Any) -> Training:
    values: dict[str, Any] = {"sequence_tokens": TOKENS, "global_batch_sequences": ROWS}
    return tiny_training(ROWS, **(values | changes))


def built(model: Model, recipe: Training, placement: Placement) -> tuple[Any, dict[str, Any]]:
    module: Any = build_model(model, placement, join_groups(placement), precision=recipe.precision)
    initialise_weights(module, model, seed=1)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)  # the buffer of a rank is there before a step
    tokens = torch.arange(ROWS * TOKENS).view(ROWS, TOKENS) % model.vocab_size
    resets = None
    if recipe.reset_at_document_boundaries:
        resets = document_resets(torch.arange(TOKENS).expand(ROWS, TOKENS) // 24)
    inputs = {"input_ids": tokens, "labels": tokens, "packed_seq_params": resets}
    return module, inputs | {"position_ids": None, "attention_mask": None}


def saved_bytes(module: Any, inputs: dict[str, Any]) -> int:
    """Storages that autograd keeps between forward and backward, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}
    held: list[Any] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # so that no address is used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(**inputs)
    return sum(kept.values())


def peak_bytes(module: Any, inputs: dict[str, Any]) -> int:
    """Most bytes that torch's CPU allocator had out during one step, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        module(**inputs).sum().backward()
    profiler: Any = trace.profiler
    events = [e for e in profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


CASES = {
    "M": tiny_model(pattern="M-M-M*-M-", **WIDE),
    "mamba": tiny_model(pattern="MMM", **WIDE),
    "states": tiny_model(pattern="MM", mamba_state_dim=64, mamba_chunk_tokens=4, **WIDE),
    "attention": tiny_model(pattern="*-*-", **WIDE),
    "words": tiny_model(pattern="M-*", vocab_size=4_096, **WIDE),
    "narrow": tiny_model(pattern="M-M*-"),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_activations_are_within_fifteen_percent_of_the_measured_peak(
    name: str, *, resets: bool, precision: str
) -> None:
    model = CASES[name]
    recipe = training(precision=precision, reset_at_document_boundaries=resets)
    (stage,) = estimated(model, recipe, Placement())
    module, inputs = built(model, recipe, Placement())
    gradients_of_loss = 2 * 4 * model.vocab_size * ROWS * TOKENS
    kept = stage.activations + stage.states + stage.logits - gradients_of_loss
    assert saved_bytes(module, inputs) == pytest.approx(kept, rel=0.02)
    peak = stage.total - stage.static
    assert peak_bytes(module, inputs) == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["M", "narrow"])
def test_with_recomputation_too(name: str, precision: str) -> None:
    model, placement = CASES[name], Placement(recompute=True)
    recipe = training(precision=precision)
    (stage,) = estimated(model, recipe, placement)
    (whole,) = estimated(model, recipe, Placement())
    assert stage.activations < 0.5 * whole.activations
    peak = peak_bytes(*built(model, recipe, placement))
    assert peak == pytest.approx(stage.total - stage.static, rel=0.15)


def peak_shares(num_ranks: int) -> dict[str, float]:
    """On a rank of several: measured over estimated peak on two tensor ranks."""
    model, recipe = CASES["M"], training(precision="bf16")
    found: dict[str, float] = {}
    for sequence_parallel in (False, True):
        placement = Placement(
            ranks_per_node=num_ranks, tensor_parallel=2, sequence_parallel=sequence_parallel
        )
        batch = replace(recipe, global_batch_sequences=ROWS * num_ranks // 2)
        (stage,) = estimated(model, batch, placement)
        peak = peak_bytes(*built(model, batch, placement))
        name = "sequence parallel" if sequence_parallel else "tensor parallel"
        found[name] = peak / (stage.total - stage.static)
    return found
