"""Checks that measure steps of the engine: the 8B's widths, kernels, torch, stock layers, FP8.

The step is the engine's own (`train_step`): forward, backward, clipping, AdamW, one GPU.
"""

import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from frontload.megatron_ext import cpu

cpu.prepare()

from frontload.megatron_ext.model import stack  # noqa: E402
from frontload.megatron_ext.model.stack import global_names  # noqa: E402
from frontload.megatron_ext.ranks.parallelism import silence_megatron  # noqa: E402
from frontload.megatron_ext.sizing.memory import GIB, stage_memory  # noqa: E402
from frontload.megatron_ext.training.datasets import Rows  # noqa: E402
from frontload.megatron_ext.training.engine import Engine, build_engine, train_step  # noqa: E402
from frontload.recipes.facts.census import count_parameters, training_flops_per_token  # noqa: E402
from frontload.recipes.facts.layout import cut_batch  # noqa: E402
from frontload.recipes.grammar.load import find_recipe, load_recipe  # noqa: E402
from frontload.recipes.machines.cluster import MAMBA_SSM, TORCH, TRANSFORMER_ENGINE  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from frontload.recipes.machines.precision import find_precision  # noqa: E402
from frontload.recipes.runs.training import PretrainRecipe  # noqa: E402
from frontload.recipes.schema import Model, Training  # noqa: E402
from tests.gpu.compare import load_model  # noqa: E402
from tests.gpu.findings import (  # noqa: E402
    MEASURED,
    CouldNotRun,
    Finding,
    Rate,
    kind_of,
    mfu_findings,
    ratio_finding,
    within_share,
)
from tests.gpu.products import CEILING, FP8_GOAL  # noqa: E402
from tests.gpu.proof import KERNELS, SCAN  # noqa: E402

MFU_GOAL, STOCK_GOAL = 0.45, 1.0  # the project's, for one H100 or H200
MEMORY_SHARE, ESTIMATE_SHARE = 0.9, 0.15  # of the GPU that a slice may fill; of the estimate
LEAST_LAYERS = 8  # of a slice: `M-M-M-M*` is the 8B's first attention layer
WARM_STEPS = 2
MOST_LAYERS = 16  # of it: more say no more of the MFU, and take longer
TOP_KERNELS = 15


@dataclass(frozen=True, kw_only=True)
class Job:
    """What steps are measured on."""

    model: Model
    precision: str = "bf16"
    kernels: str = TORCH
    sequence_tokens: int = 8_192  # the paper's
    sequences: int = 4  # of a step
    micro_sequences: int = 1  # 0: all of them at a time
    steps: int = 6
    with_resets: bool = True  # the torch layers go without: their mask is a square of S

    @property
    def placement(self) -> Placement:
        micro = self.micro_sequences
        return Placement(name="proof", micro_batch_sequences=micro, kernels=self.kernels)

    @property
    def training(self) -> Training:
        """The paper's optimizer."""
        return replace(
            paper_training(),
            sequence_tokens=self.sequence_tokens,
            global_batch_sequences=self.sequences,
            precision=self.precision,
            reset_at_document_boundaries=self.with_resets and self.kernels != TORCH,
        )


def paper_training() -> Training:
    """Of the recipe pretrain_8b_base."""
    path = find_recipe("training", "pretrain_8b_base")
    assert path is not None
    return load_recipe(path, PretrainRecipe).value.training()


class RandomRows:
    """Random tokens in documents of about 1,000."""

    def __init__(self, job: Job) -> None:
        rng = np.random.default_rng(0)
        shape = (job.sequences, job.sequence_tokens)
        tokens = rng.integers(0, job.model.vocab_size, (shape[0], shape[1] + 1))
        self.num_samples = job.sequences
        self._rows = Rows(
            tokens_BS=tokens[:, :-1],
            labels_BS=tokens[:, 1:],
            loss_mask_BS=np.ones(shape, np.float32),
            document_ids_BS=(rng.random(shape) < 1e-3).cumsum(1).astype(np.int32),
        )

    def read(self, samples: Sequence[int]) -> Rows:
        at = np.asarray(samples) % self.num_samples
        whole = self._rows
        return Rows(
            tokens_BS=whole.tokens_BS[at],
            labels_BS=whole.labels_BS[at],
            loss_mask_BS=whole.loss_mask_BS[at],
            document_ids_BS=whole.document_ids_BS[at],
        )

    def with_text(self, samples: range) -> range:
        return samples

    def describe(self, sample: int) -> str:
        return f"random row {sample}"


