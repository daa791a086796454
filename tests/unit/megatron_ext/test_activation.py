"""The squared ReLU has its own backward: checked by finite differences and against autograd."""

import torch
import torch.nn.functional as F

from frontload.megatron_ext import cpu

cpu.prepare()

from frontload.megatron_ext.ranks.settings import squared_relu  # noqa: E402


def test_gradient_agrees_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(squared_relu, (hidden,))


def test_value_and_gradient_are_those_of_relu_squared() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(64, generator=generator, requires_grad=True)
    weight = torch.randn(64, generator=generator)
    (ours,) = torch.autograd.grad((squared_relu(hidden) * weight).sum(), hidden)
    (plain,) = torch.autograd.grad((F.relu(hidden).square() * weight).sum(), hidden)
    assert torch.equal(squared_relu(hidden), F.relu(hidden).square())
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=0)  # one rounding of difference
