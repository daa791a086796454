"""How long one step takes on a stated share of a GPU's rate: a model, not a measurement. No torch.

Counted: products and scan, the schedule's bubble, recomputation, and the communication of tensor,
pipeline and data ranks, none of it overlapped, as this engine overlaps none. Not counted: the
optimizer's own arithmetic, norms, loading of data.
"""

from dataclasses import dataclass

from frontload.megatron_ext.sizing.memory import BYTES, StageMemory
from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.census import (
    BACKWARD_FACTOR,
    layer_work,
    output_work,
    training_flops_per_token,
)
from frontload.recipes.facts.layout import Batch, Batching
from frontload.recipes.facts.pattern import parse_pattern, split_pipeline
from frontload.recipes.machines.cluster import Gpus
from frontload.recipes.machines.gpus import GpuKind, find_gpu
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import Precision
from frontload.recipes.schema import Model

TERA, GIGA = 1e12, 1e9
HOUR_SECONDS = 3600.0


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
    batching: Batching,
    precision: Precision,
    memory: list[StageMemory],
) -> StepTime:
    """The time of a step under one layout.

    Raises: RecipeError if the placement names no GPU, an unknown one, or one without FP8.
    """
    gpus, kind = _gpus(placement, precision)
    tokens = batching.micro_sequences * batch.sequence_tokens
    parts = split_pipeline(model, placement)
    forward = _forward_seconds(model, batch, placement, precision=precision)
    forward = [seconds * tokens for seconds in forward]
    tensor = [
        tokens * _tensor_seconds(model, part, placement, precision=precision) for part in parts
    ]
    again = [seconds if placement.recompute else 0.0 for seconds in forward]
    whole = [
        (1.0 + BACKWARD_FACTOR) * once + twice + said
        for once, twice, said in zip(forward, again, tensor, strict=True)
    ]
    count, stages = batching.num_micro_batches, len(parts)
    schedule = (count - 1) * max(whole) + sum(whole)
    busy = count * sum(whole) / stages
    sent = 0.0
    if stages > 1:
        hidden = tokens * BYTES[precision.dtype] * model.hidden_size
        hidden /= placement.tensor_parallel if placement.sequence_parallel else 1
        sent = 2 * (count + stages - 1) * hidden / _network(gpus)
    return StepTime(
        compute=(1.0 + BACKWARD_FACTOR) * count * sum(forward) / stages,
        recompute=count * sum(again) / stages,
        bubble=schedule - busy,
        tensor=count * sum(tensor) / stages,
        pipeline=sent,
        data=_data_seconds(placement, batching, precision=precision, memory=memory),
        tokens=batch.global_batch_sequences * batch.sequence_tokens,
        flops=training_flops_per_token(model, batch.sequence_tokens)
        * (batch.global_batch_sequences * batch.sequence_tokens),
        gpus=placement.world_size,
        peak_flops=kind.bf16_tflops * TERA,
    )


def stage_costs(model: Model, sequence_tokens: int) -> list[float]:
    """Operations a token of each layer; the output layer counts with the last."""
    letters = parse_pattern(model.pattern)
    costs = [layer_work(model, layer, sequence_tokens).total for layer in letters]
    costs[-1] += output_work(model).total
    return costs


def balance_pipeline(model: Model, num_stages: int, *, sequence_tokens: int) -> tuple[int, ...]:
    """Layers a stage such that the slowest stage is as fast as it can be.

    Equal numbers are kept where they are as good.
    """
    costs = stage_costs(model, sequence_tokens)
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


def _forward_seconds(
    model: Model, batch: Batch, placement: Placement, *, precision: Precision
) -> list[float]:
    """A token's forward pass through each stage, on one rank, at the stated share of the peak."""
    gpus, kind = _gpus(placement, precision)
    letters = parse_pattern(model.pattern)
    seconds = []
    for number, layer in enumerate(letters):
        work = layer_work(model, layer, batch.sequence_tokens)
        is_fp8 = precision.is_fp8_layer(number, len(letters))
        products = kind.fp8_tflops if is_fp8 else kind.bf16_tflops
        seconds.append(work.projections / products)
        seconds[-1] += (work.total - work.projections) / kind.bf16_tflops
    seconds[-1] += output_work(model).total / kind.bf16_tflops
    rate = TERA * gpus.kernel_mfu * placement.tensor_parallel
    found, start = [], 0
    for part in split_pipeline(model, placement):
        found.append(sum(seconds[start : start + len(part)]) / rate)
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


def _data_seconds(
    placement: Placement, batching: Batching, *, precision: Precision, memory: list[StageMemory]
) -> float:
    """Gradients in float32 to every replica; with the distributed optimizer they are scattered and
    the weights gathered instead."""
    gpus, kind = _gpus(placement, precision)
    replicas = batching.data_parallel
    if replicas == 1:
        return 0.0
    largest = max(stage.gradients for stage in memory)
    weights = largest / BYTES["fp32"] * BYTES[precision.dtype]
    sent = largest + weights if placement.distributed_optimizer else 2 * largest
    in_node = replicas * placement.tensor_parallel <= placement.ranks_per_node
    rate = kind.link_gbyte_per_second * GIGA * gpus.link_share if in_node else _network(gpus)
    return sent * (replicas - 1) / replicas / rate


def _network(gpus: Gpus) -> float:
    return gpus.network_gbyte_per_second * GIGA * gpus.link_share
