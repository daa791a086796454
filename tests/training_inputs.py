"""Small training inputs in the formats of the blend and pack artifacts, and a plain workspace."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.packing.steps import StepBudget, cut_steps
from frontload.recipes.artifact import PACK_STEPS, Part
from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Model, Optimizer, Pretrain, Schedule, Sft, Training

SEQUENCE, BATCH, VOCABULARY = 32, 4, 112
CODES = {"uint8": 1, "int32": 4, "uint16": 8}


def tiny_model(**changes: Any) -> Model:
    values: dict[str, Any] = {
        "pattern": "M-*M",
        "hidden_size": 32,
        "ffn_hidden_size": 64,
        "num_attention_heads": 4,
        "num_query_groups": 2,
        "kv_channels": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "mamba_state_dim": 16,
        "mamba_num_groups": 2,
        "mamba_chunk_tokens": 8,
        "vocab_size": VOCABULARY,
        "max_sequence_tokens": SEQUENCE,
        "tie_embeddings": False,
        "norm_epsilon": 1e-5,
        "init_std": 0.1,
        "embedding_init_std": 0.5,
    }
    return Model(**(values | changes))


def tiny_training(total_samples: int, **changes: Any) -> Training:
    values: dict[str, Any] = {
        "sequence_tokens": SEQUENCE,
        "global_batch_sequences": BATCH,
        "optimizer": Optimizer(
            learning_rate=5e-3,
            min_learning_rate=5e-4,
            adam_beta1=0.9,
            adam_beta2=0.95,
            adam_epsilon=1e-8,
            weight_decay=0.1,
            clip_grad=0.5,
        ),
        "schedule": Schedule(
            kind="cosine", warmup_share=0.1, decay_share=0.0, total_samples=total_samples
        ),
        "precision": "fp32",
        "reset_at_document_boundaries": True,
        "seed": 7,
    }
    return Training(**(values | changes))


def tiny_pretrain(num_samples: int, *, start_sample: int = 0, total: int = 0) -> Pretrain:
    return Pretrain(
        model=tiny_model(),
        training=tiny_training(total or num_samples),
        start_sample=start_sample,
        num_samples=num_samples,
    )


def tiny_sft(num_samples: int) -> Sft:
    training = tiny_training(num_samples)
    return Sft(model=tiny_model(), training=training, num_samples=num_samples)


def write_index(prefix: Path, sequences: list[Any], documents: list[int], dtype: str) -> None:
    """Megatron's .bin/.idx as megatron/core/datasets/indexed_dataset.py lays it out."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    lengths = np.array([len(sequence) for sequence in sequences], "<i4")
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)[:-1]])
    header = b"MMIDIDX\x00\x00" + np.int64(1).tobytes() + bytes([CODES[dtype]])
    counts = np.array([len(sequences), len(documents)], "<i8").tobytes()
    pointers = (starts * np.dtype(dtype).itemsize).astype("<i8").tobytes()
    tail = np.array(documents, "<i8").tobytes()
    prefix.with_suffix(".idx").write_bytes(header + counts + lengths.tobytes() + pointers + tail)
    prefix.with_suffix(".bin").write_bytes(np.concatenate(sequences).astype(dtype).tobytes())


def _documents(rng: np.random.Generator, count: int, first_id: int) -> list[Any]:
    found = []
    for _ in range(count):
        length, start, stride = (int(rng.integers(low, 24)) for low in (4, 0, 1))
        found.append(np.append(first_id + (np.arange(length) * stride + start) % 50, 1))
    return found


