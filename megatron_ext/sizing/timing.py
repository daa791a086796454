"""How long one step takes on stated shares of a GPU's rates: a model, not a measurement. No torch.

Counted: products and attention at a share of the GPU's rate, Mamba's scan at a share of its
memory's rate, the schedule's bubble, recomputation, and the communication of tensor, pipeline and
data ranks, less what a stated overlap hides. Not counted: the optimizer's own arithmetic, loading
of data, saves, restarts. tests/unit/megatron_ext/test_public_runs.py compares it with public runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from frontload.megatron_ext.sizing.memory import BYTES, StageMemory
from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.census import (
    BACKWARD_FACTOR,
    layer_work,
    mixer_values,
    output_work,
    training_flops_per_token,
)
from frontload.recipes.facts.layout import Batch, Batching, cut_batch
from frontload.recipes.facts.pattern import parse_pattern, split_pipeline
from frontload.recipes.machines.cluster import Gpus
from frontload.recipes.machines.gpus import GpuKind, find_gpu
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import Precision
from frontload.recipes.schema import Model

TERA, GIGA = 1e12, 1e9
HOUR_SECONDS = 3600.0
MIXER_BACKWARD_FACTOR = 2.5  # of the forward traffic: mamba-ssm's kernels make states again


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Shares of the communication that run beside the computation.

    Those of other stacks are stated beside their public runs
    (tests/unit/megatron_ext/test_public_runs.py).
    """

    gradients: float = 0.0  # with the backward pass of the last micro-batch
    weights: float = 0.0  # with the forward pass of the first micro-batch
    tensor: float = 0.0  # between tensor ranks, with the products


