"""Checks of mamba-ssm's and causal-conv1d's kernels: alone against ours, and in the model."""

import statistics
import tempfile
import time
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
from frontload.megatron_ext.model.ssd import Documents, ScanInputs, causal_conv, ssd_chunked  # noqa: E402
from frontload.megatron_ext.ranks.parallelism import current_device, join_groups  # noqa: E402
from frontload.recipes.machines.cluster import MAMBA_SSM, TORCH  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from tests.gpu.compare import (  # noqa: E402
    BF16_REASON,
    BF16_ROOM,
    SMALL,
    Outcome,
    Size,
    build,
    cut_documents,
    draw_rows,
    norm_error,
    run_model,
    run_rows,
)
from tests.gpu.findings import MEASURED, Finding, at_most  # noqa: E402

EXACT_LIMIT, EXACT_REASON = 2e-5, "of the norm; float32, as on a CPU (tests/parity/test_ssd.py)"
TF32_LIMIT = 5e-3
TF32_REASON = "of the norm; Triton multiplies float32 as TF32 (2^-11 a factor), three products deep"
BF16_LIMIT = 2e-2
BF16_SCAN_REASON = "of the norm; bf16 rounds at 2^-9, five products and the states between chunks"
CONV_REASON = "of the norm; float32 sums of four taps, and over all tokens for the weights"
HEAD_LIMIT = 1e-2
HEAD_REASON = "of the head's own; TF32 products; noise would be 1 (a wrong sign: 2)"
BF16_TWO = 2.0
BF16_TWO_REASON = "two bf16 runs, each as far from float32 as bf16 moves the torch layers"
NAMES = ("values", "x", "dt", "A", "B", "C", "D")

Scan = Callable[[ScanInputs, Tensor, int], Tensor]
Conv = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ScanShape:
    """Rows of a scan: the 8B's, with fewer heads."""

    tokens: int = 4_096
    heads: int = 16
    width: int = 64
    groups: int = 8
    states: int = 128
    chunk: int = 128
    document: int = 500  # tokens, about


EIGHT_B = ScanShape()


def torch_scan(inputs: ScanInputs, ids: Tensor, chunk: int) -> Tensor:
    """Ours."""
    return ssd_chunked(inputs, chunk_tokens=chunk, documents=Documents(ids))[0]


def kernel_scan(inputs: ScanInputs, ids: Tensor, chunk: int) -> Tensor:
    """mamba-ssm's."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    tensors = (inputs.x, inputs.dt, inputs.A_H, inputs.B, inputs.C)
    return mamba_chunk_scan_combined(*tensors, chunk, D=inputs.D_H, seq_idx=ids)


def torch_conv(x_BSC: Tensor, weight: Tensor, bias: Tensor, ids: Tensor) -> Tensor:
    """Ours."""
    return F.silu(causal_conv(x_BSC, weight, bias, documents=Documents(ids)))


def kernel_conv(x_BSC: Tensor, weight: Tensor, bias: Tensor, ids: Tensor) -> Tensor:
    """causal-conv1d's; it takes channels last only as a view, where documents are told apart."""
    from causal_conv1d import causal_conv1d_fn

    out = causal_conv1d_fn(x_BSC.transpose(1, 2), weight, bias, seq_idx=ids, activation="silu")
    return out.transpose(1, 2)


def draw_scan(shape: ScanShape) -> tuple[list[Tensor], Tensor]:
    """x, dt, A, B, C, D of two rows in float64, and the ids of their documents."""
    generator = torch.Generator().manual_seed(4)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    row, state = (2, shape.tokens), (2, shape.tokens, shape.groups, shape.states)
    dt = F.softplus(normal(*row, shape.heads) - 3.0)
    a = -(normal(shape.heads).abs() * 4.0 + 0.5)
    x = normal(*row, shape.heads, shape.width)
    tensors = [x, dt, a, normal(*state), normal(*state), normal(shape.heads)]
    starts = torch.rand(*row, generator=generator) < 1.0 / shape.document
    device = current_device()
    return [one.to(device) for one in tensors], starts.cumsum(1).to(device, torch.int32)


