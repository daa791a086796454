"""How fast every rank works, which of them is slow, and what share of the hardware is used."""

import statistics
import time

import torch
import torch.distributed as dist

from frontload.megatron_ext.training.engine import Engine
from frontload.recipes.artifact import Workspace
from frontload.recipes.facts.census import training_flops_per_token
from frontload.recipes.machines.gpus import find_gpu
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.upkeep import Upkeep
from frontload.recipes.schema import Model, Training


def is_due(step: int, upkeep: Upkeep) -> bool:
    """Whether the ranks compare their pace at this step."""
    every = upkeep.rank_log_every_steps
    return every > 0 and step % every == 0


def log_pace(engine: Engine, work: Workspace, step: int) -> None:
    """Each rank logs its own part of the step just made; rank 0 logs who was slowest.

    A rank's own part ends where it begins to wait for the others: a slow one makes all steps
    long, but only its own part longer. All ranks call it.
    """
    clock = engine.clock
    own, whole = clock.ended - clock.began, time.monotonic() - clock.began
    mine = torch.tensor([own], dtype=torch.float32, device=engine.device)
    parts = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
    if len(parts) > 1:
        dist.all_gather(parts, mine)
    else:
        parts = [mine]
    seconds = [float(part) for part in parts]
    share = engine.training.global_batch_sequences // engine.batching.data_parallel
    tokens = share * engine.training.sequence_tokens
    work.log_rank(
        step,
        own_seconds=own,
        step_seconds=whole,
        tokens_per_own_second=tokens / max(own, 1e-9),
    )
    if dist.get_rank() == 0 and len(seconds) > 1:
        slowest = max(range(len(seconds)), key=seconds.__getitem__)
        work.log(
            step,
            system__slowest_rank=slowest,
            system__slowest_rank_seconds=seconds[slowest],
            system__median_rank_seconds=statistics.median(seconds),
        )


def utilisation(
    model: Model, training: Training, placement: Placement, *, rate: float
) -> dict[str, float]:
    """The model FLOPs utilisation at `rate` tokens a second, if the placement names its GPUs.

    Against the dense BF16 peak, whatever the recipe's precision, as published figures are.
    """
    if placement.gpus is None:
        return {}
    peak = find_gpu(placement.gpus.kind).bf16_tflops * 1e12 * placement.world_size
    flops = training_flops_per_token(model, training.sequence_tokens)
    return {"system__model_flops_utilisation": rate * flops / peak}
