"""The check that trains: 500 steps of the study `single_gpu`, its data and its runs made by stages.

What runs is `frontload run` without its command line: workers of their own, on the GPU for training
and beside it for data, the trunk, and the branch that starts from the trunk's checkpoint.
"""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frontload.launch.stage.jobs import Finished, Tick
from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import check_crew, find_crew
from frontload.launch.study.runner import Settings, run_stages
from frontload.launch.study.settle import settle
from frontload.megatron_ext.training.datasets import BlendSamples
from frontload.recipes.stage import Stage
from frontload.recipes.study.expand import in_order, load_study
from tests.gpu.findings import Finding, judge
from tests.gpu.speed import best_kernels

STEPS = 500
SHORT = (  # 300 steps of the trunk and 200 of a branch, on as much data as the arms ask for
    "seeds=[1]", "pretraining.tokens=16_384_000", "synthesis.base_tokens=16_600_000",
    "synthesis.ldq.tokens=2_800_000", "synthesis.shq.tokens=180_000",
)  # fmt: skip
BRANCH = "lmq-seed1"
COUNTED_ROWS = 20_000  # of the branch's samples, for the bound


class Quiet:
    """A watcher that shows nothing."""

    def started(self, stage: Stage) -> None: ...
    def ticked(self, stage: Stage, tick: Tick) -> None: ...
    def finished(self, stage: Stage, end: Finished) -> None: ...
    def waited(self) -> None: ...


def train_500(
    facts: dict[str, Any],
    study: str = "single_gpu",
    *,
    overrides: Sequence[str] = SHORT,
    kernels: str = "",
) -> Iterator[Finding]:
    """Whether a proxy learns more of its last phase than what follows each token most often."""
    kernels = f"placement.kernels={kernels or best_kernels(facts)}"
    found = load_study(study, overrides=[*overrides, kernels], settle=settle)
    branch = next(one for one in found.stages if (one.kind, one.label) == ("pretrain", BRANCH))
    trunk = branch.inputs["start"]
    crew = find_crew(found.placements.default)
    check_crew(found.placements.default, crew)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        settings = Settings(placements=found.placements, workers=crew.workers, gpus=crew.gpus)
        summary = run_stages(in_order([branch]), store, settings=settings, watcher=Quiet())
        for error in summary.failed.values():
            raise error
        losses = [*read_losses(store, trunk), *read_losses(store, branch)]
        bound = pair_entropy(store, branch)
        rate = tokens_per_second(store, branch)
    yield compare_losses(losses, bound=bound, words=f"{rate:,.0f} tokens/s, {kernels}")


def compare_losses(losses: Sequence[float], *, bound: float, words: str) -> Finding:
    """The mean of the last tenth against the bound."""
    tenth = max(1, len(losses) // 10)
    last = math.fsum(losses[-tenth:]) / tenth
    return judge(
        f"{len(losses)} steps of the study on the data of its stages",
        figure=f"loss {losses[0]:.2f} -> {last:.2f} nats a token (mean of {tenth}), {words}",
        goal=f"< {bound:.2f}: what the token before alone would give",
        is_met=last < bound,
    )


def read_losses(store: Store, stage: Stage) -> list[float]:
    """The loss of every step, as the stage logged it."""
    lines = (store.root / stage.folder / "metrics.jsonl").read_text().splitlines()
    found: list[Mapping[str, float]] = [json.loads(line) for line in lines]
    assert [line["step"] for line in found] == list(range(1, len(found) + 1))
    return [line["train/loss"] for line in found]


def pair_entropy(store: Store, stage: Stage) -> float:
    """Nats a token when only the token before it is known, over a stage's own samples."""
    inputs = {role: store.root / below.folder for role, below in stage.inputs.items()}
    samples = BlendSamples(inputs["blend"], inputs)
    rows = samples.read(range(min(stage.recipe.num_samples, COUNTED_ROWS)))
    size = stage.recipe.model.vocab_size
    pairs = np.bincount((rows.tokens_BS * size + rows.labels_BS).ravel(), minlength=size * size)
    counts = pairs.reshape(size, size).astype(np.float64)
    before = counts.sum(1, keepdims=True)
    share = np.divide(counts, before, out=np.ones_like(counts), where=before > 0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return float(-(counts * logs).sum() / counts.sum())


def tokens_per_second(store: Store, stage: Stage) -> float:
    """The last rate that training told, or 0 for a run too short to tell one."""
    path = store.telemetry_file(Ticket.of(stage), "jsonl")
    lines = path.read_text().splitlines() if path.is_file() else []
    rates = [json.loads(line).get("system/tokens_per_second", 0.0) for line in lines]
    return max(rates, default=0.0)