def write_blend(root: Path, num_samples: int, *, seed: int = 0) -> dict[str, Path]:
    """Two sources, alternating samples; returns the inputs of a pretraining stage."""
    rng = np.random.default_rng(seed)
    blend, inputs = root / "blend", {}
    blend.mkdir(parents=True)
    share, start, sources = num_samples // 2, 5, []
    positions = start + np.arange(share) * SEQUENCE
    for number, name in enumerate(("base", "ldq")):
        documents = _documents(rng, share * 4 + 8, 6 + 50 * number)
        inputs[name] = root / name
        bounds = list(range(len(documents) + 1))
        write_index(root / name / "documents", documents, bounds, "uint16")
        order = rng.permutation(len(documents)).astype(np.int32)
        lengths = [len(documents[at]) for at in order]
        np.save(blend / f"{name}.order.npy", order)
        np.save(blend / f"{name}.offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
        sources.append({"name": name, "num_samples": share, "start_tokens": start})
    samples = np.stack([np.arange(num_samples) % 2, np.repeat(positions, 2)], 1)
    np.save(blend / "samples.npy", samples.astype(np.int64))
    plan = {"format": 1, "sequence_tokens": SEQUENCE, "num_samples": num_samples}
    (blend / "plan.json").write_text(json.dumps(plan | {"sources": sources}))
    return inputs | {"blend": blend}


def write_pack(root: Path, num_samples: int, *, seed: int = 0) -> Path:
    """Rows of two conversations with loss on their second half; returns the pack's folder."""
    rng = np.random.default_rng(seed)
    tokens, masks, rows = [], [], [0]
    for _ in range(num_samples):
        for conversation in _documents(rng, 2, 6):
            kept = conversation[-(SEQUENCE // 2) :]
            tokens.append(kept)
            masks.append(np.arange(len(kept)) >= len(kept) // 2)
        rows.append(len(tokens))
    write_index(root / "tokens", tokens, rows, "uint16")
    write_index(root / "loss_mask", masks, rows, "uint8")
    np.save(root / "order.npy", rng.permutation(num_samples).astype(np.int64))
    return root


def write_step_pack(root: Path, *, tokens: int, steps: int, unit: str = "read") -> Path:
    """Rows of `write_pack`, with a budget in real tokens over steps of at most BATCH rows."""
    num_rows = steps * BATCH
    write_pack(root, num_rows)
    index, masks = IndexedReader(root / "tokens"), IndexedReader(root / "loss_mask")
    losses = np.array([int(masks.document(row).sum()) for row in range(num_rows)])
    budget = StepBudget(unit=unit, steps=steps, batch_rows=BATCH)
    cut = cut_steps(
        index.document_lengths if unit == "read" else losses,
        tokens=tokens,
        budget=budget,
        mask_of_row=masks.document,
        seed=1,
    )
    np.save(root / "order.npy", cut.order_N)
    np.save(root / PACK_STEPS, cut.starts)
    counts = {
        "sequence_tokens": SEQUENCE,
        "budget_tokens": tokens,
        "step_budget": asdict(budget),
        "last_row_tokens": cut.last_row_tokens,
    }
    (root / "pack.json").write_text(json.dumps(counts))
    return root


@dataclass
class PlainWorkspace:
    """A workspace that keeps its lines in memory; `lines` holds only what becomes bytes."""

    path: Path
    scratch: Path
    placement: Placement = field(default_factory=Placement)
    key: str = "0123456789ab"
    lines: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    stop_after: int = 10**9
    """Raises KeyboardInterrupt after the line of this step: a kill between two steps."""
    ask_to_stop_at: int = 0
    """The step during which the run is asked to end."""
    rank_lines: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    system: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    marks: list[tuple[Part, int | None]] = field(default_factory=list)

    def log(self, step: int, **metrics: float) -> None:
        if any(name.startswith("system__") for name in metrics):
            self.system.append((step, metrics))
            return
        self.lines.append((step, metrics))

    def log_rank(self, step: int, **metrics: float) -> None:
        self.rank_lines.append((step, metrics))

    def mark(self, part: Part, *, step: int | None = None) -> None:
        self.marks.append((part, step))

    def stop_asked(self) -> bool:
        return bool(self.lines) and self.lines[-1][0] + 1 == self.ask_to_stop_at

    def rewind(self, step: int) -> None:
        self.lines = [line for line in self.lines if line[0] <= step]

    def progress(self, done: int, total: int, *, note: str = "") -> None:
        del total, note
        if done >= self.stop_after * BATCH:
            raise KeyboardInterrupt

    def losses(self) -> list[float]:
        return [metrics["train__loss"] for _, metrics in self.lines]


def workspace(root: Path, **options: Any) -> PlainWorkspace:
    for name in ("path", "scratch"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return PlainWorkspace(path=root / "path", scratch=root / "scratch", **options)


def load_module(artifact: Path) -> Any:
    """The model of a checkpoint artifact on one rank."""
    from frontload.megatron_ext import cpu

    cpu.prepare()
    from frontload.megatron_ext.checkpoints import save
    from frontload.megatron_ext.checkpoints.files import read_model
    from frontload.megatron_ext.model.stack import build_model
    from frontload.megatron_ext.ranks import parallelism

    groups = parallelism.join_groups(Placement())
    module = build_model(read_model(artifact), Placement(), groups, precision="fp32")
    parts = save.Parts(module=module, optimizer=None, groups=groups)
    save.load_weights(artifact / save.WEIGHTS, parts)
    return module
