"""Training tokens/s: the Megatron engine against the same layers in bare PyTorch with fused AdamW.

Both sides read the same rows and start from the same weights; their losses must be equal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bare_model import BareModel
from paired import measure, show

from frontload.megatron_ext import cpu
from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Model, Optimizer, Schedule, Training
from frontload.recipes.study.expand import load_study

LARGE = Model(
    pattern="M-M*M-M-", hidden_size=128, ffn_hidden_size=512, num_attention_heads=4,
    num_query_groups=2, kv_channels=32, mamba_num_heads=8, mamba_head_dim=32, mamba_state_dim=32,
    mamba_num_groups=1, mamba_chunk_tokens=32, vocab_size=2048, max_sequence_tokens=256,
    tie_embeddings=True, norm_epsilon=1e-5, init_std=0.02, embedding_init_std=0.02,
)  # fmt: skip
LEARNING_RATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class RandomRows:
    """Random tokens in documents of about 40, the same for both sides."""

    tokens: np.ndarray
    document_ids: np.ndarray
    num_samples: int

    def read(self, samples: Sequence[int]) -> object:
        from frontload.megatron_ext.training.datasets import Rows

        at = np.asarray(samples) % len(self.tokens)
        return Rows(
            tokens_BS=self.tokens[at, :-1],
            labels_BS=self.tokens[at, 1:],
            loss_mask_BS=np.ones_like(self.tokens[at, 1:], np.float32),
            document_ids_BS=self.document_ids[at],
        )

    def with_text(self, samples: range) -> range:
        return samples

    def describe(self, sample: int) -> str:
        return f"random row {sample}"


def random_rows(model: Model, batch: int) -> RandomRows:
    rng = np.random.default_rng(0)
    shape = (4 * batch, model.max_sequence_tokens)
    tokens = rng.integers(0, model.vocab_size, (shape[0], shape[1] + 1))
    ids = (rng.random(shape) < 1 / 40).cumsum(1).astype(np.int32)
    return RandomRows(tokens=tokens, document_ids=ids, num_samples=10**9)


def training(model: Model, batch: int) -> Training:
    optimizer = Optimizer(
        learning_rate=LEARNING_RATE, min_learning_rate=0.0, adam_beta1=0.9, adam_beta2=0.95,
        adam_epsilon=1e-8, weight_decay=0.1, clip_grad=1.0,
    )  # fmt: skip
    schedule = Schedule(kind="constant", warmup_share=0.0, decay_share=0.0, total_samples=10**9)
    return Training(
        sequence_tokens=model.max_sequence_tokens, global_batch_sequences=batch,
        optimizer=optimizer, schedule=schedule, precision="fp32",
        reset_at_document_boundaries=True, seed=1,
    )  # fmt: skip


def engine_steps(model: Model, rows: RandomRows, batch: int) -> tuple[Callable[[], float], dict]:
    """A step of the engine, and its first weights."""
    from frontload.megatron_ext.model.stack import initialise_weights
    from frontload.megatron_ext.training.engine import build_engine, train_step

    engine = build_engine(model, training(model, batch), Placement())
    initialise_weights(engine.module, model, 1)
    engine.optimizer.reload_model_params()
    weights = {name: p.detach().clone() for name, p in engine.module.named_parameters()}
    position = iter(range(0, 10**9, batch))

    def step() -> float:
        first = next(position)
        return train_step(engine, rows, first_sample=first, learning_rate=LEARNING_RATE).loss

    return step, weights


def bare_steps(model: Model, rows: RandomRows, batch: int, *, weights: dict) -> Callable[[], float]:
    bare = BareModel(model)
    missing, unexpected = bare.load_state_dict(weights, strict=False)
    assert not unexpected
    assert missing in ([], ["output_layer.weight"])
    flat = [p for p in bare.parameters() if p.ndim == 1]
    wide = [p for p in bare.parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW(
        [{"params": wide, "weight_decay": 0.1}, {"params": flat, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        betas=(0.9, 0.95),
        fused=True,
    )
    position = iter(range(0, 10**9, batch))

    def step() -> float:
        first = next(position)
        read = rows.read(range(first, first + batch))
        tokens, labels, ids = (
            torch.from_numpy(a) for a in (read.tokens_BS, read.labels_BS, read.document_ids_BS)
        )
        loss = bare(tokens, labels, ids)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def compare(title: str, model: Model, *, batch: int, rounds: int, calls: int, goal: float) -> None:
    rows = random_rows(model, batch)
    engine, weights = engine_steps(model, rows, batch)
    bare = bare_steps(model, rows, batch, weights=weights)
    for number in range(4):
        ours, theirs = engine(), bare()
        assert abs(ours - theirs) < 2e-4, f"step {number}: losses {ours} and {theirs} differ"
    timings = measure({"bare PyTorch, fused AdamW": bare, "engine": engine}, rounds=rounds,
                      calls=calls)  # fmt: skip
    tokens = batch * model.max_sequence_tokens
    size = sum(weight.numel() for weight in weights.values())
    show(
        f"{title}: {size:,} parameters, {batch} x {model.max_sequence_tokens} tokens a step "
        f"(goal: {goal}); first losses equal",
        timings,
        base="bare PyTorch, fused AdamW",
        tokens=tokens,
    )


def main() -> None:
    cpu.prepare()
    laptop = load_study("laptop").recipe
    batch = laptop.pretraining.global_batch_sequences
    compare("laptop study's shape", laptop.model, batch=batch, rounds=15, calls=4, goal=0.88)
    compare("a million parameters", LARGE, batch=16, rounds=5, calls=1, goal=0.92)


if __name__ == "__main__":
    main()
