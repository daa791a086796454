"""Checks of matrix products: what the device reaches in bf16, and what FP8 could give."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from frontload.megatron_ext.inference.quantise import FORMATS, Emulation
from frontload.recipes.facts.gemms import list_gemms
from frontload.recipes.machines.precision import find_precision
from tests.gpu.compare import load_model
from tests.gpu.findings import MEASURED, CouldNotRun, Finding, at_most, judge, kind_of

CEILING = "gemm_tflops"
CEILING_SHARE = 0.6  # of the data sheet; below it the GPU is throttled or shared
GEMMS = ((8_192, 8_192, 8_192), (8_192, 4_096, 21_504))  # a square; the 8B's linear_fc1
FP8_GOAL = 1.25
FP8_PRECISION = "nemotron_h_current_scaling"
EMULATED_LIMIT = 4e-3
EMULATED_REASON = "of the norm; the result is rounded to bf16 (2^-9), sums in another order"


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def median_seconds(call: Callable[[], object], rounds: int) -> float:
    """Of calls one after the other, the first three left out."""
    seconds = []
    for _ in range(rounds + 3):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[3:])


def gemm_ceiling(
    facts: dict[str, Any], gemms: Sequence[tuple[int, int, int]] = GEMMS, rounds: int = 20
) -> Iterator[Finding]:
    """Dense BF16 products of random numbers, one after the other; the best shape's median."""
    found = {}
    for m, k, n in gemms:
        left, right = (
            torch.randn(*shape, device=device(), dtype=torch.bfloat16) for shape in ((m, k), (k, n))
        )
        seconds = median_seconds(lambda a=left, b=right: torch.mm(a, b), rounds)
        found[f"{m} x {k} x {n}"] = 2.0 * m * k * n / seconds / 1e12
    best = max(found, key=lambda shape: found[shape])
    kind = kind_of(facts["machine"]["device"])
    figure = f"{found[best]:.0f} TFLOP/s at {best}"
    fact = {CEILING: found[best]}
    name = "dense BF16 GEMM ceiling"
    if kind is None:
        yield Finding(check=name, result=MEASURED, figure=figure, facts=fact)
        return
    share = found[best] / kind.bf16_tflops
    yield judge(
        name,
        figure=f"{figure}, {share:.0%} of the data sheet",
        goal=f">= {CEILING_SHARE:.0%}: below it the GPU is throttled or shared",
        is_met=share >= CEILING_SHARE,
        **fact,
    )


def to_fp8(values: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """A matrix in FP8 under one scale, and what its product is multiplied by."""
    scale = torch.finfo(kind).max / values.abs().amax().float()
    return (values.float() * scale).to(kind), scale.reciprocal()


def fp8_product(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Tensor:
    """left x right^T in bf16; both rows x columns with the summed dim last, as FP8 wants them."""
    (a, a_scale), (b, b_scale) = left, right
    return torch._scaled_mm(a, b.t(), scale_a=a_scale, scale_b=b_scale, out_dtype=torch.bfloat16)


def product_shapes(model: str) -> Counter[tuple[int, int]]:
    """Inputs and outputs of the model's FP8 linears, and how many have them."""
    gemms = list_gemms(load_model(model), find_precision(FP8_PRECISION))
    return Counter((one.inputs, one.outputs) for one in gemms if one.is_fp8)


def fp8_products(
    facts: dict[str, Any], model: str = "hybrid_8b", tokens: int = 8_192, rounds: int = 10
) -> Iterator[Finding]:
    """The three products of each FP8 linear of the 8B, in bf16 and in FP8, with one scale each.

    A bound: Transformer Engine quantises in fewer passes than torch does here, and not at all what
    it can keep; what is no product does not get faster.
    """
    totals = {"bf16": 0.0, "fp8": 0.0, "quantised": 0.0}
    for (inputs, outputs), count in product_shapes(model).items():
        for name, seconds in time_products(tokens, inputs, outputs, rounds=rounds).items():
            totals[name] += count * seconds
    bound, whole = totals["bf16"] / totals["fp8"], totals["bf16"] / totals["quantised"]
    name = "products in FP8 over bf16, nothing else counted"
    figure = f"{bound:.2f}x ({1e3 * totals['bf16']:.0f} ms of a step of {tokens} tokens in bf16)"
    if kind_of(facts["machine"]["device"]) is None:
        yield Finding(check=name, result=MEASURED, figure=figure)
    else:
        goal = f">= {FP8_GOAL:.2f}x: below it FP8 cannot pay"
        yield judge(name, figure=figure, goal=goal, is_met=round(bound, 2) >= FP8_GOAL)
    yield Finding(
        check="the same with torch's quantisation of every operand",
        result=MEASURED,
        figure=f"{whole:.2f}x",
    )
    yield emulation_finding(min(tokens, 2_048), *next(iter(product_shapes(model))))


def time_products(tokens: int, inputs: int, outputs: int, *, rounds: int) -> dict[str, float]:
    """Seconds of forward, gradient of the inputs and of the weights."""
    draw = torch.Generator(device()).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device(), dtype=torch.bfloat16, generator=draw)

    x, weight, dy = normal(tokens, inputs), normal(outputs, inputs), normal(tokens, outputs)
    forward, gradient = FORMATS["e4m3"], FORMATS["e5m2"]
    products = (
        ((x, forward), (weight, forward)),
        ((dy, gradient), (weight.t().contiguous(), forward)),
        ((dy.t().contiguous(), gradient), (x.t().contiguous(), forward)),
    )
    totals = {"bf16": 0.0, "fp8": 0.0, "quantised": 0.0}
    for (left, left_kind), (right, right_kind) in products:
        totals["bf16"] += median_seconds(lambda a=left, b=right: torch.mm(a, b.t()), rounds)
        try:
            a, b = to_fp8(left, left_kind), to_fp8(right, right_kind)
            totals["fp8"] += median_seconds(lambda a=a, b=b: fp8_product(a, b), rounds)
        except RuntimeError as error:
            raise CouldNotRun(f"torch._scaled_mm: {str(error).splitlines()[0]}") from error
        pairs = (left, left_kind, right, right_kind)
        totals["quantised"] += median_seconds(
            lambda p=pairs: fp8_product(to_fp8(*p[:2]), to_fp8(*p[2:])), rounds
        )
    return totals


def emulation_finding(tokens: int, inputs: int, outputs: int) -> Finding:
    """The device's product against the one that `frontload precision --emulate` computes."""
    draw = torch.Generator(device()).manual_seed(1)
    x, weight = (
        torch.randn(*shape, device=device(), dtype=torch.bfloat16, generator=draw)
        for shape in ((tokens, inputs), (outputs, inputs))
    )
    kind = FORMATS["e4m3"]
    found = fp8_product(to_fp8(x, kind), to_fp8(weight, kind)).float()
    emulation = Emulation(find_precision(FP8_PRECISION), is_fp8=True)
    rounded_x = emulation.operand(emulation.plain(x.float()), "e4m3")
    expected = rounded_x @ emulation.weight(emulation.plain(weight.float())).t()
    error = float((found - expected).norm() / expected.norm())
    own = float((expected - x.float() @ weight.float().t()).norm() / expected.norm())
    return at_most(
        f"a product in FP8 and its emulation, which is {own:.1e} from bf16's", error,
        EMULATED_LIMIT, reason=EMULATED_REASON,
    )  # fmt: skip
