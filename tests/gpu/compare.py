"""Checks that compare: CPU with CUDA, packed with separate, kernels with torch, file with file.

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
import torch.nn.functional as F
from torch import Tensor

from frontload.megatron_ext import cpu

cpu.prepare()

from frontload.megatron_ext.checkpoints.save import Parts, load_weights, save_weights  # noqa: E402
from frontload.megatron_ext.model.layers import document_resets  # noqa: E402
from frontload.megatron_ext.model.ssd import Documents, ScanInputs, causal_conv, ssd_chunked  # noqa: E402
from frontload.megatron_ext.model.stack import build_model, initialise_weights  # noqa: E402
from frontload.megatron_ext.ranks.parallelism import current_device, join_groups, silence_megatron  # noqa: E402
from frontload.recipes.grammar.load import find_recipe, load_recipe  # noqa: E402
from frontload.recipes.machines.cluster import TORCH, TRANSFORMER_ENGINE  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from frontload.recipes.schema import Model  # noqa: E402
from tests.gpu.findings import CouldNotRun, Finding, at_most, judge  # noqa: E402
from tests.gpu.proof import KERNELS  # noqa: E402

FP32_LIMIT = 1e-4
FP32_REASON = "of the largest entry; float32 sums of some thousand terms in another order"
BF16_ROOM = 1.5
BF16_REASON = f"{BF16_ROOM} x what bf16 itself moves the model; the same roundings, other sums"
BF16_TWO = 2.0
BF16_TWO_REASON = "two bf16 runs, each as far from float32 as bf16 moves the torch layers"
TF32_LIMIT = 5e-3
TF32_REASON = "of the norm; Triton multiplies float32 as TF32 (2^-11 a factor), three products deep"


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
    """The model with seeded weights on the current device."""
    silence_megatron()
    torch.set_float32_matmul_precision("highest")
    placement = Placement(kernels=kernels)
    module = build_model(model, placement, join_groups(placement), precision=precision)
    module = module.to(current_device())
    initialise_weights(module, model, 1)
    return module


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


def packed_rows(
    facts: dict[str, Any], size: Size = SMALL, *, kernels: str = TRANSFORMER_ENGINE
) -> Iterator[Finding]:
    """Documents in a row against each alone; without resets the difference must show."""
    tokens, ids = draw_rows(size)
    alone = cut_documents(tokens, size)
    module = build(size.recipe, precision="fp32")
    separate = run_rows(module, alone)
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
    packages = facts["machine"]["packages"]
    if kernels == TRANSFORMER_ENGINE and any(name not in packages for name in KERNELS):
        raise CouldNotRun("the kernels' half: needs " + ", ".join(KERNELS))
    rounded = run_rows(build(size.recipe, precision="bf16"), alone)
    allowed = norm_error(rounded, separate)
    module = build(size.recipe, precision="bf16", kernels=kernels)
    separate = run_rows(module, alone)
    packed = run_model(module, tokens, ids)
    for part, value in norm_error(packed, separate).items():
        name = f"packed and separate, kernels in bf16: {part}"
        yield at_most(name, value, BF16_TWO * allowed[part], reason=BF16_TWO_REASON)


# ---------------------------------------------------------------- kernels and torch

Scan = Callable[[ScanInputs, Tensor], Tensor]
Conv = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def torch_scan(inputs: ScanInputs, ids: Tensor) -> Tensor:
    """Ours."""
    return ssd_chunked(inputs, chunk_tokens=128, documents=Documents(ids))[0]


def kernel_scan(inputs: ScanInputs, ids: Tensor) -> Tensor:
    """mamba-ssm's."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    tensors = (inputs.x, inputs.dt, inputs.A_H, inputs.B, inputs.C)
    return mamba_chunk_scan_combined(*tensors, 128, D=inputs.D_H, seq_idx=ids)


def torch_conv(x_BSC: Tensor, weight: Tensor, bias: Tensor, ids: Tensor) -> Tensor:
    """Ours."""
    return F.silu(causal_conv(x_BSC, weight, bias, documents=Documents(ids)))


def kernel_conv(x_BSC: Tensor, weight: Tensor, bias: Tensor, ids: Tensor) -> Tensor:
    """causal-conv1d's; it takes channels last only as a view, where documents are told apart."""
    from causal_conv1d import causal_conv1d_fn

    out = causal_conv1d_fn(x_BSC.transpose(1, 2), weight, bias, seq_idx=ids, activation="silu")
    return out.transpose(1, 2)


