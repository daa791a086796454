"""The check that trains: 500 steps of a proxy on the checkout's own text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from frontload.megatron_ext import cpu

cpu.prepare()

from frontload.megatron_ext.census import count_parameters  # noqa: E402
from frontload.megatron_ext.datasets import Rows  # noqa: E402
from frontload.megatron_ext.engine import train_step  # noqa: E402
from frontload.megatron_ext.schedule import learning_rate  # noqa: E402
from tests.gpu.compare import load_model  # noqa: E402
from tests.gpu.findings import Finding, judge  # noqa: E402
from tests.gpu.speed import Job, best_kernels, build_job, look  # noqa: E402

ROOMS = ("recipes", "data_tools", "megatron_ext", "eval", "rl", "launch")


class OwnText:
    """This checkout's own text, a byte a token, in one order for all steps."""

    def __init__(self, sequence_tokens: int) -> None:
        root = Path(__file__).resolve().parents[2]
        files = sorted(path for room in ROOMS for path in (root / room).rglob("*.py"))
        text = b"\n".join(path.read_bytes() for path in files)
        self.bytes = np.frombuffer(text, np.uint8)
        self.num_samples = (len(self.bytes) - 1) // sequence_tokens
        self._order = np.random.default_rng(1).permutation(self.num_samples)
        self._size = sequence_tokens

    def entropy(self) -> float:
        """Nats a byte when only the frequencies of bytes are known."""
        share = np.bincount(self.bytes) / len(self.bytes)
        share = share[share > 0]
        return float(-(share * np.log(share)).sum())

    def read(self, samples: Sequence[int]) -> Rows:
        starts = self._order[np.asarray(samples) % self.num_samples] * self._size
        rows = np.stack([self.bytes[at : at + self._size + 1] for at in starts]).astype(np.int64)
        shape = (len(rows), self._size)
        return Rows(
            tokens_BS=rows[:, :-1],
            labels_BS=rows[:, 1:],
            loss_mask_BS=np.ones(shape, np.float32),
            document_ids_BS=np.zeros(shape, np.int32),
        )

    def describe(self, sample: int) -> str:
        return f"piece {sample} of the checkout's text"


def train_500(
    facts: dict[str, Any], job: Job | None = None, *, steps: int = 500
) -> Iterator[Finding]:
    """hybrid_15m on bytes of this checkout, WSD. No study: none for one GPU is there yet."""
    job = job or Job(
        model=load_model("hybrid_15m"), kernels=best_kernels(facts), sequence_tokens=512,
        sequences=16, micro_sequences=0,
    )  # fmt: skip
    text = OwnText(job.sequence_tokens)
    schedule = replace(
        job.training.schedule, warmup_share=0.04, total_samples=steps * job.sequences
    )
    optimizer = replace(job.training.optimizer, learning_rate=2e-3, min_learning_rate=2e-5)
    engine = build_job(job)
    losses, began = [], look()
    for step in range(steps):
        rate = learning_rate(optimizer, schedule, (step + 1) * job.sequences)
        first = step * job.sequences
        losses.append(train_step(engine, text, first_sample=first, learning_rate=rate).loss)
    seconds = look() - began
    tenth = max(1, steps // 10)
    last = math.fsum(losses[-tenth:]) / tenth
    bound = text.entropy()
    yield judge(
        f"{steps} steps of a proxy on this checkout's bytes",
        figure=f"loss {losses[0]:.2f} -> {last:.2f} nats a byte (mean of the last {tenth}), "
        f"{seconds:.0f} s, {count_parameters(job.model).total / 1e6:.1f} M parameters, "
        f"{job.kernels} layers",
        goal=f"< {bound:.2f}: what the bytes' frequencies alone would give",
        is_met=last < bound,
    )
