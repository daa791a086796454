"""The training loop: steps, schedule, metrics, and checkpoints from which it goes on exactly."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from frontload.megatron_ext.checkpoints import save
from frontload.megatron_ext.checkpoints.saver import Saver, newest_whole
from frontload.megatron_ext.model.stack import initialise_weights
from frontload.megatron_ext.training import pace
from frontload.megatron_ext.training.datasets import Samples
from frontload.megatron_ext.training.engine import (
    SHOWN_ROWS,
    Engine,
    Flags,
    StepResult,
    build_engine,
    describe_rows,
    train_step,
)
from frontload.megatron_ext.training.schedule import check_schedule, learning_rate
from frontload.megatron_ext.training.spikes import SpikeWatch
from frontload.recipes.artifact import Part, Workspace, write_json
from frontload.recipes.errors import ArtifactError, RecipeError, StageError, Stopped
from frontload.recipes.facts.census import count_masked
from frontload.recipes.schema import Model, Training
from frontload.recipes.token_losses import PLAIN_LOSS, TokenLoss, needs_start_model

TELEMETRY_SECONDS = 1.0  # system metrics at most this often


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What a training stage asks of the loop."""

    model: Model
    training: Training
    samples: Samples
    num_samples: int
    start_sample: int  # position in the schedule before the first step
    start: Path | None  # checkpoint artifact to begin from
    optimizer_continues: bool  # `start` also gives the optimizer, and the result keeps it
    loss: TokenLoss = PLAIN_LOSS
    sparsity: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Telemetry:
    at: float
    rows: int = 0  # with text, since then