def engine_overlap(placement: Placement) -> Overlap:
    """What this engine hides: of the exchange between replicas all that fits beside a pass."""
    if not placement.overlap_communication:
        return Overlap()
    return Overlap(gradients=1.0, weights=1.0)  # as megatron_ext/ranks/settings.py switches it


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one optimizer step, part by part; they add up."""

    compute: float  # forward and backward, if every stage always had work
    recompute: float
    bubble: float  # stages that wait: filling, draining, and unequal stages
    tensor: float  # communication between tensor ranks
    pipeline: float  # between stages
    data: float  # between replicas: gradients, and the weights that come back
    tokens: int  # of the step
    flops: float  # of the model in one step: nothing that is made twice
    gpus: int
    peak_flops: float  # of one GPU in bf16, whatever the precision

    @property
    def total(self) -> float:
        parts = (self.compute, self.recompute, self.bubble)
        return sum(parts) + self.tensor + self.pipeline + self.data

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.total

    @property
    def mfu(self) -> float:
        """Of the step: model FLOPs over the bf16 peak of all GPUs."""
        return self.flops / (self.total * self.gpus * self.peak_flops)

    @property
    def bubble_share(self) -> float:
        return self.bubble / self.total

    def gpu_hours(self, tokens: int) -> float:
        """For a budget of tokens."""
        return tokens / self.tokens_per_second / HOUR_SECONDS * self.gpus


def step_time(
    model: Model,
    batch: Batch,
    *,
    placement: Placement,
    precision: Precision,
    memory: list[StageMemory],
    overlap: Overlap | None = None,
) -> StepTime:
    """The time of a step under one layout, with the overlap of its placement unless one is given.

    Raises: RecipeError if the placement names no GPU, an unknown one, or one without FP8.
    """
    gpus, kind = _gpus(placement, precision)
    overlap = overlap or engine_overlap(placement)
    batching = cut_batch(model, batch, placement=placement)
    tokens = batching.micro_sequences * batch.sequence_tokens
    parts = split_pipeline(model, placement)
    layers = _layer_passes(model, batch, placement=placement, precision=precision)
    passes = _stage_passes(layers, parts, tokens)
    tensor = [
        tokens * _tensor_seconds(model, part, placement, precision=precision) for part in parts
    ]
    tensor = [said * (1.0 - overlap.tensor) for said in tensor]
    again = [one.forward if placement.recompute else 0.0 for one in passes]
    whole = [
        one.forward + one.backward + twice + said
        for one, twice, said in zip(passes, again, tensor, strict=True)
    ]
    count, stages = batching.num_micro_batches, len(parts)
    schedule = (count - 1) * max(whole) + sum(whole)
    busy = count * sum(whole) / stages
    sent = 0.0
    if stages > 1:
        hidden = tokens * BYTES[precision.dtype] * model.hidden_size
        hidden /= placement.tensor_parallel if placement.sequence_parallel else 1
        sent = 2 * (count + stages - 1) * hidden / _network(gpus)
    exchange = _exchange(placement, batching, precision=precision, memory=memory)
    return StepTime(
        compute=count * sum(one.forward + one.backward for one in passes) / stages,
        recompute=count * sum(again) / stages,
        bubble=schedule - busy,
        tensor=count * sum(tensor) / stages,
        pipeline=sent,
        data=_exposed(exchange, passes, overlap),
        tokens=batch.global_batch_sequences * batch.sequence_tokens,
        flops=training_flops_per_token(model, batch.sequence_tokens)
        * (batch.global_batch_sequences * batch.sequence_tokens),
        gpus=placement.world_size,
        peak_flops=kind.bf16_tflops * TERA,
    )


def layer_seconds(
    model: Model, batch: Batch, *, placement: Placement, precision: Precision
) -> list[float]:
    """A token's forward and backward pass through each layer; the output layer is in the last.

    Raises: RecipeError if the placement names no GPU.
    """
    passes = _layer_passes(model, batch, placement=placement, precision=precision)
    return [one.forward + one.backward for one in passes]


def balance_pipeline(costs: Sequence[float], num_stages: int) -> tuple[int, ...]:
    """Layers a stage such that the slowest stage is as fast as it can be.

    Equal numbers are kept where they are as good.
    """
    before = [0.0]
    for cost in costs:
        before.append(before[-1] + cost)
    size = len(costs)
    best = [[before[end] for end in range(size + 1)]]  # of the first `end` layers on one stage
    cuts: list[list[int]] = [[0] * (size + 1)]
    for stage in range(1, num_stages):
        row, cut = [float("inf")] * (size + 1), [0] * (size + 1)
        for end in range(stage + 1, size + 1):
            options = (
                (max(best[-1][start], before[end] - before[start]), start)
                for start in range(stage, end)
            )
            row[end], cut[end] = min(options)
        best.append(row)
        cuts.append(cut)
    ends = [size]
    for cut in reversed(cuts[1:]):
        ends.append(cut[ends[-1]])
    bounds = [0, *reversed(ends)]
    counts = tuple(high - low for low, high in zip(bounds, bounds[1:], strict=False))
    even = size // num_stages
    if size % num_stages == 0:
        slowest = max(before[start + even] - before[start] for start in range(0, size, even))
        if slowest <= best[-1][size]:
            return num_stages * (even,)
    return counts


def _gpus(placement: Placement, precision: Precision) -> tuple[Gpus, GpuKind]:
    gpus = placement.gpus
    if gpus is None:
        raise RecipeError(
            "placement.gpus",
            found=f"is missing in placement {placement.name}",
            rule="time and price need the kind of GPU and the share of its rate that is reached",
            do="write gpus: {kind: h100_sxm, kernel_mfu: 0.45}, or extend paper_tp8pp8",
        )
    if not 0.0 < gpus.kernel_mfu <= 1.0:
        raise RecipeError(
            "placement.gpus.kernel_mfu",
            found=f"is {gpus.kernel_mfu}",
            rule="a share of the peak rate lies above 0 and at most at 1",
            do="write e.g. 0.45",
        )
    kind = find_gpu(gpus.kind)
    if precision.is_fp8 and not kind.fp8_tflops:
        raise RecipeError(
            "precision",
            found=f"is {precision.name} on {kind.name}",
            rule="this GPU has no FP8 product",
            do="write bf16, or choose h100_sxm",
        )
    return gpus, kind


@dataclass(frozen=True, kw_only=True)
class _Passes:
    """Seconds of one pass each way."""

    forward: float
    backward: float


def _layer_passes(
    model: Model, batch: Batch, *, placement: Placement, precision: Precision
) -> list[_Passes]:
    """A token through each layer, on one rank, at the stated shares of the rates."""
    gpus, kind = _gpus(placement, precision)
    letters = parse_pattern(model.pattern)
    bf16 = TERA * kind.bf16_tflops * gpus.kernel_mfu
    fp8 = TERA * kind.fp8_tflops * (gpus.fp8_mfu or gpus.kernel_mfu)
    memory = GIGA * kind.memory_gbyte_per_second * gpus.memory_share
    passes = []
    for number, layer in enumerate(letters):
        work = layer_work(model, layer, batch.sequence_tokens)
        values = mixer_values(model, layer, batch.sequence_tokens)
        rate = fp8 if precision.is_fp8_layer(number, len(letters)) else bf16
        product, mixer = work.projections / rate, 0.0
        if memory and values:  # what lies between a Mamba layer's projections takes its traffic
            mixer = values * BYTES[precision.dtype] / memory
        else:
            product += (work.total - work.projections) / bf16
        if number == len(letters) - 1:
            product += output_work(model).total / bf16
        forward, backward = product + mixer, BACKWARD_FACTOR * product
        backward += MIXER_BACKWARD_FACTOR * mixer
        ranks = placement.tensor_parallel
        passes.append(_Passes(forward=forward / ranks, backward=backward / ranks))
    return passes


def _stage_passes(passes: Sequence[_Passes], parts: Sequence[str], tokens: int) -> list[_Passes]:
    """The tokens of a micro-batch through the layers of each stage."""
    found, start = [], 0
    for part in parts:
        of_stage = passes[start : start + len(part)]
        found.append(
            _Passes(
                forward=tokens * sum(one.forward for one in of_stage),
                backward=tokens * sum(one.backward for one in of_stage),
            )
        )
        start += len(part)
    return found


def _tensor_seconds(
    model: Model, part: str, placement: Placement, *, precision: Precision
) -> float:
    """A token's communication between tensor ranks in one stage, forward and backward.

    A layer has one all-reduce each way; with sequence parallelism each is a gather and a scatter,
    and the backward pass gathers the linear's input once more.
    """
    gpus, kind = _gpus(placement, precision)
    ranks = placement.tensor_parallel
    if ranks == 1:
        return 0.0
    passes = 5.0 if placement.sequence_parallel else 4.0
    passes += 2.0 if placement.recompute else 0.0
    hidden = BYTES[precision.dtype] * model.hidden_size
    fits_node = ranks <= placement.ranks_per_node
    rate = kind.link_gbyte_per_second * GIGA * gpus.link_share if fits_node else _network(gpus)
    return len(part) * passes * hidden * (ranks - 1) / ranks / rate


@dataclass(frozen=True, kw_only=True)
class _Exchange:
    """Seconds that replicas need in a step for what each of them sends."""

    gradients: float
    weights: float


def _exchange(
    placement: Placement, batching: Batching, *, precision: Precision, memory: list[StageMemory]
) -> _Exchange:
    """Gradients in float32 to every replica; with the distributed optimizer they are scattered and
    the weights gathered instead."""
    gpus, kind = _gpus(placement, precision)
    replicas = batching.data_parallel
    if replicas == 1:
        return _Exchange(gradients=0.0, weights=0.0)
    in_node = min(replicas, max(1, placement.ranks_per_node // placement.tensor_parallel))
    link = kind.link_gbyte_per_second * GIGA * gpus.link_share
    # NCCL's rings leave a node by the adapter of every one of its ranks, each with a part
    rate = link if in_node == replicas else min(link, in_node * _network(gpus))
    largest = max(stage.gradients for stage in memory)
    weights = largest / BYTES["fp32"] * BYTES[precision.dtype]
    whole = (replicas - 1) / replicas / rate
    if placement.distributed_optimizer:
        return _Exchange(gradients=largest * whole, weights=weights * whole)
    return _Exchange(gradients=2 * largest * whole, weights=0.0)


def _exposed(exchange: _Exchange, passes: list[_Passes], overlap: Overlap) -> float:
    """Seconds of the exchange that nothing hides: only one micro-batch's passes can hide any."""
    backward = min(one.backward for one in passes)
    forward = min(one.forward for one in passes)
    hidden = min(overlap.gradients * exchange.gradients, backward)
    hidden += min(overlap.weights * exchange.weights, forward)
    return exchange.gradients + exchange.weights - hidden


def _network(gpus: Gpus) -> float:
    return gpus.network_gbyte_per_second * GIGA * gpus.link_share
