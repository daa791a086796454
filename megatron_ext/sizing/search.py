"""Which layouts of a GPU count are legal for a model and a batch, which is fastest, and why the
others cannot be. No torch."""

from dataclasses import dataclass, replace

from frontload.megatron_ext.sizing.memory import GIB, StageMemory, stage_memory
from frontload.megatron_ext.sizing.timing import (
    Overlap,
    StepTime,
    balance_pipeline,
    layer_seconds,
    step_time,
)
from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.gemms import check_layers, check_precision, check_tokens, check_widths
from frontload.recipes.facts.layout import Batch, Batching, cut_batch
from frontload.recipes.machines.gpus import find_gpu
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import Precision
from frontload.recipes.schema import Model

TENSOR, CONTEXT = (1, 2, 4, 8, 16), (1, 2)
MOST_STAGES = 16
MICRO_SEQUENCES = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class LayoutEstimate:
    """One layout with what it costs."""

    placement: Placement
    batching: Batching
    memory: tuple[StageMemory, ...]
    time: StepTime | None  # None without GPUs

    @property
    def fullest(self) -> StageMemory:
        """The stage that needs most memory."""
        return max(self.memory, key=lambda stage: stage.total)

    @property
    def fits(self) -> bool:
        """The fullest GPU holds it; without GPUs nothing is known to be too small."""
        gpus = self.placement.gpus
        return gpus is None or self.fullest.total <= find_gpu(gpus.kind).memory_gib * GIB


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Layouts that cannot be, for one reason."""

    layouts: tuple[tuple[int, int, int], ...]  # tensor, pipeline, context
    reason: str


def estimate_layout(
    model: Model,
    batch: Batch,
    *,
    placement: Placement,
    precision: Precision,
    overlap: Overlap | None = None,
) -> LayoutEstimate:
    """Memory and time of the layout of a placement, with the overlap that it states by default.

    Raises: RecipeError if model, batch, precision and layout do not fit each other.
    """
    batching = cut_batch(model, batch, placement=placement)
    check_layers(placement, precision)
    check_precision(model, precision, placement)
    check_widths(model, placement)
    check_tokens(
        precision,
        placement,
        micro_sequences=batching.micro_sequences,
        sequence_tokens=batch.sequence_tokens,
    )
    memory = stage_memory(model, batch, placement=placement, batching=batching, precision=precision)
    time = None
    if placement.gpus is not None:
        time = step_time(
            model,
            batch,
            placement=placement,
            precision=precision,
            memory=memory,
            overlap=overlap,
        )
    return LayoutEstimate(placement=placement, batching=batching, memory=tuple(memory), time=time)


def search_layouts(
    model: Model, batch: Batch, *, placement: Placement, precision: Precision
) -> tuple[list[LayoutEstimate], list[Refused]]:
    """Every legal layout of the placement's GPUs, best first, and the reasons against the others.

    A layout stands with its best micro-batch, cut of the pipeline, and with or without
    recomputation: what fits the memory comes first, then the shortest step.
    """
    found: list[LayoutEstimate] = []
    refused: dict[str, list[tuple[int, int, int]]] = {}
    for shape in _shapes(placement.world_size):
        try:
            found.append(_best(model, batch, _shaped(placement, shape), precision=precision))
        except RecipeError as error:
            reason = f"{error.asked}: {error.found}; {error.rule}"
            refused.setdefault(reason, []).append(shape)
    found.sort(key=_rank)
    reasons = [Refused(layouts=tuple(which), reason=reason) for reason, which in refused.items()]
    return found, reasons


def _shapes(world_size: int) -> list[tuple[int, int, int]]:
    """Tensor, pipeline and context sizes to try; a context above 1 once, with nothing else."""
    pipelines = [size for size in range(1, MOST_STAGES + 1) if world_size % size == 0]
    return [
        (tensor, pipeline, context)
        for tensor in TENSOR
        for pipeline in pipelines
        for context in CONTEXT
        if world_size % (tensor * pipeline * context) == 0
        and (context == 1 or tensor == pipeline == 1)
    ]


def _shaped(placement: Placement, shape: tuple[int, int, int]) -> Placement:
    tensor, pipeline, context = shape
    return replace(
        placement,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        pipeline_layers=(),
        context_parallel=context,
        sequence_parallel=tensor > 1,
        distributed_optimizer=True,
        micro_batch_sequences=1,
    )


def _best(
    model: Model, batch: Batch, placement: Placement, *, precision: Precision
) -> LayoutEstimate:
    stages = placement.pipeline_parallel
    if 1 < stages <= len(model.pattern):
        costs = layer_seconds(model, batch, placement=placement, precision=precision)
        placement = replace(placement, pipeline_layers=balance_pipeline(costs, stages))
    share = cut_batch(model, batch, placement=placement).num_micro_batches
    tried = [
        estimate_layout(
            model,
            batch,
            placement=replace(placement, micro_batch_sequences=micro, recompute=recompute),
            precision=precision,
        )
        for micro in MICRO_SEQUENCES
        if share % micro == 0
        for recompute in (False, True)
    ]
    return min(tried, key=_rank)


def _rank(estimate: LayoutEstimate) -> tuple[bool, float, float]:
    seconds = estimate.time.total if estimate.time else 0.0
    return not estimate.fits, seconds, estimate.fullest.total