def look() -> float:
    """Now, once the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def machine_of(facts: dict[str, Any]) -> dict[str, Any]:
    """What the probe saw."""
    return facts["machine"]


def best_kernels(facts: dict[str, Any]) -> str:
    """The first set of kernels whose packages are all there, else the torch layers."""
    packages = machine_of(facts)["packages"]
    for kernels, needs in ((TRANSFORMER_ENGINE, KERNELS), (MAMBA_SSM, SCAN)):
        if all(name in packages for name in needs):
            return kernels
    return TORCH


# ---------------------------------------------------------------- steps of the engine


def build_job(job: Job) -> Engine:
    """An engine with weights drawn on the device: drawing 8B numbers on a CPU takes minutes."""
    silence_megatron()
    engine = build_engine(job.model, job.training, job.placement)
    with torch.no_grad():
        for name, parameter in global_names(engine.module).items():
            if "norm" in name or name.endswith(".D"):
                parameter.fill_(1.0)
            elif name.endswith("A_log"):
                parameter.uniform_(1.0, 16.0).log_()
            elif name.endswith("dt_bias"):
                parameter.fill_(-4.6)  # a step of 0.01 after softplus
            else:
                parameter.normal_(0.0, job.model.init_std)
    engine.optimizer.reload_model_params()
    return engine


def take_steps(engine: Engine, rows: RandomRows, steps: int) -> list[float]:
    """Seconds of each step."""
    seconds = []
    for _ in range(steps):
        began = look()
        train_step(engine, rows, first_sample=0, learning_rate=1e-4)
        seconds.append(look() - began)
    return seconds


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of a job's steps."""

    rate: Rate
    peak_gib: float  # 0 on a CPU
    top: str = ""  # the kernels that took longest, if they were asked for


def measure_job(job: Job, *, is_profiled: bool = False) -> Measured:
    """Speed and memory of a job's steps; frees it after."""
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    engine = build_job(job)
    rows = RandomRows(job)
    take_steps(engine, rows, WARM_STEPS)
    seconds = take_steps(engine, rows, job.steps)
    peak = torch.cuda.max_memory_allocated() / GIB if on_cuda else 0.0
    top = profile_step(engine, rows) if is_profiled else ""
    del engine
    gc.collect()
    if on_cuda:
        torch.cuda.empty_cache()
    rate = Rate(
        tokens=job.sequences * job.sequence_tokens,
        seconds=tuple(seconds),
        flops_per_token=training_flops_per_token(job.model, job.sequence_tokens),
    )
    return Measured(rate=rate, peak_gib=peak, top=top)


def profile_step(engine: Engine, rows: RandomRows) -> str:
    """The kernels of one step that took longest, with their share of all, the longest first."""
    on_cuda = torch.cuda.is_available()
    activity = ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as found:
        take_steps(engine, rows, 1)

    def own(event: Any) -> float:
        return event.self_device_time_total if on_cuda else event.self_cpu_time_total

    events = sorted(found.key_averages(), key=own, reverse=True)
    whole = sum(map(own, events)) or 1.0
    return "; ".join(f"{event.key[:40]} {own(event) / whole:.1%}" for event in events[:TOP_KERNELS])


def estimated_gib(job: Job) -> float:
    """What `frontload estimate` says of the tensors; its reserve for CUDA itself is not in it."""
    (stage,) = stage_memory(
        job.model,
        job.training,
        placement=job.placement,
        batching=cut_batch(job.model, job.training, placement=job.placement),
        precision=find_precision(job.precision),
    )
    return stage.total / GIB


def fitting_slice(job: Job, memory_bytes: float) -> Job:
    """The job with as many of the first layers as fit by the estimate, in whole `M-` pairs."""
    pattern = job.model.pattern
    most = min(MOST_LAYERS, len(pattern))
    for layers in range(most, min(LEAST_LAYERS, len(pattern)) - 1, -1):
        cut = replace(job, model=replace(job.model, pattern=pattern[:layers]))
        if pattern[layers - 1] == "-" and estimated_gib(cut) * GIB <= MEMORY_SHARE * memory_bytes:
            return cut
    raise CouldNotRun(f"{LEAST_LAYERS} layers of {job.model.hidden_size} do not fit into this GPU")


