"""Checks that compare models: CPU with CUDA, packed with separate, file with file.

Every function runs on the device that is there, so that a test runs the same lines on a CPU. What
only a CPU can say comes from a process that sees no GPU: `python -m tests.gpu.compare VERB ...`.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frontload.megatron_ext import cpu

cpu.prepare()

from frontload.megatron_ext.checkpoints.save import Parts, load_weights, save_weights  # noqa: E402
from frontload.megatron_ext.model.layers import document_resets  # noqa: E402
from frontload.megatron_ext.model.stack import build_model, initialise_weights  # noqa: E402
from frontload.megatron_ext.ranks.parallelism import current_device, join_groups, silence_megatron  # noqa: E402
from frontload.recipes.grammar.load import find_recipe, load_recipe  # noqa: E402
from frontload.recipes.machines.cluster import TORCH  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from frontload.recipes.schema import Model  # noqa: E402
from tests.gpu.findings import Finding, at_most, judge  # noqa: E402

FP32_LIMIT = 1e-4
FP32_REASON = "of the largest entry; float32 sums of some thousand terms in another order"
BF16_ROOM = 1.5
BF16_REASON = f"{BF16_ROOM} x what bf16 itself moves the model; the same roundings, other sums"


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model by the name of its recipe, and the rows that it is shown."""

    model: str = "hybrid_15m"
    documents: tuple[int, ...] = (96, 160, 256)  # tokens; a row; ends off the scan's chunks

    @property
    def recipe(self) -> Model:
        return load_model(self.model)


SMALL = Size()
Outcome = dict[str, Tensor]  # "logits", "loss", and a gradient under each parameter's name


def load_model(name: str) -> Model:
    """The model recipe of this name."""
    path = find_recipe("models", name)
    assert path is not None, name
    return load_recipe(path, Model).value


def build(model: Model, *, precision: str, kernels: str = TORCH) -> Any:
    """The model with seeded weights on the current device, cast as training casts them.

    Differs: Megatron's Float16Module also casts logits to float32, which `run_rows` does.
    """
    silence_megatron()
    torch.set_float32_matmul_precision("highest")
    placement = Placement(kernels=kernels)
    module = build_model(model, placement, join_groups(placement), precision=precision)
    module = module.to(current_device())
    initialise_weights(module, model, 1)
    return module if precision == "fp32" else module.bfloat16()


def draw_rows(size: Size) -> tuple[Tensor, Tensor]:
    """Two rows of random tokens (one more than a row) and their document ids."""
    generator = torch.Generator().manual_seed(2)
    shape = (2, sum(size.documents) + 1)
    tokens = torch.randint(size.recipe.vocab_size, shape, generator=generator)
    lengths = torch.tensor(size.documents)
    ids = torch.arange(len(lengths)).repeat_interleave(lengths).expand(2, -1)
    device = current_device()
    return tokens.to(device), ids.to(device, torch.int32).contiguous()


def run_model(module: Any, tokens: Tensor, ids: Tensor | None) -> Outcome:
    """Logits, loss and gradients of rows, on the CPU in float32. Without ids nothing is reset."""
    return run_rows(module, [(tokens, ids)])


def run_rows(module: Any, rows: list[tuple[Tensor, Tensor | None]]) -> Outcome:
    """As `run_model` over several pieces one after the other, as one batch."""
    module.zero_grad(set_to_none=True)
    logits, losses = [], []
    for tokens, ids in rows:
        resets = None if ids is None else document_resets(ids)
        with torch.no_grad():
            found = module(tokens[:, :-1], None, None, packed_seq_params=resets)
        loss = module(tokens[:, :-1], None, None, labels=tokens[:, 1:], packed_seq_params=resets)
        loss.float().sum().backward()
        logits.append(found.detach().float().cpu())
        losses.append(loss.detach().float().cpu())
    outcome = {"logits": torch.cat(logits, 1), "loss": torch.cat(losses, 1)}
    gradients = {n: p.grad.float().cpu() for n, p in module.named_parameters()}
    return outcome | gradients


def largest_error(found: Outcome, expected: Outcome) -> dict[str, tuple[float, str]]:
    """Part -> largest difference over the largest entry, and of which tensor; NaN is the worst."""
    worst: dict[str, tuple[float, str]] = {}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        part = name if name in ("logits", "loss") else "gradients"
        error = float((found[name] - tensor).abs().max() / tensor.abs().max())
        error = error if error == error else float("inf")
        worst[part] = max(worst.get(part, (0.0, "")), (error, name))
    return worst


def norm_error(found: Outcome, expected: Outcome) -> dict[str, float]:
    """Part -> norm of the difference over the norm; gradients count as one vector."""
    parts: dict[str, list[str]] = {"logits": ["logits"], "loss": ["loss"], "gradients": []}
    parts["gradients"] = [name for name in expected if name not in parts]
    errors = {}
    for part, names in parts.items():
        if names:
            square = sum(float((found[n] - expected[n]).square().sum()) for n in names)
            whole = sum(float(expected[n].square().sum()) for n in names)
            errors[part] = (square / whole) ** 0.5
    return errors