def with_gradients(call: Callable[..., Tensor], tensors: list[Tensor]) -> Outcome:
    """Values and a gradient for each input, under the same weights of the loss."""
    inputs = [tensor.detach().requires_grad_() for tensor in tensors]
    values = call(*inputs)
    weigh = torch.randn(values.shape, generator=torch.Generator().manual_seed(5))
    total = (values.float() * weigh.to(values.device)).sum()
    found = [values.detach(), *torch.autograd.grad(total, inputs)]
    return {str(at): tensor.double().cpu() for at, tensor in enumerate(found)}


def run_scan(scan: Scan, tensors: list[Tensor], ids: Tensor, chunk: int) -> Outcome:
    """Values and gradients of a scan."""

    def call(x: Tensor, dt: Tensor, a: Tensor, *rest: Tensor) -> Tensor:
        b, c, d = rest
        return scan(ScanInputs(x=x, dt=dt, A_H=a, B=b, C=c, D_H=d), ids, chunk)

    return with_gradients(call, tensors)


def worst(found: Outcome, expected: Outcome) -> dict[str, tuple[float, str]]:
    """Values and gradients -> the largest error by norm, and of which tensor."""
    errors = {}
    for at, name in zip(expected, NAMES, strict=False):
        error = float((found[at] - expected[at]).norm() / expected[at].norm())
        part = "values" if at == "0" else "gradients"
        error = error if error == error else float("inf")
        errors[part] = max(errors.get(part, (0.0, "")), (error, name))
    return errors