def train(job: TrainingJob, work: Workspace) -> None:
    """Trains from the last checkpoint of this stage, or from its beginning, and publishes.

    Randomness: none is drawn while training (no dropout, the order of samples is data), so the
    state of a run is weights, optimizer and position; the generator's state is kept all the same.

    Raises: Stopped when some rank was asked to end, after a checkpoint of the step it was at.
    """
    work.mark(Part.START, step=0)
    _check(job)
    torch.manual_seed(job.training.seed)
    engine = build_engine(
        job.model, job.training, work.placement, loss=job.loss, sparsity=job.sparsity
    )
    saver = Saver(work, engine.parts)
    leader = dist.get_rank() == 0
    done, watch = _begin(job, engine, work)
    if leader:
        work.rewind(done // job.training.global_batch_sequences)
    telemetry = _Telemetry(at=time.monotonic())
    part = Part.FIRST_STEP
    while done < job.num_samples:
        step = done // job.training.global_batch_sequences + 1
        work.mark(part, step=step)
        engine.clock.is_on = pace.is_due(step, work.placement.upkeep)
        flags = Flags(
            save=leader and saver.is_due(step), stop=work.stop_asked(), writing=saver.is_writing()
        )
        result = _step(job, engine, done, flags=flags)
        done += job.training.global_batch_sequences
        if leader:
            _report(job, work, done=done, result=result)
            telemetry = _report_speed(job, work, telemetry, done)
        _refuse_spike(job, engine, watch, result=result, done=done)
        if engine.clock.is_on:
            pace.log_pace(engine, work, step)
        if not result.flags.writing:
            saver.finish()
        if (result.flags.save or result.flags.stop) and done < job.num_samples:
            saver.save(step, _state(done, watch))
            if result.flags.stop:
                saver.finish()
                raise _stopped(work, step)
        part, engine.clock.on_ended = Part.STEP, partial(work.mark, Part.EXCHANGE)
    saver.finish()
    work.mark(Part.PUBLISH)
    _publish(job, engine, work)


def _check(job: TrainingJob) -> None:
    check_schedule(job.training.schedule)
    batch, found = job.training.global_batch_sequences, job.samples.num_samples
    if job.num_samples % batch or job.num_samples < 1:
        raise RecipeError(
            "num_samples",
            found=f"is {job.num_samples} with training.global_batch_sequences {batch}",
            rule="a stage is a whole number of batches",
            do=f"use a multiple of {batch}",
        )
    if found < job.num_samples:
        raise ArtifactError(
            "training data",
            found=f"{found} samples",
            rule=f"the recipe trains on {job.num_samples}",
            do="raise the data's token budget or lower num_samples",
        )


def _step(job: TrainingJob, engine: Engine, done: int, *, flags: Flags) -> StepResult:
    training = job.training
    after = job.start_sample + done + training.global_batch_sequences
    try:
        return train_step(
            engine,
            job.samples,
            first_sample=done,
            learning_rate=learning_rate(training.optimizer, training.schedule, after),
            flags=flags,
        )
    except StageError as error:
        step = done // training.global_batch_sequences + 1
        asked = f"rank {dist.get_rank()}, step {step}"
        raise StageError(asked, found=error.found, rule=error.rule, do=error.do) from error


def _begin(job: TrainingJob, engine: Engine, work: Workspace) -> tuple[int, SpikeWatch]:
    """Loads or draws the weights; the samples already consumed, and the losses before them."""
    upkeep = work.placement.upkeep
    folder = newest_whole(work.scratch)
    if needs_start_model(job.loss):
        assert job.start is not None, "the loss of fine-tuning, which has a start"
        save.check_same_model(job.start, job.model)
        save.load_weights(job.start / save.WEIGHTS, engine.parts(with_optimizer=False))
        engine.start.keep(engine.module)
    if folder is not None:
        state = save.load_weights(folder, engine.parts())
        engine.masks.refuse_dense(str(folder))
        torch.set_rng_state(state["rng"])
        return int(state["samples"]), SpikeWatch(upkeep, state.get("losses", ()))
    has_masters = False  # in float32, by which bf16 weights move: loaded with the optimizer
    if job.start is None:
        initialise_weights(engine.module, job.model, job.training.seed)
        engine.masks.clear_weights()
    else:
        save.check_same_model(job.start, job.model)
        parts = engine.parts(with_optimizer=job.optimizer_continues)
        save.load_weights(job.start / save.WEIGHTS, parts)
        engine.masks.refuse_dense(str(job.start))
        has_masters = job.optimizer_continues
    if not has_masters:
        engine.optimizer.reload_model_params()
    return 0, SpikeWatch(upkeep)


def _state(done: int, watch: SpikeWatch) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": done, "rng": torch.get_rng_state()}
    return {**found, "losses": watch.losses} if watch.losses else found


def _stopped(work: Workspace, step: int) -> Stopped:
    return Stopped(
        f"training {work.key}",
        found=f"was asked to stop at step {step}",
        rule="a run that is asked to stop saves itself first",
        do="start it again; it goes on from this step",
    )


def _refuse_spike(
    job: TrainingJob, engine: Engine, watch: SpikeWatch, *, result: StepResult, done: int
) -> None:
    """Every rank has the same losses, so all of them stop at the same step."""
    limit = watch.limit()
    if limit is None or result.loss <= limit:
        watch.add(result.loss)
        return
    batch = job.training.global_batch_sequences
    worst = sorted(range(batch), key=lambda row: -result.sample_losses[row])
    where = describe_rows(engine, job.samples, worst[:SHOWN_ROWS], first_sample=done - batch)
    raise StageError(
        f"rank {dist.get_rank()}, step {done // batch}",
        found=f"the loss rose to {result.loss:.4f}, most of it at {where}",
        rule=f"a loss above {limit:.4f} is a spike by upkeep.spike_deviations and _window_steps",
        do="look at these samples and ranks; the last checkpoint is kept. To go on all the same,"
        " raise upkeep.spike_deviations",
    )


def _report(job: TrainingJob, work: Workspace, *, done: int, result: StepResult) -> None:
    training = job.training
    batch = training.global_batch_sequences
    step = done // batch
    rate = learning_rate(training.optimizer, training.schedule, job.start_sample + done)
    work.log(
        step,
        train__loss=result.loss,
        train__grad_norm=result.grad_norm,
        train__learning_rate=rate,
        data__samples=job.start_sample + done,
        data__loss_tokens=result.loss_tokens,
        **({"train__steep_rows": result.steep_rows} if result.steep_rows else {}),
        **({"train__weighted_loss": result.weighted_loss} if job.loss != PLAIN_LOSS else {}),
    )
    work.progress(done, job.num_samples, note=f"loss {result.loss:.3f}")


def _report_speed(job: TrainingJob, work: Workspace, last: _Telemetry, done: int) -> _Telemetry:
    now, batch = time.monotonic(), job.training.global_batch_sequences
    rows = last.rows + len(job.samples.with_text(range(done - batch, done)))
    if now - last.at < TELEMETRY_SECONDS:
        return _Telemetry(at=last.at, rows=rows)
    rate = rows * job.training.sequence_tokens / (now - last.at)
    work.log(
        done // batch,
        system__tokens_per_second=rate,
        **pace.utilisation(job.model, job.training, work.placement, rate=rate),
    )
    return _Telemetry(at=now)


def _publish(job: TrainingJob, engine: Engine, work: Workspace) -> None:
    parts = engine.parts(with_optimizer=job.optimizer_continues)
    samples = job.start_sample + job.num_samples
    save.save_weights(work.path / save.WEIGHTS, parts, state={"samples": samples})
    if dist.get_rank() == 0:
        training = job.training
        save.write_model(work.path, job.model)
        state = {
            "key": work.key,
            "samples": samples,
            "samples_of_stage": job.num_samples,
            "steps_of_stage": job.num_samples // training.global_batch_sequences,
            "tokens": samples * training.sequence_tokens,
            "learning_rate": learning_rate(training.optimizer, training.schedule, samples),
            "has_optimizer": job.optimizer_continues,
        }
        if job.sparsity:
            masked = count_masked(job.model, job.sparsity)
            state |= {"sparsity": job.sparsity, "masked_weights": masked}
        write_json(work.path / "training_state.json", state)
