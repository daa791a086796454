"""The chunked scan and the convolution against the token-by-token recurrence in float64.

Tolerances: float64 must agree to 1e-11 of the largest entry (sums of some hundred terms); float32
to 2e-5 of it (its rounding is 6e-8; sums of a hundred terms with cancelling signs lose two digits),
and the gradient of A to 1e-4 of each head's own: a head that forgets has a small one, of which an
optimizer like Adam takes the sign all the same. That is measured where all terms have one sign, so
that a head's gradient is small because it forgets and not because its terms happen to cancel.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from frontload.megatron_ext.model.ssd import (
    Documents,
    ScanInputs,
    causal_conv,
    chunked_state,
    ssd_chunked,
    ssd_step,
    step_state,
)
from frontload.megatron_ext.model.ssd_steep import STEEP
from tests.parity.reference_model import convolution, recurrence

NAMES = ("x", "dt", "A", "B", "C", "D", "initial")


def draw(size_S: int, size_G: int, *, decay: float = 8.0, seed: int = 0) -> list[Tensor]:
    """x, dt, A, B, C, D, initial state: dt from 1e-4 to about 2, as in trained models."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    heads = normal(4).abs() * decay + 0.05
    dt = F.softplus(normal(2, size_S, 4) * 2.0 - 3.0)
    return [
        normal(2, size_S, 4, 3), dt, -heads, normal(2, size_S, size_G, 5),
        normal(2, size_S, size_G, 5), normal(4), normal(2, 4, 3, 5),
    ]  # fmt: skip


def documents(size_S: int, share: float) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return (torch.rand(2, size_S, generator=generator) < share).long().cumsum(1)


def scan(tensors: list[Tensor], ids_BS: Tensor | None, chunk_tokens: int) -> tuple[Tensor, Tensor]:
    x, dt, a, b, c, d, initial = tensors
    inputs = ScanInputs(x=x, dt=dt, A_H=a, B=b, C=c, D_H=d)
    return ssd_chunked(
        inputs,
        chunk_tokens=chunk_tokens,
        documents=None if ids_BS is None else Documents(ids_BS),
        initial_state_BHEN=initial,
    )


def gradients(tensors: list[Tensor], y: Tensor, final: Tensor) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    weigh = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (y, final)]
    total = (y * weigh[0].to(y.dtype)).sum() + (final * weigh[1].to(y.dtype)).sum()
    return torch.autograd.grad(total, tensors)


def own_distance(ours_H: Tensor, reference_H: Tensor) -> float:
    """Of the head that is farthest from its own gradient, in parts of that."""
    return float(((ours_H.double() - reference_H) / reference_H).abs().max().detach())


def distance(ours: Tensor, reference: Tensor) -> float:
    return float(((ours.double() - reference).abs().max() / reference.abs().max()).detach())


@pytest.mark.parametrize("share", [0.0, 0.06], ids=["one document", "documents"])
@pytest.mark.parametrize(
    ("chunk_tokens", "size_G"), [(1, 2), (8, 4), (32, 1), (64, 2), (100, 1), (128, 1)]
)
def test_scan_and_its_gradients_are_those_of_the_recurrence(
    chunk_tokens: int, size_G: int, share: float
) -> None:
    size_S = 77  # a multiple of none of the chunks
    ids = documents(size_S, share)
    exact = [t.requires_grad_() for t in draw(size_S, size_G)]
    x, dt, a, b, c, d, initial = exact
    y, final = recurrence(x, dt, a, b, c, D_H=d, document_ids_BS=ids, initial_BHEN=initial)
    expected = (y, final, *gradients(exact, y, final))
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        tensors = [t.detach().to(dtype).requires_grad_() for t in exact]
        ours = scan(tensors, ids if share else None, chunk_tokens)
        found = (*ours, *gradients(tensors, *ours))
        for name, one, other in zip(("y", "final", *NAMES), found, expected, strict=True):
            assert distance(one, other) < tolerance, (name, dtype)


def test_decay_far_beyond_float32_stays_exact_and_finite() -> None:
    size_S = 64  # sums of dt A reach thousands in a chunk: exp of them is no float32 number
    exact = [t.requires_grad_() for t in draw(size_S, 1, decay=150.0)]
    x, dt, a, b, c, d, initial = exact
    ids = documents(size_S, 0.0)
    y, final = recurrence(x, dt, a, b, c, D_H=d, document_ids_BS=ids, initial_BHEN=initial)
    expected = (y, *gradients(exact, y, final))
    tensors = [t.detach().float().requires_grad_() for t in exact]
    ours = scan(tensors, None, 64)
    found = (ours[0], *gradients(tensors, *ours))
    for name, one, other in zip(("y", *NAMES), found, expected, strict=True):
        assert bool(torch.isfinite(one).all()), name
        assert distance(one, other) < 2e-5, name


