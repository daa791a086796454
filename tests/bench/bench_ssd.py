"""The chunked scan, forward and backward: against the recurrence, the plain chunked form, the same
form through torch.compile, and its own products alone."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from paired import measure, show
from torch import Tensor

from frontload.megatron_ext.model.ssd import Documents, ScanInputs, ssd_chunked
from frontload.recipes.study.expand import load_study


def draw(shape: dict[str, int]) -> list[Tensor]:
    b, s, h, e, g, n = (shape[letter] for letter in "BSHEGN")
    torch.manual_seed(0)
    return [
        torch.randn(b, s, h, e),
        F.softplus(torch.randn(b, s, h) - 4.0),
        -torch.rand(h) * 15.0 - 1.0,
        torch.randn(b, s, g, n),
        torch.randn(b, s, g, n),
        torch.randn(h),
    ]


def chunked(x: Tensor, dt: Tensor, *rest: Tensor, ids: Tensor | None, chunk: int) -> Tensor:
    a, b, c, d = rest
    inputs = ScanInputs(x=x, dt=dt, A_H=a, B=b, C=c, D_H=d)
    return ssd_chunked(
        inputs, chunk_tokens=chunk, documents=None if ids is None else Documents(ids)
    )[0]


def recurrence(x: Tensor, dt: Tensor, *rest: Tensor) -> Tensor:
    """A token at a time, all rows and heads at once: what one writes first."""
    a, b, c, d = rest
    per_group = x.shape[2] // b.shape[2]
    b, c = (t.repeat_interleave(per_group, 2) for t in (b, c))
    decay, gain = (dt * a).exp()[..., None, None], (x * dt[..., None])[..., None] * b[..., None, :]
    state, outputs = torch.zeros_like(gain[:, 0]), []
    for decay_t, gain_t, c_t in zip(*(t.unbind(1) for t in (decay, gain, c)), strict=True):
        state = state * decay_t + gain_t
        outputs.append((state @ c_t[..., None]).squeeze(-1))
    return torch.stack(outputs, 1) + x * d[:, None]


def plain_chunked(
    x: Tensor, dt: Tensor, *rest: Tensor, chunk: int, ids: Tensor | None = None
) -> Tensor:
    """The chunked form as the paper writes it, one einsum a term; autograd derives it."""
    assert ids is None, "without documents"
    a, b, c, d = rest
    heads = x.shape[2] // b.shape[2]
    b, c = (t.repeat_interleave(heads, 2).unflatten(1, (-1, chunk)) for t in (b, c))
    inputs = (x * dt[..., None]).unflatten(1, (-1, chunk))
    sums = (dt * a).unflatten(1, (-1, chunk)).cumsum(2)
    apart = sums[:, :, :, None] - sums[:, :, None]  # b c i j h
    seen = torch.ones(chunk, chunk, dtype=torch.bool).tril()[:, :, None]
    decay = apart.masked_fill(~seen, -torch.inf).exp()
    within = torch.einsum("bcihn,bcjhn,bcijh,bcjhe->bcihe", c, b, decay, inputs)
    to_end = (sums[:, :, -1:] - sums).exp()
    gains = torch.einsum("bcjhn,bcjh,bcjhe->bchen", b, to_end, inputs)
    state, before = torch.zeros_like(gains[:, 0]), []
    for gain, total in zip(gains.unbind(1), sums[:, :, -1].exp().unbind(1), strict=True):
        before.append(state)
        state = state * total[..., None, None] + gain
    carried = torch.einsum("bcihn,bchen,bcih->bcihe", c, torch.stack(before, 1), sums.exp())
    return (within + carried).flatten(1, 2) + x * d[:, None]


def products(shape: dict[str, int]) -> Callable[[], None]:
    """Every matrix product of one forward and backward pass of the chunked form, and no more."""
    b, s, h, e, g, n, q = (shape[letter] for letter in "BSHEGNQ")
    batch = b * (s // q) * g
    state, scores = torch.randn(batch, q, n), torch.randn(batch, q, q)
    wide, memory = torch.randn(batch, q, h // g * e), torch.randn(batch, h // g * e, n)

    def run() -> None:
        torch.bmm(state, state.transpose(1, 2))
        torch.bmm(scores, wide)
        torch.bmm(wide.transpose(1, 2), state)
        torch.bmm(state, memory.transpose(1, 2))
        torch.bmm(wide, wide.transpose(1, 2))  # from here on backward
        torch.bmm(wide, memory)
        torch.bmm(wide, memory)
        torch.bmm(wide.transpose(1, 2), state)
        torch.bmm(state, memory.transpose(1, 2))
        torch.bmm(scores, wide)
        torch.bmm(scores, state)
        torch.bmm(scores, state)

    return run


def compare(shape: dict[str, int], *, rounds: int, calls: int = 1) -> None:
    tensors = [tensor.requires_grad_() for tensor in draw(shape)]
    size = (shape["B"], shape["S"])
    ids = (torch.rand(size) < 1 / 40).long().cumsum(1)
    weigh = torch.randn_like(tensors[0])
    forgetting, forgotten = ([t.detach().clone() for t in tensors] for _ in range(2))
    forgetting[1][0, 70:72, 0] = -40.0 / forgetting[2][0]
    forgotten[1][:] = -40.0 / forgotten[2]
    for tensor in (*forgetting, *forgotten):
        tensor.requires_grad_()

    def with_gradient(
        scan: Callable[..., Tensor], of: list[Tensor] = tensors, **options: object
    ) -> Callable[[], object]:
        return lambda: torch.autograd.grad(scan(*of, **options), of, weigh)

    chunk = shape["Q"]
    compiled = torch.compile(plain_chunked)
    whole = chunked(*tensors, ids=None, chunk=chunk)
    torch.testing.assert_close(plain_chunked(*tensors, chunk=chunk), whole, atol=1e-4, rtol=1e-4)
    timings = measure(
        {
            "recurrence": with_gradient(recurrence),
            "plain chunked": with_gradient(plain_chunked, chunk=chunk),
            "plain chunked, torch.compile": with_gradient(compiled, chunk=chunk),
            "chunked": with_gradient(chunked, ids=None, chunk=chunk),
            "chunked, document resets": with_gradient(chunked, ids=ids, chunk=chunk),
            "chunked, a head forgets twice": with_gradient(
                chunked, of=forgetting, ids=None, chunk=chunk
            ),
            "chunked, all forget always": with_gradient(
                chunked, of=forgotten, ids=None, chunk=chunk
            ),
            "its matrix products alone": products(shape),
        },
        rounds=rounds,
        calls=calls,
    )
    words = " ".join(f"{letter}={number}" for letter, number in shape.items())
    show(f"scan, forward and backward, {words} (Q: chunk; goal 15)", timings, base="recurrence",
         tokens=size[0] * size[1])  # fmt: skip
    share = timings["its matrix products alone"].best / timings["chunked"].best
    for name, goal in (("plain chunked", 3.7), ("plain chunked, torch.compile", 2.5)):
        ratio = timings[name].best / timings["chunked"].best
        print(f"chunked is {ratio:.1f} x as fast as {name} (goal {goal})")
    print(f"matrix products are {share:.0%} of the chunked form's time")


def laptop_shape() -> dict[str, int]:
    """That of a layer in a training step of study `laptop`."""
    study = load_study("laptop").recipe
    model, training = study.model, study.pretraining
    return {
        "B": training.global_batch_sequences,
        "S": training.sequence_tokens,
        "H": model.mamba_num_heads,
        "E": model.mamba_head_dim,
        "G": model.mamba_num_groups,
        "N": model.mamba_state_dim,
        "Q": model.mamba_chunk_tokens,
    }


if __name__ == "__main__":
    compare(laptop_shape(), rounds=20, calls=10)  # one takes 2 ms: too short for a clock
    compare({"B": 16, "S": 256, "H": 8, "E": 32, "G": 1, "N": 32, "Q": 32}, rounds=3)