def bf16_findings(check: str, found: Outcome, own: Outcome, exact: Outcome) -> Iterator[Finding]:
    """`found` may be as far from float32 as `own`, another bf16 run, is; with a little room."""
    distance, allowed = norm_error(found, exact), norm_error(own, exact)
    for part, value in distance.items():
        yield at_most(f"{check}: {part}", value, BF16_ROOM * allowed[part], reason=BF16_REASON)


# ---------------------------------------------------------------- CPU against CUDA


def on_cpu(verb: str, *words: str) -> None:
    """Runs a verb of this module in a process that sees no GPU."""
    command = [sys.executable, "-m", "tests.gpu.compare", verb, *words]
    subprocess.run(command, check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})


def write_reference(folder: Path, size: Size) -> None:
    """What this machine's CPU says, in both precisions."""
    tokens, ids = draw_rows(size)
    for precision in ("fp32", "bf16"):
        outcome = run_model(build(size.recipe, precision=precision), tokens, ids)
        torch.save(outcome, folder / f"{precision}.pt")


def cpu_and_cuda(
    facts: dict[str, Any], size: Size = SMALL, *, ask: Callable[..., None] = on_cpu
) -> Iterator[Finding]:
    """The plain torch layers: the same weights and rows on both devices."""
    del facts
    with tempfile.TemporaryDirectory() as folder:
        ask("reference", folder, size.model, *map(str, size.documents))
        exact, own = (torch.load(Path(folder) / f"{name}.pt") for name in ("fp32", "bf16"))
    tokens, ids = draw_rows(size)
    found = run_model(build(size.recipe, precision="fp32"), tokens, ids)
    for part, (error, name) in largest_error(found, exact).items():
        what = name if part == "gradients" else ""
        yield at_most(
            f"fp32 {part}, CPU and CUDA", error, FP32_LIMIT, reason=FP32_REASON, what=what
        )
    found = run_model(build(size.recipe, precision="bf16"), tokens, ids)
    yield from bf16_findings("bf16, CPU and CUDA", found, own, exact)


# ---------------------------------------------------------------- packed and separate


def cut_documents(tokens: Tensor, size: Size) -> list[tuple[Tensor, Tensor | None]]:
    """Each document of the rows alone, with the token after it as its last label."""
    starts = [sum(size.documents[:at]) for at in range(len(size.documents))]
    return [
        (tokens[:, start : start + length + 1], None)
        for start, length in zip(starts, size.documents, strict=True)
    ]


def packed_rows(facts: dict[str, Any], size: Size = SMALL) -> Iterator[Finding]:
    """Documents in a row against each alone; without resets the difference must show."""
    del facts
    tokens, ids = draw_rows(size)
    module = build(size.recipe, precision="fp32")
    separate = run_rows(module, cut_documents(tokens, size))
    packed, leaking = run_model(module, tokens, ids), run_model(module, tokens, None)
    for part, (error, _) in largest_error(packed, separate).items():
        name = f"packed and separate, torch layers: {part}"
        yield at_most(name, error, FP32_LIMIT, reason=FP32_REASON)
    leak = largest_error(leaking, separate)["logits"][0]
    yield judge(
        "the same without resets: logits",
        figure=f"{leak:.2e}",
        goal=f">= {10 * FP32_LIMIT:.0e}: a leak would be seen",
        is_met=leak >= 10 * FP32_LIMIT,
    )


# ---------------------------------------------------------------- checkpoints


def digest(module: Any) -> str:
    """Of every parameter's name and bits."""
    total = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        total.update(name.encode() + parameter.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def copy_checkpoint(source: Path, target: Path, size: Size) -> None:
    """Loads a checkpoint here and saves it again, with the digest of what was loaded."""
    module = build(size.recipe, precision="fp32")
    parts = Parts(module=module, optimizer=None, groups=join_groups(Placement()))
    load_weights(source, parts)
    save_weights(target, parts, state={"digest": digest(module)})


def checkpoints(
    facts: dict[str, Any], size: Size = SMALL, *, ask: Callable[..., None] = on_cpu
) -> Iterator[Finding]:
    """Weights from CUDA to a CPU and back, bit by bit."""
    del facts
    module = build(size.recipe, precision="fp32")
    parts = Parts(module=module, optimizer=None, groups=join_groups(Placement()))
    before = digest(module)
    with tempfile.TemporaryDirectory() as folder:
        first, second = str(Path(folder) / "first"), str(Path(folder) / "second")
        save_weights(Path(first), parts, state={})
        ask("copy", first, second, size.model, *map(str, size.documents))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(0.0)
        there = load_weights(Path(second), parts)["digest"]
    for name, found in (("saved on CUDA, loaded on a CPU", there), ("and back", digest(module))):
        same = "equal bits" if found == before else "other bits"
        yield judge(f"checkpoint {name}", figure=same, goal="equal bits", is_met=found == before)


def answer(verb: str, *words: str) -> None:
    """The verbs of `on_cpu`."""
    if verb == "reference":
        folder, model, *documents = words
        write_reference(Path(folder), Size(model=model, documents=tuple(map(int, documents))))
    elif verb == "copy":
        source, target, model, *documents = words
        size = Size(model=model, documents=tuple(map(int, documents)))
        copy_checkpoint(Path(source), Path(target), size)
    else:
        raise ValueError(verb)


if __name__ == "__main__":
    answer(*sys.argv[1:])