@pytest.mark.parametrize("share", [0.0, 0.06], ids=["one document", "documents"])
@pytest.mark.parametrize(("chunk_tokens", "size_G"), [(1, 1), (8, 2), (32, 1), (64, 4)])
@pytest.mark.parametrize("decay", [1.0, 4.0, 6.4, 8.0, 12.0, 20.0, 30.0])
def test_a_head_that_forgets_within_a_token_keeps_its_gradient(
    decay: float, chunk_tokens: int, size_G: int, share: float
) -> None:
    """Rounding of what a token reads of itself is 6e-8; what it reads of others is exp(-decay)."""
    ids = documents(64, share)
    exact = [t.abs() for t in draw(64, size_G)]
    exact[1] = 0.9 + 0.1 * exact[1].clamp(max=1.0)
    exact[2] = -decay * torch.tensor([1.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    exact = [t.requires_grad_() for t in exact]
    x, dt, a, b, c, d, initial = exact
    y, final = recurrence(x, dt, a, b, c, D_H=d, document_ids_BS=ids, initial_BHEN=initial)
    (expected,) = torch.autograd.grad(y.sum() + final.sum(), [a])
    tensors = [t.detach().float().requires_grad_() for t in exact]
    y, final = scan(tensors, ids if share else None, chunk_tokens)
    (found,) = torch.autograd.grad(y.sum() + final.sum(), [tensors[2]])
    assert own_distance(found, expected) < 1e-4


def forgetting(tokens: int) -> list[Tensor]:
    """One head of one row forgets e^40 at each of some neighbouring tokens; nothing else does."""
    tensors = draw(96, 1, decay=1.0)
    tensors[1] *= 0.1
    tensors[1][1, 40 : 40 + tokens, 2] = -40.0 / tensors[2][2]
    return tensors


@pytest.mark.parametrize("share", [0.0, 0.06], ids=["one document", "documents"])
def test_a_head_that_forgets_leaves_all_others_as_they_are(share: float) -> None:
    """To the bit; it was the whole batch that went by chunks of one token. And it is exact."""
    ids = documents(96, share)
    kept = [t.float() for t in forgetting(0)]
    y_kept, final_kept = scan(kept, ids, 32)
    STEEP.take()
    exact = [t.requires_grad_() for t in forgetting(2)]
    tensors = [t.detach().float().requires_grad_() for t in exact]
    ours = scan(tensors, ids, 32)
    assert STEEP.take() == 1, "a chunk of a head"
    others = torch.ones(2, 4, dtype=torch.bool)
    others[1, 2] = False
    assert torch.equal(ours[0].transpose(1, 2)[others], y_kept.transpose(1, 2)[others])
    assert torch.equal(ours[1][others], final_kept[others])
    x, dt, a, b, c, d, initial = exact
    y, final = recurrence(x, dt, a, b, c, D_H=d, document_ids_BS=ids, initial_BHEN=initial)
    expected = (y, final, *gradients(exact, y, final))
    found = (*ours, *gradients(tensors, *ours))
    for name, one, other in zip(("y", "final", *NAMES), found, expected, strict=True):
        assert distance(one, other) < 2e-6, name


def work(tensors: list[Tensor]) -> int:
    """Multiplications and additions of all matrix products, forward and backward."""
    tensors = [t.float().requires_grad_() for t in tensors]
    with FlopCounterMode(display=False) as counter:
        gradients(tensors, *scan(tensors, None, 32))
    return counter.get_total_flops()


def test_what_forgetting_costs_is_its_own_rows() -> None:
    """24 rows of a chunk and a head here: each costs what its share of the rest does, twice."""
    plain, one = work(forgetting(0)), work(forgetting(2))
    assert plain < one < plain * (1 + 3 / 24)
    tensors = forgetting(0)
    tensors[1] = tensors[1] * 0 + 50.0
    assert work(tensors) < 4 * plain


def test_zero_step_changes_nothing() -> None:
    """What padded rows rely on: dt 0 leaves the state as it is, whatever x, B and C hold."""
    x, dt, a, b, c, d, initial = draw(24, 1)
    dt[:, 10:] = 0.0
    whole = scan([x, dt, a, b, c, d, initial], None, 8)[1]
    short = scan([t[:, :10] if t.ndim >= 3 and t is not initial else t
                  for t in (x, dt, a, b, c, d, initial)], None, 8)[1]  # fmt: skip
    assert distance(whole, short) < 1e-12


@pytest.mark.parametrize("size_G", [1, 2, 4])
def test_steps_are_the_scan(size_G: int) -> None:
    x, dt, a, b, c, d, initial = draw(20, size_G)
    y, final = scan([x, dt, a, b, c, d, initial], None, 8)
    state = step_state(initial, size_G)
    for t in range(20):
        step = ScanInputs(x=x[:, t], dt=dt[:, t], A_H=a, B=b[:, t], C=c[:, t], D_H=d)
        assert distance(ssd_step(step, state), y[:, t]) < 1e-12
    assert distance(state, step_state(final, size_G)) < 1e-12
    assert torch.equal(chunked_state(step_state(final, size_G), a.shape[0]), final)


@pytest.mark.parametrize("size_S", [2, 30])
def test_convolution_keeps_to_its_document(size_S: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((2, size_S, 6), (6, 4), (6,))
    )
    ids = documents(size_S, 0.3)
    pairs = [
        (causal_conv(x, weight, bias, documents=Documents(ids)), convolution(x, weight, bias, ids)),
        (causal_conv(x, weight, bias), convolution(x, weight, bias, torch.zeros_like(ids))),
    ]
    for ours, expected in pairs:
        assert distance(ours, expected) < 1e-12
        weigh = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
        found = torch.autograd.grad((ours * weigh).sum(), (x, weight, bias))
        for one, other in zip(
            found, torch.autograd.grad((expected * weigh).sum(), (x, weight, bias)), strict=True
        ):
            assert distance(one, other) < 1e-12


@pytest.mark.parametrize("with_documents", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("size_S", [2, 7])
def test_gradient_of_the_convolution(size_S: int, with_bias: bool, with_documents: bool) -> None:
    generator = torch.Generator().manual_seed(size_S)

    def draw(*shape: int) -> torch.Tensor:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        return drawn.requires_grad_()

    bias = draw(3) if with_bias else None
    ids = torch.tensor([[0, 0, 1, 1, 1, 2, 2], [0, 1, 2, 2, 2, 2, 2]])[:, :size_S]
    documents = Documents(ids) if with_documents else None
    assert torch.autograd.gradcheck(
        lambda *tensors: causal_conv(*tensors, documents=documents),
        (draw(2, size_S, 3), draw(3, 4), bias),
    )


@pytest.mark.parametrize("second_document", [0, 1])
def test_the_equations_above_the_backward_are_its_gradients(second_document: int) -> None:
    """One head, one chunk of one or two documents, a state before it: the comment's lines."""
    generator = torch.Generator().manual_seed(5)
    size_Q, size_E, size_N = 6, 3, 4
    x, B, C, state, dy, dstate = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in (
            (size_Q, size_E), (size_Q, size_N), (size_Q, size_N), (size_E, size_N),
            (size_Q, size_E), (size_E, size_N),
        )
    )  # fmt: skip
    dt = torch.rand(size_Q, generator=generator, dtype=torch.float64) + 0.1
    A, D = torch.tensor([-0.7], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    ids = torch.tensor([0] * 3 + [second_document] * 3)
    leaves = [one.requires_grad_() for one in (x, dt, A, B, C, D, state)]
    y, final = ssd_chunked(
        ScanInputs(
            x=x[None, :, None], dt=dt[None, :, None], A_H=A, B=B[None, :, None],
            C=C[None, :, None], D_H=D,
        ),
        chunk_tokens=size_Q,
        documents=Documents(ids[None]),
        initial_state_BHEN=state[None, None],
    )  # fmt: skip
    loss = (y[0, :, 0] * dy).sum() + (final[0, 0] * dstate).sum()
    dx, ddt, dA, dB, dC, dD, dH = torch.autograd.grad(loss, leaves)
    with torch.no_grad():
        s = (dt * A).cumsum(0)
        u = x * (dt * (-s).exp())[:, None]
        M = ((ids[:, None] == ids) & torch.ones(size_Q, size_Q).tril().bool()).double()
        a, b = (ids == ids[-1]).double()[:, None], (ids == ids[0]).double()[:, None]
        c = 1.0 - second_document
        z = (M * (C @ B.T)) @ u + b * (C @ state.T)
        P = (a * u).T @ B + c * state
        torch.testing.assert_close(y[0, :, 0], s.exp()[:, None] * z + D * x)
        torch.testing.assert_close(final[0, 0], s[-1].exp() * P)
        dz, dP = s.exp()[:, None] * dy, s[-1].exp() * dstate
        scores = M * (dz @ u.T)
        du = (M * (C @ B.T)).T @ dz + a * (B @ dP.T)
        torch.testing.assert_close(dC, scores @ B + b * (dz @ state))
        torch.testing.assert_close(dB, scores.T @ C + a * (u @ dP))
        torch.testing.assert_close(dx, (dt * (-s).exp())[:, None] * du + D * dy)
        torch.testing.assert_close(dH, (b * dz).T @ C + c * dP)
        ds = (dz * z).sum(1) - (u * du).sum(1)
        ds[-1] += (dP * P).sum()
        dlog_decay = ds.flip(0).cumsum(0).flip(0)
        torch.testing.assert_close(ddt, (-s).exp() * (x * du).sum(1) + A * dlog_decay)
        torch.testing.assert_close(dA, (dlog_decay * dt).sum()[None])
        torch.testing.assert_close(dD, (dy * x).sum()[None])
