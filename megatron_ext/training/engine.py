"""One rank's model, gradients buffer and optimizer, and a single step of training."""

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.models.hybrid.hybrid_model import HybridModel
from megatron.core.optimizer import get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.pipeline_parallel.p2p_communication import P2PCommunicator
from megatron.core.pipeline_parallel.utils import is_pp_last_stage
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.module import Float16Module
from torch import Tensor
from torch.nn import functional

from frontload.megatron_ext.checkpoints.save import Parts
from frontload.megatron_ext.model.ssd_steep import STEEP
from frontload.megatron_ext.model.stack import build_model
from frontload.megatron_ext.ranks import parallelism, settings
from frontload.megatron_ext.training.datasets import Samples, share_of_rank
from frontload.megatron_ext.training.forward import (
    MicroBatch,
    keep_losses,
    read_micro_batch,
    sum_losses,
)
from frontload.megatron_ext.training.losses import StartWeights
from frontload.megatron_ext.training.masks import WeightMasks
from frontload.recipes.errors import StageError
from frontload.recipes.facts.layout import Batching
from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Model, Training
from frontload.recipes.token_losses import PLAIN_LOSS, TokenLoss, needs_start_model


@dataclass(kw_only=True)
class Clock:
    """When this rank's own part of a step began and ended, before the ranks wait for each other.

    On several pipeline stages it includes the waiting for the neighbours.
    """

    is_on: bool = False  # on CUDA, looking at it costs a synchronisation
    began: float = 0.0
    ended: float = 0.0
    on_ended: Callable[[], None] = lambda: None  # hears of the end, on or not

    def look(self) -> float:
        """Now, once what was launched on the device is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.monotonic()


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What one rank knows and every rank must act on at the same step."""

    save: bool = False
    stop: bool = False
    writing: bool = False  # a checkpoint is still being written


NO_FLAGS = Flags()
SHOWN_ROWS = 4  # of a batch in a message
NUM_SUMS = 3  # of a sample: its loss, its tokens with loss, its weighted loss


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What one rank needs to train."""

    training: Training
    placement: Placement
    batching: Batching
    groups: ProcessGroupCollection
    module: HybridModel
    replica: DistributedDataParallel
    optimizer: Any
    communicator: P2PCommunicator | None  # between pipeline stages
    device: torch.device
    clock: Clock
    loss: TokenLoss
    start: StartWeights  # kept where the loss compares with them
    masks: WeightMasks

    def parts(self, *, with_optimizer: bool = True) -> Parts:
        """What a checkpoint of this engine holds, with weights that are on their way gathered."""
        if self.replica.ddp_config.overlap_param_gather:
            with torch.no_grad():
                self.replica.start_param_sync(force_sync=True)
        optimizer = self.optimizer if with_optimizer else None
        return Parts(module=self.module, optimizer=optimizer, groups=self.groups)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Numbers of one step, equal on all ranks."""

    loss: float  # mean over the tokens of the global batch that have loss, each with weight 1
    weighted_loss: float  # the same with the weights of the recipe's loss: what is descended
    loss_tokens: int
    grad_norm: float  # before clipping
    flags: Flags  # those that some rank raised
    steep_rows: (
        int  # chunks and heads, over all layers and ranks, that forget too fast for the scan
    )
    sample_losses: tuple[float, ...]  # mean loss of each sample of the global batch


def build_engine(
    model: Model,
    training: Training,
    placement: Placement,
    *,
    loss: TokenLoss = PLAIN_LOSS,
    sparsity: float = 0.0,
) -> Engine:
    """Checks the layout, joins the groups and builds this rank's part; weights are undefined."""
    batching = parallelism.check_placement(model, training, placement)
    parallelism.silence_megatron()
    torch.set_num_threads(placement.threads_per_rank)
    groups = parallelism.join_groups(placement)
    device = parallelism.current_device()
    module = build_model(model, placement, groups, precision=training.precision).to(device)
    parallelism.take_census(module, model, placement, groups)
    clock = Clock()
    module.config.finalize_model_grads_func = functools.partial(_finish_gradients, clock)
    whole = module if training.precision == "fp32" else Float16Module(module.config, module)
    replica = DistributedDataParallel(
        module.config, settings.ddp_config(placement), whole, pg_collection=groups
    )
    if placement.overlap_communication:  # buckets are sent after the last micro-batch alone
        module.config.no_sync_func = replica.no_sync
    optimizer = get_megatron_optimizer(
        settings.optimizer_config(training.optimizer, placement, precision=training.precision),
        [replica],
        use_gloo_process_groups=placement.distributed_optimizer,
    )
    communicator = None
    if placement.pipeline_parallel > 1:
        communicator = P2PCommunicator(groups.pp, module.config)
    return Engine(
        training=training,
        placement=placement,
        batching=batching,
        groups=groups,
        module=module,
        replica=replica,
        optimizer=optimizer,
        communicator=communicator,
        device=device,
        clock=clock,
        loss=loss,
        start=StartWeights(),
        masks=WeightMasks(module, sparsity=sparsity, seed=training.seed),
    )


