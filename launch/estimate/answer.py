"""What an estimate says: the question, the costs, the layouts; and all of it as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from frontload.launch.text.assumptions import time_assumptions
from frontload.megatron_ext.sizing.search import LayoutEstimate, Refused
from frontload.recipes.facts.census import count_parameters
from frontload.recipes.facts.gemms import list_gemms
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import Precision
from frontload.recipes.schema import Model


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is to be priced: a model, a batch and a budget."""

    name: str
    model: Model
    sequence_tokens: int
    global_batch_sequences: int
    tokens: int  # 0 = not stated
    precision: str
    reset_at_document_boundaries: bool


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """All layers of one kind: how many, parameters, and operations a token."""

    kind: str
    layers: int
    parameters_a_layer: int
    parameters: int
    forward_flops: float
    training_flops: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Everything the command says."""

    workload: Workload
    costs: tuple[LayerCost, ...]
    precision: Precision
    placement: Placement
    asked: LayoutEstimate | None  # None: the placement's own layout is not legal
    switched: (
        LayoutEstimate | None
    )  # the same with recomputation on instead of off, or off instead of on
    layouts: tuple[LayoutEstimate, ...]
    refused: tuple[Refused, ...]


def as_json(answer: Answer, *, gemms: bool) -> dict[str, Any]:
    """The answer as plain values; seconds, bytes and FLOPs in their units."""
    workload = answer.workload
    found: dict[str, Any] = {
        "recipe": workload.name,
        "model": asdict(workload.model),
        "sequence_tokens": workload.sequence_tokens,
        "global_batch_sequences": workload.global_batch_sequences,
        "tokens": workload.tokens,
        "precision": asdict(answer.precision),
        "placement": asdict(answer.placement),
        "parameters": count_parameters(workload.model).total,
        "layers": [asdict(cost) for cost in answer.costs],
        "asked": _estimate_json(answer.asked, workload.tokens) if answer.asked else None,
        "switched": _estimate_json(answer.switched, workload.tokens) if answer.switched else None,
        "layouts": [_estimate_json(one, workload.tokens) for one in answer.layouts],
        "refused": [asdict(one) for one in answer.refused],
        "assumptions": time_assumptions(answer.placement),
    }
    if gemms:
        tensor = answer.placement.tensor_parallel
        found["gemms"] = [
            asdict(gemm)
            for gemm in list_gemms(workload.model, answer.precision, tensor_parallel=tensor)
        ]
    return found


def _estimate_json(one: LayoutEstimate, tokens: int) -> dict[str, Any]:
    placement = one.placement
    names = (
        "tensor_parallel", "pipeline_parallel", "pipeline_layers", "context_parallel",
        "sequence_parallel", "distributed_optimizer", "recompute", "kernels",
    )  # fmt: skip
    found: dict[str, Any] = {name: getattr(placement, name) for name in names}
    found |= asdict(one.batching)
    found["fits"] = one.fits
    found["memory_bytes"] = [asdict(stage) | {"total": stage.total} for stage in one.memory]
    if one.time is not None:
        hours = one.time.gpu_hours(tokens)
        rate = placement.gpus.dollars_per_hour if placement.gpus else 0.0
        found["time"] = asdict(one.time) | {
            "total": one.time.total,
            "tokens_per_second": one.time.tokens_per_second,
            "mfu": one.time.mfu,
            "bubble_share": one.time.bubble_share,
            "gpu_hours": hours if tokens else None,
            "dollars": hours * rate if tokens and rate else None,
        }
    return found