def scan_tensors(size_S: int, heads: int) -> list[Tensor]:
    """x, dt, A, B, C, D of two rows and two groups, in float32."""
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    dt = F.softplus(normal(2, size_S, heads) - 3.0)
    a = -(normal(heads).abs() * 4.0 + 0.5)
    shape = (2, size_S, 2, 64)
    tensors = [normal(2, size_S, heads, 64), dt, a, normal(*shape), normal(*shape), normal(heads)]
    return [tensor.to(current_device()).requires_grad_() for tensor in tensors]


def with_gradients(call: Callable[[], Tensor], inputs: list[Tensor]) -> Outcome:
    """Values under "logits", as an outcome has them, and a gradient for each input."""
    values = call()
    weigh = torch.randn(values.shape, generator=torch.Generator().manual_seed(5))
    found = torch.autograd.grad((values * weigh.to(values.device)).sum(), inputs)
    gradients = {str(at): gradient.cpu() for at, gradient in enumerate(found)}
    values = values.detach().cpu()
    return {"logits": values, "loss": values.sum((0, 1))} | gradients


def scan_kernels(
    facts: dict[str, Any], size: Size = SMALL, *, scan: Scan = kernel_scan, conv: Conv = kernel_conv
) -> Iterator[Finding]:
    """Both kernels of a Mamba layer against ours with document resets, values and gradients."""
    del facts
    _, ids = draw_rows(size)
    tensors = scan_tensors(ids.shape[1], heads=8)
    x, dt, a, b, c, d = tensors
    inputs = ScanInputs(x=x, dt=dt, A_H=a, B=b, C=c, D_H=d)
    found = with_gradients(lambda: scan(inputs, ids), tensors)
    errors = norm_error(found, with_gradients(lambda: torch_scan(inputs, ids), tensors))
    for part, words in (("logits", "values"), ("gradients", "gradients")):
        name = f"scan with resets, mamba-ssm and ours: {words}"
        yield at_most(name, errors[part], TF32_LIMIT, reason=TF32_REASON)
    generator = torch.Generator().manual_seed(6)
    shapes = ((2, ids.shape[1], 64), (64, 4), (64,))
    parts = [
        torch.randn(*shape, generator=generator).to(ids.device).requires_grad_() for shape in shapes
    ]
    found = with_gradients(lambda: conv(*parts, ids), parts)
    errors = norm_error(found, with_gradients(lambda: torch_conv(*parts, ids), parts))
    for part, words in (("logits", "values"), ("gradients", "gradients")):
        name = f"convolution with resets, causal-conv1d and ours: {words}"
        reason = "of the norm; float32 sums of four taps, and over all tokens for the weights"
        yield at_most(name, errors[part], 1e-5, reason=reason)


def kernel_layers(
    facts: dict[str, Any], size: Size = SMALL, *, kernels: str = TRANSFORMER_ENGINE
) -> Iterator[Finding]:
    """A checkpoint of the torch layers in the kernels' model: logits, loss and gradients."""
    del facts
    tokens, ids = draw_rows(size)
    plain = build(size.recipe, precision="bf16")
    other = build(size.recipe, precision="bf16", kernels=kernels)
    exact_model = build(size.recipe, precision="fp32")
    groups = join_groups(Placement())
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "weights"
        save_weights(stored, Parts(module=plain, optimizer=None, groups=groups), state={})
        for parameter in other.parameters():  # what is not loaded would show
            parameter.fill_(0.0)
        load_weights(stored, Parts(module=other, optimizer=None, groups=groups))
        for exact, rounded in zip(exact_model.parameters(), plain.parameters(), strict=True):
            exact.copy_(rounded)
    outcomes = [run_model(module, tokens, ids) for module in (exact_model, plain)]
    found = run_model(other, tokens, ids)
    keys = ("logits", "loss")  # gradients of a fused norm have another name
    exact, own, found = ({key: one[key] for key in keys} for one in (*outcomes, found))
    distance, allowed = norm_error(found, exact), norm_error(own, exact)
    for part in keys:
        name = f"kernels and torch layers in bf16: {part}"
        yield at_most(name, distance[part], BF16_ROOM * allowed[part], reason=BF16_REASON)


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
