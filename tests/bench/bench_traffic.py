"""What one training step of a proxy asks of a device beside products: bytes moved, kernels started.

    .venv/bin/python tests/bench/bench_traffic.py [MODEL]

Counted on a CPU, operation by operation: what each reads and writes if nothing stays in a cache. So
the rates below are bounds of the torch layers on an H100, by its data sheet; none is a measurement.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from frontload.recipes.facts.census import training_flops_per_token
from tests.gpu.compare import load_model
from tests.gpu.speed import Job, RandomRows, build_job, take_steps

H100_BYTES_PER_SECOND = 3.35e12  # NVIDIA H100 datasheet, SXM5 with HBM3
H100_FLOPS = 989.4e12
KERNEL_SECONDS = 5e-6  # to start one from Python; assumed
SEQUENCE_TOKENS = 256
BATCHES = (2, 6)  # sequences: two sizes tell what grows with tokens from what does not


@dataclass
class Traffic(TorchDispatchMode):
    """Counts bytes and kernels of what runs below it; views move nothing."""

    size_bytes: int = 0
    kernels: int = 0
    names: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        aliases = [one.alias_info for one in func._schema.returns if one.alias_info]
        if name == "_unsafe_view" or any(not one.is_write for one in aliases):
            return out
        read = {id(t): t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        moved = sum(t.numel() * t.itemsize for t in (*read.values(), *made))
        self.size_bytes += moved
        self.kernels += 1
        self.names[name] = self.names.get(name, 0) + moved
        return out


def count(model: str, sequences: int) -> Traffic:
    """One step of the engine, bf16, plain torch layers, after one that is not counted."""
    job = Job(
        model=load_model(model), sequence_tokens=SEQUENCE_TOKENS, sequences=sequences,
        micro_sequences=0, with_resets=False,
    )  # fmt: skip
    engine, rows = build_job(job), RandomRows(job)
    take_steps(engine, rows, 1)
    with Traffic() as traffic:
        take_steps(engine, rows, 1)
    return traffic


def main() -> None:
    """Prints bytes a token, kernels a step and what they bound."""
    model = sys.argv[1] if len(sys.argv) > 1 else "hybrid_26m"
    small, large = (count(model, sequences) for sequences in BATCHES)
    tokens = (BATCHES[1] - BATCHES[0]) * SEQUENCE_TOKENS
    per_token = (large.size_bytes - small.size_bytes) / tokens
    fixed = small.size_bytes - per_token * BATCHES[0] * SEQUENCE_TOKENS
    flops = training_flops_per_token(load_model(model), SEQUENCE_TOKENS)
    print(f"{model}: {per_token / 1e6:.2f} MB a token, {fixed / 1e6:.0f} MB a step")
    print(f"  {large.kernels} operations a step, {flops / 1e6:.0f} MFLOPs a token")
    most = sorted(large.names.items(), key=lambda one: -one[1])[:8]
    whole = large.size_bytes
    print("  most bytes: " + ", ".join(f"{name} {100 * part / whole:.0f}%" for name, part in most))
    for step_tokens in (8_192, 16_384, 32_768):
        moving = (per_token * step_tokens + fixed) / H100_BYTES_PER_SECOND
        starting = large.kernels * KERNEL_SECONDS
        seconds = max(moving, starting)
        mfu = flops * step_tokens / seconds / H100_FLOPS
        print(
            f"  {step_tokens} tokens a step on an H100: {1e3 * moving:.0f} ms of memory traffic, "
            f"{1e3 * starting:.0f} ms of starting kernels: at most {mfu:.1%} MFU"
        )


if __name__ == "__main__":
    main()