def step_findings(
    facts: dict[str, Any], job: Job, *, check: str, goal: float = 0.0
) -> Iterator[Finding]:
    """Speed, MFU and memory of a job."""
    found = measure_job(job, is_profiled=True)
    rate, peak = found.rate, found.peak_gib
    total = count_parameters(job.model).total / 1e9
    figure = (
        f"{rate.tokens_per_second:,.0f} tokens/s, {rate.tflops:.0f} TFLOP/s: "
        f"{len(job.model.pattern)} layers, {total:.2f} B parameters, {job.kernels} layers, "
        f"{job.sequences} x {job.sequence_tokens} tokens a step"
    )
    yield Finding(check=f"{check}: speed", result=MEASURED, figure=figure)
    kind = kind_of(machine_of(facts)["device"])
    yield from mfu_findings(check, rate, kind=kind, ceiling=facts.get(CEILING), goal=goal)
    yield Finding(check=f"{check}: where a step's time goes", result=MEASURED, figure=found.top)
    if peak:
        yield within_share(
            f"{check}: peak memory", peak, estimated_gib(job), share=ESTIMATE_SHARE, unit="GiB"
        )


def slice_8b(facts: dict[str, Any], job: Job | None = None) -> Iterator[Finding]:
    """The 8B's widths and its first layers. The goal is the kernels': torch layers have none."""
    job = job or Job(model=load_model("hybrid_8b"), kernels=best_kernels(facts))
    fitting = fitting_slice(job, machine_of(facts)["memory_bytes"])
    goal = 0.0 if fitting.kernels == TORCH else MFU_GOAL
    yield from step_findings(facts, fitting, check="8B slice, BF16", goal=goal)


def kernels_and_torch(
    facts: dict[str, Any], job: Job | None = None, *, kernels: str = ""
) -> Iterator[Finding]:
    """Steps of the shortest slice in both; the torch layers without resets, whose mask is large."""
    job = job or Job(model=load_model("hybrid_8b"))
    pattern = job.model.pattern[:LEAST_LAYERS]
    job = replace(job, model=replace(job.model, pattern=pattern), sequences=2, steps=3)
    kernels = kernels or best_kernels(facts)
    ours, plain = (measure_job(replace(job, kernels=name)).rate for name in (kernels, TORCH))
    words = f"the speed of torch layers ({len(pattern)} layers, {kernels})"
    goal = 1.0 if kind_of(machine_of(facts)["device"]) else 0.0
    yield ratio_finding("kernels over torch", ours.seconds, plain.seconds, goal=goal, words=words)


def stock_spec(
    facts: dict[str, Any], job: Job | None = None, *, spec: Any = None
) -> Iterator[Finding]:
    """Megatron's own layer specification and ours in the same loop, steps in turn, no resets."""
    del facts
    job = job or Job(model=load_model("hybrid_1b"), kernels=TRANSFORMER_ENGINE, sequences=8)
    job = replace(job, steps=8, with_resets=False)
    if spec is None:
        from megatron.core.models.hybrid.hybrid_layer_specs import hybrid_stack_spec

        spec = hybrid_stack_spec
    engines = [build_job(job)]
    builder = "layer_specs" if job.kernels == TORCH else "kernel_specs"
    with mock.patch.object(stack, builder, return_value=spec):
        engines.append(build_job(job))
    rows = RandomRows(job)
    seconds: list[list[float]] = [[], []]
    for turn, (which, engine) in itertools.product(
        range(WARM_STEPS + job.steps), enumerate(engines)
    ):
        taken = take_steps(engine, rows, 1)
        seconds[which] += taken if turn >= WARM_STEPS else []
    words = f"the speed of megatron-core's stock layers ({len(job.model.pattern)} layers)"
    yield ratio_finding("ours over stock", *seconds, goal=STOCK_GOAL, words=words)


def fp8(
    facts: dict[str, Any],
    job: Job | None = None,
    precisions: Sequence[str] = ("nemotron_h_current_scaling", "nano2_blockwise"),
) -> Iterator[Finding]:
    """Each FP8 precision over BF16 on one slice of the 8B, one after the other, BF16 first."""
    job = job or Job(model=load_model("hybrid_8b"), kernels=TRANSFORMER_ENGINE)
    job = replace(job, sequences=2, steps=5)
    memory = machine_of(facts)["memory_bytes"]
    cuts = [fitting_slice(replace(job, precision=name), memory) for name in precisions]
    shortest = min((cut.model for cut in cuts), key=lambda model: len(model.pattern))
    job = replace(job, model=shortest)
    base = measure_job(job).rate
    for name in precisions:
        rate = measure_job(replace(job, precision=name)).rate
        words = f"the speed of BF16, {rate.tokens_per_second:,.0f} tokens/s, "
        words += f"{len(shortest.pattern)} layers of the 8B's width"
        yield ratio_finding(f"FP8 {name}", rate.seconds, base.seconds, goal=FP8_GOAL, words=words)
