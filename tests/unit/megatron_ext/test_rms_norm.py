"""The RMS norm whose derivative is written by hand, against torch's own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from frontload.megatron_ext.model.rms_norm import rms_norm

SHAPES = {"a whole row": ((5, 3, 12), (12,)), "groups": ((5, 3, 2, 6), (2, 6))}
EPSILON = 1e-5


def _inputs(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of which one row is all zeros, a weight and a gradient of the output."""
    shape, weight_shape = SHAPES[name]
    generator = torch.Generator().manual_seed(7)
    hidden = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    hidden[1, 1] = 0.0
    weight = torch.randn(weight_shape, generator=generator, dtype=torch.float64)
    dy = torch.randn(shape, generator=generator, dtype=torch.float64)
    return hidden.to(dtype), weight.to(dtype), dy.to(dtype)


def _torch_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(hidden, hidden.shape[-1:], eps=epsilon) * weight


def _values_and_gradients(
    norm: Callable[[Tensor, Tensor, float], Tensor], hidden: Tensor, weight: Tensor, dy: Tensor
) -> tuple[Tensor, ...]:
    x, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    y = norm(x, w, EPSILON)
    return y.detach(), *torch.autograd.grad(y, (x, w), dy)


@pytest.mark.parametrize("name", SHAPES)
def test_the_derivative_is_that_of_finite_differences(name: str) -> None:
    hidden, weight, _ = _inputs(name, torch.float64)
    hidden[1, 1] = 0.01  # at zero the step of the differences is too coarse for 1/sqrt(epsilon)
    assert torch.autograd.gradcheck(
        lambda x, w: rms_norm(x, w, EPSILON), (hidden.requires_grad_(), weight.requires_grad_())
    )


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-12),
        (torch.float32, 2e-6),  # sums of at most 15 terms, a few roundings of 6e-8 each
        (torch.bfloat16, 3e-2),  # roundings of 4e-3; the plain one multiplies in bfloat16
    ],
)
def test_values_and_gradients_are_torchs(name: str, dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, dy = _inputs(name, dtype)
    found, wanted = [
        _values_and_gradients(norm, hidden, weight, dy) for norm in (rms_norm, _torch_norm)
    ]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        scale = theirs.abs().amax()
        assert (ours - theirs).abs().amax() <= tolerance * scale


def test_a_frozen_weight_changes_no_gradient_of_the_tokens() -> None:
    hidden, weight, dy = _inputs("a whole row", torch.float32)
    x = hidden.clone().requires_grad_()
    rms_norm(x, weight, EPSILON).backward(dy)
    both = hidden.clone().requires_grad_()
    rms_norm(both, weight.clone().requires_grad_(), EPSILON).backward(dy)
    assert x.grad is not None
    assert both.grad is not None
    assert torch.equal(x.grad, both.grad)
