"""Placement into process groups: what may be combined, who is where, and that all ranks agree."""

import contextlib
import logging
import math
import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from megatron.core.process_groups_config import ProcessGroupCollection

from frontload.megatron_ext.cpu import has_gloo_groups
from frontload.megatron_ext.ranks.gloo import one_gloo_device
from frontload.recipes.errors import RecipeError, StageError
from frontload.recipes.facts.census import count_layer_parameters
from frontload.recipes.facts.gemms import check_precision, check_tokens, check_widths
from frontload.recipes.facts.layout import Batching, cut_batch
from frontload.recipes.facts.pattern import parse_pattern, split_pipeline
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import find_precision
from frontload.recipes.schema import Model, Training


def check_placement(model: Model, training: Training, placement: Placement) -> Batching:
    """Checks every combination once, on the machine that runs it, and returns how a batch is cut.

    Raises: RecipeError naming both numbers that do not fit.
    """
    batching = cut_batch(model, training, placement=placement)
    precision = find_precision(training.precision)
    check_precision(model, precision, placement)
    check_widths(model, placement)
    check_tokens(
        precision,
        placement,
        micro_sequences=batching.micro_sequences,
        sequence_tokens=training.sequence_tokens,
    )
    if model.tie_embeddings and placement.pipeline_parallel > 1 and not torch.cuda.is_available():
        raise RecipeError(
            "model.tie_embeddings",
            found=f"is true with placement.pipeline_parallel {placement.pipeline_parallel}",
            rule="on a CPU the first and the last stage cannot share a table",
            do="use pipeline_parallel 1",
        )
    return batching


def join_groups(placement: Placement) -> ProcessGroupCollection:
    """Joins this process to its groups; the second call with the same layout does nothing.

    At one rank the group lives in the process and needs no network address. At several, the ranks
    must have been started by torchrun.

    Raises: StageError if the ranks that run are not the ranks that the placement names.
    """
    with one_gloo_device() if placement.num_nodes == 1 else contextlib.nullcontext():
        return _join_groups(placement)


def _join_groups(placement: Placement) -> ProcessGroupCollection:
    if not dist.is_initialized():
        _start_process_group(placement)
    found = dist.get_world_size()
    if found != placement.world_size:
        raise StageError(
            "placement",
            found=f"{found} ranks run, {placement.world_size} are named",
            rule="num_nodes x ranks_per_node must equal the ranks that torchrun starts",
            do="start it with frontload launch, or correct the placement",
        )
    layout = (placement.tensor_parallel, placement.pipeline_parallel)
    if parallel_state.model_parallel_is_initialized():
        if layout == _layout() and has_gloo_groups() >= placement.distributed_optimizer:
            return ProcessGroupCollection.use_mpu_process_groups()
        parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(
        *layout,
        # the distributed optimizer gathers its shards for a checkpoint over gloo
        create_gloo_process_groups=placement.distributed_optimizer,
        distributed_timeout_minutes=math.ceil(placement.upkeep.pause_seconds / 60),
    )
    tensor_parallel.model_parallel_cuda_manual_seed(
        1, inference_rng_tracker=True, force_reset_rng=True
    )  # nothing is drawn: no dropout, and weights come from stack.initialise_weights
    return ProcessGroupCollection.use_mpu_process_groups()


def _start_process_group(placement: Placement) -> None:
    """A collective waits as long as another rank may honestly pause; then it raises."""
    most = timedelta(seconds=placement.upkeep.pause_seconds)
    on_cuda = torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    if placement.world_size == 1:
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    else:
        dist.init_process_group(backend, timeout=most)
    if on_cuda:
        torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())


def _layout() -> tuple[int, int]:
    return (
        parallel_state.get_tensor_model_parallel_world_size(),
        parallel_state.get_pipeline_model_parallel_world_size(),
    )


def leave_groups() -> None:
    """Destroys the groups of this process, if it has any."""
    parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()


def current_device() -> torch.device:
    """Where this rank computes."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def take_census(
    module: torch.nn.Module, model: Model, placement: Placement, groups: ProcessGroupCollection
) -> None:
    """Counts layers and parameters of every rank against the recipe: core drops layers in silence.

    Every rank sees every rank's counts, so that all fail together and none waits for another.

    Raises: StageError naming the first rank whose part is not the recipe's, and its axes.
    """
    tp = groups.tp.size()
    layers: list[Any] = list(module.decoder.layers)  # type: ignore[union-attr, arg-type]
    cut = sum(p.numel() for p in module.parameters() if _is_cut(p))
    whole = sum(p.numel() for p in module.parameters() if not _is_cut(p))
    first = layers[0].layer_number - 1 if layers else -1
    place = [groups.pp.rank(), groups.tp.rank(), groups.dp.rank()]
    mine = torch.tensor([*place, first, len(layers), whole + cut * tp], dtype=torch.int64)
    counts = [mine.to(current_device())]
    if dist.get_world_size() > 1:
        counts = [torch.empty_like(counts[0]) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, mine.to(current_device()))
    stages = _stages(model, placement)
    for rank, count in enumerate(counts):
        stage, tensor, replica, *found = count.tolist()
        if found != list(stages[stage]):
            start, size, parameters = stages[stage]
            raise StageError(
                f"the model built on rank {rank} (pipeline {stage}, tensor {tensor}, data "
                f"{replica})",
                found=f"{found[1]} layers from {found[0]} and {found[2]} parameters over its "
                "tensor ranks",
                rule=f"the recipe has {size} layers from {start} and {parameters} parameters there",
                do="report it: a layer was dropped or doubled when the model was cut",
            )


def _stages(model: Model, placement: Placement) -> list[tuple[int, int, int]]:
    """First layer, layers and parameters of every pipeline stage."""
    parts = split_pipeline(model, placement)
    found: list[tuple[int, int, int]] = []
    for stage, part in enumerate(parts):
        parameters = sum(count_layer_parameters(model, layer) for layer in parse_pattern(part))
        is_first, is_last = stage == 0, stage == len(parts) - 1
        table = model.vocab_size * model.hidden_size
        parameters += table if is_first else 0
        if is_last:  # a tied table has a copy on the last stage, if that is not the first
            parameters += model.hidden_size
            parameters += 0 if model.tie_embeddings and is_first else table
        found.append((sum(map(len, parts[:stage])), len(part), parameters))
    return found


def _is_cut(parameter: torch.nn.Parameter) -> bool:
    return bool(getattr(parameter, "tensor_model_parallel", False))


def silence_megatron() -> None:
    """Drops Megatron's notes about deprecations that this engine has decided on."""
    logging.getLogger("megatron").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="megatron")
    warnings.filterwarnings("ignore", module="torch.distributed.checkpoint")
