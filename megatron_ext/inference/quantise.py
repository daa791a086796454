"""FP8 and bf16 products emulated on any device: values are rounded as the recipe says, then summed
in float32. What a GPU adds on top (the order of its sums) is not here.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from frontload.recipes.machines.precision import Precision

FORMATS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def round_trip(
    values_RC: Tensor, fp8_format: str, *, block: tuple[int, int], power_of_two: bool
) -> Tensor:
    """Values of a matrix after scaling to FP8 and back: one scale a block of rows x columns.

    A block of (0, 0) is the whole matrix; blocks at the edges are cut short. A scale maps the
    block's largest magnitude onto the largest of the format, or onto the power of two below it; it
    is float32's largest number where that would be infinite, for magnitudes below 1e-36.

    Source: Transformer Engine, Float8CurrentScaling and Float8BlockScaling (scales are powers of
        two unless NVTE_FP8_BLOCK_SCALING_FP32_SCALES is set), compute_scale_from_amax.
    """
    num_rows, num_columns = values_RC.shape
    rows, columns = (size or whole for size, whole in zip(block, values_RC.shape, strict=True))
    padded = F.pad(values_RC.float(), (0, -num_columns % columns, 0, -num_rows % rows))
    blocks = padded.unflatten(1, (-1, columns)).unflatten(0, (-1, rows))
    kind = FORMATS[fp8_format]
    largest = torch.finfo(kind).max
    most = blocks.abs().amax((1, 3), keepdim=True)
    scale = (largest / most).clamp(max=torch.finfo(torch.float32).max)
    if power_of_two:
        scale = torch.ldexp(torch.ones_like(scale), scale.frexp().exponent - 1)
    scale = torch.where((most > 0) & most.isfinite(), scale, 1.0)  # an empty block stays zero
    rounded = (blocks * scale).clamp(-largest, largest).to(kind).float() / scale
    return rounded.flatten(2, 3).flatten(0, 1)[:num_rows, :num_columns]


class Emulation:
    """How one precision rounds the operands of a linear's three products."""

    def __init__(self, precision: Precision, *, is_fp8: bool) -> None:
        self.precision, self.is_fp8 = precision, is_fp8

    def plain(self, values: Tensor) -> Tensor:
        """As the precision's own dtype holds them."""
        return values if self.precision.dtype == "fp32" else values.bfloat16().float()

    def operand(self, values_RC: Tensor, fp8_format: str) -> Tensor:
        """Inputs or gradients, scaled along their columns: the dim that the product sums."""
        if not self.is_fp8:
            return values_RC
        return round_trip(
            values_RC,
            fp8_format,
            block=(1 if self.precision.input_block else 0, self.precision.input_block),
            power_of_two=self.precision.power_of_two_scales,
        )

    def weight(self, weight_OI: Tensor) -> Tensor:
        """Weights; a square block is the same for both products that read it."""
        if not self.is_fp8:
            return weight_OI
        return round_trip(
            weight_OI,
            self.precision.forward,
            block=self.precision.weight_block,
            power_of_two=self.precision.power_of_two_scales,
        )


def emulated_linear(input_TI: Tensor, weight_OI: Tensor, emulation: Emulation) -> Tensor:
    """The product of a linear, forward and backward, in the emulated precision."""
    return _EmulatedLinear.apply(input_TI, weight_OI, emulation)  # type: ignore[return-value]


class _EmulatedLinear(torch.autograd.Function):
    """Each operand is rounded along the dim that its product sums, from the unrounded values.

    The weight's gradient stays in float32, as Megatron adds it to a float32 buffer.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, input_TI: Tensor, weight_OI: Tensor, emulation: Emulation
    ) -> Tensor:
        input_TI, weight_OI = emulation.plain(input_TI), emulation.plain(weight_OI)
        ctx.save_for_backward(input_TI, weight_OI)
        ctx.emulation = emulation
        rounded = emulation.operand(input_TI, emulation.precision.forward)
        return emulation.plain(rounded @ emulation.weight(weight_OI).t())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input_TI, weight_OI = ctx.saved_tensors
        emulation: Emulation = ctx.emulation
        forward, gradient = emulation.precision.forward, emulation.precision.gradient
        grad_TO = emulation.plain(grad_outputs[0])
        grad_input = emulation.operand(grad_TO, gradient) @ emulation.weight(weight_OI)
        grad_OT = emulation.operand(grad_TO.t(), gradient)
        grad_weight = grad_OT @ emulation.operand(input_TI.t(), forward).t()
        return emulation.plain(grad_input), grad_weight, None