def _finish_gradients(
    clock: Clock, model: list[Any], num_tokens: Tensor | None = None, **options: Any
) -> None:
    """Sums gradients over the ranks and divides by the tokens; one rank has nothing to sum."""
    if clock.is_on:
        clock.ended = clock.look()
    clock.on_ended()
    if dist.get_world_size() > 1:
        finalize_model_grads(model, num_tokens, **options)
        return
    assert num_tokens is not None
    if model[0].ddp_config.overlap_grad_reduce:
        model[0].finish_grad_sync()
    model[0].scale_gradients(1.0 / num_tokens.clamp(min=1))


def _micro_batches(
    engine: Engine, samples: Samples, *, first_sample: int, references: Sequence[Tensor] = ()
) -> Iterator[MicroBatch]:
    batching = engine.batching
    shares = share_of_rank(
        first_sample,
        per_rank=batching.num_micro_batches * batching.micro_sequences,
        micro_sequences=batching.micro_sequences,
        data_rank=engine.groups.dp.rank(),
    )
    has_one_stage = engine.placement.pipeline_parallel == 1  # others expect rows of one number
    for place, share in enumerate(shares):
        with_text = samples.with_text(share) if has_one_stage else share
        yield read_micro_batch(
            samples.read(with_text or share[:1]),  # at least one, for Megatron's schedule
            engine.device,
            with_resets=engine.training.reset_at_document_boundaries,
            loss=engine.loss,
            reference_BS=references[place] if references else None,
        )


def _start_losses(engine: Engine, samples: Samples, *, first_sample: int) -> list[Tensor]:
    """The loss of each token of this rank's micro-batches under the model that tuning began from.

    Empty where the recipe's loss does not need it, and before the last pipeline stage.
    """
    if not needs_start_model(engine.loss):
        return []
    if engine.replica.ddp_config.overlap_param_gather:
        engine.replica.start_param_sync(force_sync=True)

    with torch.no_grad(), engine.start.swapped_in(engine.module):
        return _run_schedule(
            engine,
            keep_losses,
            _micro_batches(engine, samples, first_sample=first_sample),
            forward_only=True,
        )


def _run_schedule(
    engine: Engine, forward: Any, batches: Iterator[MicroBatch], *, forward_only: bool
) -> list[Tensor]:
    """Megatron's schedule over the micro-batches; what the last stage keeps of each of them."""
    return get_forward_backward_func(engine.placement.pipeline_parallel)(
        forward_step_func=forward,
        data_iterator=batches,
        model=[engine.replica],
        num_microbatches=engine.batching.num_micro_batches,
        seq_length=engine.training.sequence_tokens,
        micro_batch_size=engine.batching.micro_sequences,
        forward_only=forward_only,
        pg_collection=engine.groups,
        p2p_communicator=engine.communicator,
    )


