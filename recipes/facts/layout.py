"""What layouts are legal and how a global batch is cut over them. No torch: a plan asks it too."""

from dataclasses import dataclass
from typing import Protocol

from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.pattern import check_layout
from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Model


class Batch(Protocol):
    """The two numbers of a training recipe that a layout cuts."""

    @property
    def sequence_tokens(self) -> int: ...
    @property
    def global_batch_sequences(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How the global batch is cut: `data_parallel` x `num_micro_batches` x `micro_sequences`."""

    data_parallel: int
    num_micro_batches: int
    micro_sequences: int


def cut_batch(model: Model, batch: Batch, *, placement: Placement) -> Batching:
    """Checks model, batch and placement against each other and returns how the batch is cut.

    Raises: RecipeError naming both numbers that do not fit.
    """
    check_layout(model, placement)
    if placement.context_parallel != 1:
        raise RecipeError(
            "placement.context_parallel",
            found=f"is {placement.context_parallel}",
            rule="this engine keeps a sequence on one tensor group",
            do="use 1",
        )
    if placement.sequence_parallel:
        _check_sequence_parallel(batch, placement)
    ranks_per_model = placement.tensor_parallel * placement.pipeline_parallel
    data_parallel = placement.world_size // ranks_per_model
    if batch.global_batch_sequences % data_parallel:
        raise RecipeError(
            "training.global_batch_sequences",
            found=f"is {batch.global_batch_sequences} with {data_parallel} data-parallel ranks",
            rule="every data-parallel rank takes the same number of sequences",
            do=f"use a multiple of {data_parallel}",
        )
    share = batch.global_batch_sequences // data_parallel
    micro = placement.micro_batch_sequences or share
    if micro < 0 or share % micro:
        raise RecipeError(
            "placement.micro_batch_sequences",
            found=f"is {micro} with a share of {share} sequences a rank",
            rule="micro-batches must divide the share of a rank",
            do=f"use a divisor of {share}, or 0 for the whole share",
        )
    return Batching(
        data_parallel=data_parallel, num_micro_batches=share // micro, micro_sequences=micro
    )


def _check_sequence_parallel(batch: Batch, placement: Placement) -> None:
    if placement.tensor_parallel == 1 or batch.sequence_tokens % placement.tensor_parallel:
        raise RecipeError(
            "placement.sequence_parallel",
            found=f"is true with tensor_parallel {placement.tensor_parallel} and "
            f"training.sequence_tokens {batch.sequence_tokens}",
            rule="tensor_parallel must be above 1 and divide the sequence",
            do="set sequence_parallel to false or change tensor_parallel",
        )