def rounded(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """x, B and C as the model has them in `dtype`; dt, A and D stay float32."""
    return [one.to(dtype if at in (0, 3, 4) else torch.float32) for at, one in enumerate(tensors)]


def compare_scan(
    scan: Scan, shape: ScanShape, *, dtype: torch.dtype, limit: float, reason: str
) -> Iterator[Finding]:
    """A scan against ours in float64, which a CPU's tests hold against the recurrence."""
    tensors, ids = draw_scan(shape)
    tensors = rounded(tensors, dtype)
    exact = run_scan(torch_scan, [one.double() for one in tensors], ids, shape.chunk)
    found = run_scan(scan, tensors, ids, shape.chunk)
    words = str(dtype).removeprefix("torch.")
    for part, (error, name) in worst(found, exact).items():
        what = name if part == "gradients" else ""
        yield at_most(f"scan in {words}: {part}", error, limit, reason=reason, what=what)


def forgetting_heads(scan: Scan, shape: ScanShape) -> float:
    """The gradient of A of heads that forget e^2 to e^16 at a token: the worst by its own size."""
    tensors, ids = draw_scan(shape)
    tensors = [one.abs() for one in tensors]  # no sum that cancels
    tensors[1] = tensors[1].clamp(0.9, 1.0)
    tensors[2] = -torch.linspace(2.0, 16.0, shape.heads, device=ids.device, dtype=torch.float64)
    exact = run_scan(torch_scan, tensors, ids, shape.chunk)
    found = run_scan(scan, [one.float() for one in tensors], ids, shape.chunk)
    at = str(NAMES.index("A"))
    return float(((found[at] - exact[at]) / exact[at]).abs().max())


def compare_conv(conv: Conv, shape: ScanShape) -> Iterator[Finding]:
    """The convolution with resets, values and gradients."""
    _, ids = draw_scan(shape)
    generator = torch.Generator().manual_seed(6)
    shapes = ((2, shape.tokens, 64), (64, 4), (64,))
    parts = [torch.randn(*one, generator=generator).to(ids.device) for one in shapes]
    found = with_gradients(lambda *inputs: conv(*inputs, ids), parts)
    expected = with_gradients(lambda *inputs: torch_conv(*inputs, ids), parts)
    for part, (error, _) in worst(found, expected).items():
        name = f"convolution in float32, causal-conv1d and ours: {part}"
        yield at_most(name, error, 1e-5, reason=CONV_REASON)


def seconds_of(call: Callable[[], object], rounds: int = 5) -> tuple[float, float]:
    """Seconds of the first call, and the median of those after it."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return taken[0], statistics.median(taken[1:])


def time_scans(scan: Scan, shape: ScanShape) -> Finding:
    """Forward and backward in bf16 at this shape, the kernels' and ours."""
    tensors, ids = draw_scan(shape)
    tensors = rounded(tensors, torch.bfloat16)
    cold, theirs = seconds_of(lambda: run_scan(scan, tensors, ids, shape.chunk))
    wide = [one.float() for one in tensors]
    _, ours = seconds_of(lambda: run_scan(torch_scan, wide, ids, shape.chunk))
    return Finding(
        check="scan, forward and backward: time",
        result=MEASURED,
        figure=f"{1e3 * theirs:.1f} ms, ours {1e3 * ours:.1f} ms ({ours / theirs:.1f}x); "
        f"the first call {cold:.0f} s",
    )


def scan_kernels(
    facts: dict[str, Any],
    shape: ScanShape = EIGHT_B,
    *,
    scan: Scan = kernel_scan,
    conv: Conv = kernel_conv,
) -> Iterator[Finding]:
    """Both kernels of a Mamba layer against ours with document resets, values and gradients."""
    del facts
    yield time_scans(scan, shape)
    for dtype, limit, reason in (
        (torch.float32, TF32_LIMIT, TF32_REASON),
        (torch.bfloat16, BF16_LIMIT, BF16_SCAN_REASON),
    ):
        yield from compare_scan(scan, shape, dtype=dtype, limit=limit, reason=reason)
    for whose, one in (("mamba-ssm", scan), ("ours", torch_scan)):
        error = forgetting_heads(one, shape)
        name = f"gradient of A of heads that forget, {whose}"
        yield at_most(name, error, HEAD_LIMIT, reason=HEAD_REASON)
    yield from compare_conv(conv, shape)


def scan_exact(
    facts: dict[str, Any], shape: ScanShape = EIGHT_B, *, scan: Scan = kernel_scan
) -> Iterator[Finding]:
    """The scan where Triton multiplies float32 as such: the process sets TRITON_F32_DEFAULT."""
    del facts
    for finding in compare_scan(
        scan, shape, dtype=torch.float32, limit=EXACT_LIMIT, reason=EXACT_REASON
    ):
        yield Finding(**{**vars(finding), "check": f"{finding.check}, no TF32"})


def kernel_layers(
    facts: dict[str, Any], size: Size = SMALL, *, kernels: str = MAMBA_SSM
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
        for exact, copied in zip(exact_model.parameters(), plain.parameters(), strict=True):
            exact.copy_(copied)
    outcomes = [run_model(module, tokens, ids) for module in (exact_model, plain)]
    found = run_model(other, tokens, ids)
    exact, own = outcomes
    assert found.keys() == exact.keys()
    distance, allowed = norm_error(found, exact), norm_error(own, exact)
    for part, value in distance.items():
        name = f"{kernels} and torch layers in bf16: {part}"
        yield at_most(name, value, BF16_ROOM * allowed[part], reason=BF16_REASON)


def kernel_rows(
    facts: dict[str, Any], size: Size = SMALL, *, kernels: str = MAMBA_SSM
) -> Iterator[Finding]:
    """Documents in a row against each alone, in the kernels' model."""
    del facts
    tokens, ids = draw_rows(size)
    alone = cut_documents(tokens, size)
    separate = run_rows(build(size.recipe, precision="fp32", kernels=TORCH), alone)
    own = run_rows(build(size.recipe, precision="bf16", kernels=TORCH), alone)
    allowed = norm_error(own, separate)
    module = build(size.recipe, precision="bf16", kernels=kernels)
    separate, packed = run_rows(module, alone), run_model(module, tokens, ids)
    for part, value in norm_error(packed, separate).items():
        name = f"packed and separate, {kernels} in bf16: {part}"
        yield at_most(name, value, BF16_TWO * allowed[part], reason=BF16_TWO_REASON)