def train_step(
    engine: Engine,
    samples: Samples,
    *,
    first_sample: int,
    learning_rate: float,
    flags: Flags = NO_FLAGS,
) -> StepResult:
    """Runs forward, backward and update on the global batch that starts at `first_sample`.

    A flag of any rank reaches every rank, so that all save, or stop, at the same step.

    Raises: StageError when the loss or the gradient is not finite, with the samples.
    """
    if engine.clock.is_on:
        engine.clock.began = engine.clock.look()
    engine.replica.zero_grad_buffer()
    engine.optimizer.zero_grad()
    references = _start_losses(engine, samples, first_sample=first_sample)
    STEEP.take()
    batches = _micro_batches(engine, samples, first_sample=first_sample, references=references)
    sums = _run_schedule(engine, sum_losses, batches, forward_only=False)
    (losses, tokens, weighted), raised, steep_rows = _gather(engine, sums, flags=flags)
    _refuse_not_finite(engine, samples, losses, first_sample=first_sample)
    _refuse_nothing_to_learn(engine, samples, tokens, first_sample=first_sample)
    _set_learning_rate(engine, learning_rate)
    engine.masks.clear_gradients()
    _, grad_norm, _ = engine.optimizer.step()
    if not math.isfinite(grad_norm):
        where = f"samples {first_sample} to {first_sample + len(losses) - 1}"
        raise _not_finite(f"the gradient norm is {grad_norm}", where)
    num_tokens = int(sum(tokens))
    return StepResult(
        loss=math.fsum(losses) / num_tokens,
        weighted_loss=math.fsum(weighted) / num_tokens,
        loss_tokens=num_tokens,
        grad_norm=float(grad_norm),
        flags=raised,
        steep_rows=steep_rows,
        sample_losses=tuple(
            loss / max(count, 1.0) for loss, count in zip(losses, tokens, strict=True)
        ),
    )


def _gather(
    engine: Engine, sums: list[Tensor], *, flags: Flags
) -> tuple[list[list[float]], Flags, int]:
    """Loss, tokens and weighted loss of every sample of the global batch; of all ranks flags and
    steep rows."""
    batch, own = engine.training.global_batch_sequences, (*astuple(flags), STEEP.take())
    size = NUM_SUMS * batch
    flat = torch.zeros(size + len(own), dtype=torch.float32, device=engine.device)
    groups = engine.groups
    if sums and is_pp_last_stage(groups.pp) and groups.tp.rank() == 0:
        share = batch // engine.batching.data_parallel
        low = groups.dp.rank() * share
        micro = engine.batching.micro_sequences
        whole = [functional.pad(one, (0, micro - one.shape[1])) for one in sums]
        flat[:size].view(NUM_SUMS, batch)[:, low : low + share] = torch.cat(whole, 1)
    flat[size:] = torch.tensor(own, dtype=torch.float32)
    if dist.get_world_size() > 1:
        dist.all_reduce(flat)
    values = flat.tolist()
    save, stop, writing = (value > 0 for value in values[size:-1])
    raised = Flags(save=save, stop=stop, writing=writing)
    by_sample = [values[start : start + batch] for start in range(0, size, batch)]
    return by_sample, raised, int(values[-1])


def _set_learning_rate(engine: Engine, learning_rate: float) -> None:
    """As OptimizerParamScheduler.step: Megatron's groups carry multipliers, not rates."""
    decay = engine.training.optimizer.weight_decay
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_mult", 1.0)
        group["weight_decay"] = decay * group.get("wd_mult", 1.0)


def _refuse_not_finite(
    engine: Engine, samples: Samples, losses: list[float], *, first_sample: int
) -> None:
    bad = [row for row, loss in enumerate(losses) if not math.isfinite(loss)]
    if bad:
        where = describe_rows(engine, samples, bad, first_sample=first_sample)
        raise _not_finite(f"the loss is {losses[bad[0]]}", where)


def _refuse_nothing_to_learn(
    engine: Engine, samples: Samples, tokens: list[float], *, first_sample: int
) -> None:
    """Without gradients AdamW would still decay the weights and follow its old momentum."""
    if any(tokens):
        return
    rows = list(range(len(tokens)))
    where = describe_rows(engine, samples, rows, first_sample=first_sample)
    raise StageError(
        "training step",
        found=f"no token of its batch has loss: {where}",
        rule="each step learns from at least one token",
        do="look at the loss masks of these rows, and make their data again",
    )


def describe_rows(engine: Engine, samples: Samples, rows: list[int], *, first_sample: int) -> str:
    """Some rows of a global batch for a person: samples, documents, and who computed them."""
    share = engine.training.global_batch_sequences // engine.batching.data_parallel
    shown = "; ".join(
        f"{samples.describe(first_sample + row)} on data rank {row // share}"
        for row in rows[:SHOWN_ROWS]
    )
    return shown + (f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else "")


def _not_finite(what: str, where: str) -> StageError:
    return StageError(
        "training step",
        found=f"{what} at {where}",
        rule="loss and gradient are finite numbers",
        do="lower the learning rate or look at these samples; the last checkpoint is kept",
    )
