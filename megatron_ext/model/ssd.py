"""State-space duality of Mamba-2 in plain torch: chunked matmul form, causal conv, single steps.

Document ids never decrease along a row; tokens of different documents do not see each other.

The chunked form. With s_i the sum of dt A over a chunk up to token i, the decay from token j to
token i is exp(s_i) exp(-s_j), so the factors go onto outputs and inputs, and the products of a
chunk are shared by all heads of a group: no exponential and no mask of (chunk x chunk) a head. That
is safe while exp(-s_j) is far from overflow; heads that decay more are left to ssd_steep.py.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from frontload.megatron_ext.model.ssd_steep import factors_and_rows, read_rows


@dataclass(frozen=True, kw_only=True)
class ScanInputs:
    """What the recurrence reads, with a token dim S in the chunked form and without in a step.

    h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t ;  y_t = h_t C_t + D x_t
    """

    x: Tensor  # [B, S, H, E]
    dt: Tensor  # [B, S, H], after softplus
    A_H: Tensor  # negative
    B: Tensor  # [B, S, G, N]
    C: Tensor  # [B, S, G, N]
    D_H: Tensor | None = None


@functools.lru_cache(maxsize=16)
def _causal(size_Q: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One where a token (first dim) sees another; multiplied, it is cheaper than `tril_`."""
    with torch.inference_mode(False):
        return torch.ones(size_Q, size_Q, dtype=dtype, device=device).tril_()


@dataclass(frozen=True, kw_only=True)
class _ChunkMasks:
    """Factors, one or zero, of what one chunk sees; None where nothing is hidden."""

    seen: Tensor  # [Q, Q], or [B x chunks, 1, Q, Q] with documents
    before: Tensor | None = None  # [B x chunks, 1, Q, 1]: who sees the state before the chunk
    after: Tensor | None = None  # the same: whom the state after it sees
    carry: tuple[Tensor, ...] = ()  # [B, 1, 1, 1] a chunk: does the state before reach beyond it

    def carries(self) -> Iterable[Tensor | None]:
        """One factor a chunk, for as many chunks as there are."""
        return self.carry or repeat(None)


class Documents:
    """Which tokens of a batch see each other; a mask is made when a layer first asks for it."""

    def __init__(self, ids_BS: Tensor) -> None:
        self.ids_BS = ids_BS
        self._hidden: dict[torch.dtype, Tensor] = {}
        self._taps: dict[tuple[int, torch.dtype], list[Tensor]] = {}
        self._chunks: dict[tuple[int, torch.dtype], _ChunkMasks] = {}

    def taps(self, num_shifts: int, dtype: torch.dtype) -> list[Tensor]:
        """For shifts from 1: one where a token and that many before it are of one document."""
        key = (num_shifts, dtype)
        if key not in self._taps:
            ids = self.ids_BS
            self._taps[key] = [
                (ids[:, shift:] == ids[:, :-shift])[..., None].to(dtype)
                for shift in range(1, num_shifts + 1)
            ]
        return self._taps[key]

    def hidden(self, dtype: torch.dtype) -> Tensor:
        """What attention adds to its scores, [B, 1, S, S]: -inf where a query may not look."""
        if dtype not in self._hidden:
            ids = self.ids_BS
            same = (ids[:, None, :, None] == ids[:, None, None, :]).tril_()
            hidden = torch.zeros(same.shape, dtype=dtype, device=ids.device)
            self._hidden[dtype] = hidden.masked_fill_(~same, float("-inf"))
        return self._hidden[dtype]

    def in_chunks(self, size_Q: int) -> Tensor:
        """[B, chunks, Q]; tokens that fill up the last chunk are of the last document."""
        ids = self.ids_BS
        if padding := -ids.shape[1] % size_Q:
            ids = torch.cat([ids, ids[:, -1:].expand(-1, padding)], 1)
        return ids.unflatten(1, (-1, size_Q))

    def chunks(self, size_Q: int, dtype: torch.dtype) -> _ChunkMasks:
        """The masks of the scan."""
        key = (size_Q, dtype)
        if key not in self._chunks:
            ids = self.in_chunks(size_Q)
            before, last = torch.cat([ids[:, :1, :1], ids[:, :-1, -1:]], 1), ids[:, :, -1:]
            same = (ids[..., :, None] == ids[..., None, :]).flatten(0, 1)[:, None]
            carry = (before == last)[..., None, None].to(dtype)
            self._chunks[key] = _ChunkMasks(
                seen=same.to(dtype).mul_(_causal(size_Q, dtype, ids.device)),
                before=(ids == before).flatten(0, 1)[:, None, :, None].to(dtype),
                after=(ids == last).flatten(0, 1)[:, None, :, None].to(dtype),
                carry=carry.unbind(1),
            )
        return self._chunks[key]


def causal_conv(
    x_BSC: Tensor,
    weight_CK: Tensor,
    bias_C: Tensor | None,
    *,
    documents: Documents | None = None,
) -> Tensor:
    """Convolves each channel with its own taps over the tokens up to itself, without activation.

    Shapes: C channels, K taps; the last tap multiplies the token itself.
    """
    same = []
    if documents is not None:
        shifts = min(weight_CK.shape[1], x_BSC.shape[1]) - 1
        same = documents.taps(shifts, x_BSC.dtype)
    return _CausalConv.apply(x_BSC, weight_CK, bias_C, same)  # type: ignore[return-value]


class _CausalConv(torch.autograd.Function):
    """The taps one by one, on views: autograd would pad, mask and sum a copy for each."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight_CK: Tensor, bias: Tensor | None, same: list[Tensor]
    ) -> Tensor:
        weights = weight_CK.t().contiguous()
        x = x.contiguous()
        out = x * weights[-1] if bias is None else torch.addcmul(bias, x, weights[-1])
        for shift in range(1, min(len(weights), x.shape[1])):
            seen = x[:, :-shift] * same[shift - 1] if same else x[:, :-shift]
            out[:, shift:].addcmul_(seen, weights[-1 - shift])
        ctx.save_for_backward(x, weights, *same)
        ctx.has_bias = bias is not None
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weights, *same = ctx.saved_tensors
        dy = grad_outputs[0].contiguous()
        dx = dy * weights[-1]
        dweights = torch.zeros_like(weights)
        torch.sum(dy * x, (0, 1), out=dweights[-1])
        for shift in range(1, min(len(weights), x.shape[1])):
            reached = dy[:, shift:] * same[shift - 1] if same else dy[:, shift:]
            dx[:, :-shift].addcmul_(reached, weights[-1 - shift])
            torch.sum(reached * x[:, :-shift], (0, 1), out=dweights[-1 - shift])
        return dx, dweights.t(), dy.sum((0, 1)) if ctx.has_bias else None, None


def step_state(state_BHEN: Tensor, num_groups: int) -> Tensor:
    """The state of `ssd_chunked` as `ssd_step` keeps it: channels innermost, groups outermost.

    Shapes: state_BGNC; C are the channels (heads x E) of one group.
    """
    size_B, size_N = state_BHEN.shape[0], state_BHEN.shape[3]
    return state_BHEN.reshape(size_B, num_groups, -1, size_N).transpose(2, 3).contiguous()


def chunked_state(state_BGNC: Tensor, num_heads: int) -> Tensor:
    """The state of `ssd_step` as `ssd_chunked` begins with it: the inverse of `step_state`.

    Shapes: state_BHEN.
    """
    size_B, _, size_N, _ = state_BGNC.shape
    return state_BGNC.transpose(2, 3).reshape(size_B, num_heads, -1, size_N)


def ssd_step(inputs: ScanInputs, state_BGNC: Tensor) -> Tensor:
    """One token of the recurrence; `state_BGNC`, see `step_state`, is moved on in place.

    Shapes: y_BHE.
    """
    x_BHE, B_BGN, C_BGN = inputs.x, inputs.B, inputs.C
    size_B, size_G, size_N, size_C = state_BGNC.shape
    decay_BH = (inputs.dt * inputs.A_H).exp()
    # the heads of a group share B and C: one product a group, none a head
    wide = (size_B, size_G, 1, size_C)
    gain = (x_BHE * inputs.dt[..., None]).view(wide)
    state_BGNC.mul_(decay_BH[..., None].expand(x_BHE.shape).reshape(wide))
    state_BGNC.addcmul_(gain, B_BGN[..., None])
    state, C_T1N = state_BGNC.flatten(0, 1), C_BGN.reshape(-1, 1, size_N)
    y_BHE = torch.bmm(C_T1N, state).view_as(x_BHE)
    return y_BHE if inputs.D_H is None else torch.addcmul(y_BHE, x_BHE, inputs.D_H[:, None])


def ssd_chunked(
    inputs: ScanInputs,
    *,
    chunk_tokens: int,
    documents: Documents | None = None,
    initial_state_BHEN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Runs the recurrence over whole sequences, a chunk at a time; returns y and the final state.

    The initial state belongs to the first document of a row, the final state to the last.

    Shapes: y_BSHE, final_state_BHEN.
    Source: Dao and Gu 2024, "Transformers are SSMs", section 6.
    """
    x_BSHE, dt_BSH, B_BSGN, C_BSGN = inputs.x, inputs.dt, inputs.B, inputs.C
    size_S = x_BSHE.shape[1]
    size_Q = min(chunk_tokens, size_S)
    padding = -size_S % size_Q
    if padding:
        x_BSHE, B_BSGN, C_BSGN = (
            F.pad(tensor, (0, 0, 0, 0, 0, padding)) for tensor in (x_BSHE, B_BSGN, C_BSGN)
        )
        dt_BSH = F.pad(dt_BSH, (0, 0, 0, padding))
    with torch.no_grad():
        factors, rows = factors_and_rows((dt_BSH * inputs.A_H).unflatten(1, (-1, size_Q)))
    tensors = (x_BSHE, dt_BSH, inputs.A_H, B_BSGN, C_BSGN)
    read = (None, None)
    if rows is not None:
        ids_BcQ = None if documents is None else documents.in_chunks(size_Q)
        read = read_rows(rows, tensors, ids_BcQ, size_Q=size_Q)
    masks = _ChunkMasks(seen=_causal(size_Q, x_BSHE.dtype, x_BSHE.device))
    if documents is not None:
        masks = documents.chunks(size_Q, x_BSHE.dtype)
    y_BSHE, final_BHEN = _ChunkedScan.apply(  # type: ignore[misc]
        *tensors, inputs.D_H, initial_state_BHEN, *read, factors, masks, rows
    )
    return y_BSHE[:, :size_S] if padding else y_BSHE, final_BHEN


class _ChunkedScan(torch.autograd.Function):
    """The chunked form with its derivative by hand.

    Names: `inputs` are x dt exp(-s), `weights` are exp(s), `before` the states that enter a chunk;
    products of one chunk and group are batches of [Q, N] and [Q, heads of the group x E].
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        x, dt, A, B, C, D, initial, y_rows, state_rows, (decays, divisor), masks, rows = args
        size_B, _, size_H, size_E = x.shape
        size_G, size_N = B.shape[2:]
        chunks = (size_B, decays.shape[1], decays.shape[2])
        cut = _Cut(chunks, size_G)
        weights, divisor = decays.view(dt.shape), divisor.view(dt.shape)
        x, dt_weights = x.contiguous(), dt / divisor
        inputs = cut(x * dt_weights[..., None])
        B, C = cut(B).contiguous(), cut(C).contiguous()  # so that what they were cut of is freed
        scores = cut.masked(torch.bmm(C, B.transpose(1, 2)), masks.seen)
        B_out, C_in = cut.rows(B, masks.after), cut.rows(C, masks.before)

        gains = torch.bmm(inputs.transpose(1, 2), B_out)
        gains = gains.view(*chunks[:2], size_H, size_E, size_N)
        totals = decays[:, :, -1, :, None, None]
        before, final = torch.empty_like(gains), torch.empty_like(gains[:, 0])
        states = before.unbind(1)
        states[0].copy_(initial) if initial is not None else states[0].zero_()
        moves = zip(gains.unbind(1), totals.unbind(1), states, masks.carries(), strict=False)
        ends = repeat(None) if rows is None else rows.spread(state_rows, gains)
        for (gain, total, state, carry), after, end in zip(
            moves, (*states[1:], final), ends, strict=False
        ):
            gain.add_(state) if carry is None else gain.addcmul_(state, carry)
            torch.mul(gain, total, out=after)
            if end is not None:
                after.add_(end)
        before = before.view(-1, inputs.shape[2], size_N)
        summed = torch.bmm(scores, inputs).baddbmm_(C_in, before.transpose(1, 2))
        summed = cut.back(summed, x.shape)
        wide_D = None if D is None else D[:, None].expand(-1, size_E).flatten()
        skip = torch.zeros_like(x) if wide_D is None else (x.flatten(2) * wide_D).view_as(x)
        y = skip.addcmul_(summed, weights[..., None])
        if rows is not None:
            rows.add(y_rows, y.unflatten(1, chunks[1:]))
        ctx.save_for_backward(
            *(x, dt, A, wide_D, B, C, B_out, C_in, scores, inputs, gains, before, summed),
            *(weights, dt_weights, divisor),
        )
        ctx.masks, ctx.cut, ctx.rows, ctx.has_initial = masks, cut, rows, initial is not None
        ctx.set_materialize_grads(False)
        return y, final

    # One chunk and one head; tokens i and j of its Q. u_j = x_j dt_j exp(-s_j) is `inputs`, H_EN
    # the state `before` the chunk. Masks, all 1 for j <= i without documents: M_ij (i sees j),
    # b_i (i sees H), a_j (the state after sees j), c (H reaches beyond the chunk). Forward:
    #   z_i  = sum_j M_ij (C_i . B_j) u_j + b_i H C_i         y_i = exp(s_i) z_i + D x_i
    #   P_EN = sum_j a_j u_j B_j^T + c H                      the state after it is exp(s_Q) P
    # `summed` is z and `gains` P. With dz_i = exp(s_i) dy_i, and dP = exp(s_Q) times the gradient
    # of the state after the chunk, the four gradients are
    #   dC_i = sum_j M_ij (dz_i . u_j) B_j + b_i H^T dz_i     (summed over the heads of a group)
    #   dB_j = sum_i M_ij (dz_i . u_j) C_i + a_j dP^T u_j     (likewise)
    #   du_j = sum_i M_ij (C_i . B_j) dz_i + a_j dP B_j
    #   dH   = sum_i b_i dz_i C_i^T + c dP                    (`_chunks_back`, last chunk first)
    # and from du: dx_j = dt_j exp(-s_j) du_j + D dy_j. s stands in exponents only:
    #   ds_i = dz_i . z_i - u_i . du_i, at i = Q also the sum of dP P
    #   d(dt A)_j = sum of ds_i over i >= j;   ddt_j = exp(-s_j) x_j . du_j + A d(dt A)_j
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, *grad_outputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, dt, A, wide_D, *products, summed, weights, dt_weights, divisor = ctx.saved_tensors
        B, C, B_out, C_in, scores, inputs, gains, before = products
        masks, cut, size_H = ctx.masks, ctx.cut, x.shape[2]
        dy, dfinal = grad_outputs
        dy = torch.zeros_like(x) if dy is None else dy.contiguous()
        dsummed_natural = dy * weights[..., None]
        dsummed = cut(dsummed_natural)
        dscores = cut.masked(torch.bmm(dsummed, inputs.transpose(1, 2)), masks.seen)
        dC = torch.bmm(dsummed, before)
        dbefore = torch.bmm(dsummed.transpose(1, 2), C_in).view_as(gains)
        totals = weights.view(*cut.chunks, size_H)[:, :, -1, :, None, None]
        dgains, dstate = _chunks_back(dbefore, totals, masks.carries(), dstate=dfinal)
        dgains_flat = dgains.view_as(before)
        dB = torch.bmm(inputs, dgains_flat)
        dC, dB = cut.rows(dC, masks.before), cut.rows(dB, masks.after)
        dC.baddbmm_(dscores, B)
        dB.baddbmm_(dscores.transpose(1, 2), C)
        dinputs = torch.bmm(scores.transpose(1, 2), dsummed)
        dinputs.baddbmm_(B_out, dgains_flat.transpose(1, 2))
        dinputs = cut.back(dinputs, x.shape)

        # Every term is a product of exp(s) of its output and exp(-s) of its input: so are the sums.
        ddt_weights = (x * dinputs).sum(-1)
        ds = (dsummed_natural.mul_(summed)).sum(-1).addcmul_(ddt_weights, dt_weights, value=-1.0)
        ds = ds.view(*cut.chunks, size_H)
        ds[:, :, -1].add_((dgains * gains).flatten(3).sum(-1))
        dlog_decay = ds.flip(2).cumsum(2).flip(2).view_as(dt)
        ddt = (ddt_weights / divisor).addcmul_(dlog_decay, A)
        dA = (dlog_decay * dt).flatten(0, 1).sum(0)
        dx = dinputs.mul_(dt_weights[..., None])
        dD = None
        if wide_D is not None:  # rows of all heads: longer loops than those over one head
            dD = (dy * x).view(-1, len(wide_D)).sum(0).view(size_H, -1).sum(1)
            dx.view(-1, len(wide_D)).addcmul_(dy.view(-1, len(wide_D)), wide_D)
        dB, dC = (cut.back(d, (*x.shape[:2], cut.groups, d.shape[2])) for d in (dB, dC))
        drows = (None, None)
        if ctx.rows is not None:
            dy_BcQHE = dy.unflatten(1, cut.chunks[1:])
            drows = (ctx.rows.of(dy_BcQHE), ctx.rows.of_states(dbefore, dfinal))
        dinitial = dstate if ctx.has_initial else None
        return dx, ddt, dA, dB, dC, dD, dinitial, *drows, None, None, None


def _chunks_back(
    dbefore: Tensor, totals: Tensor, carries: Iterable[Tensor | None], *, dstate: Tensor | None
) -> tuple[Tensor, Tensor]:
    """From the last chunk to the first: gradients of the gains, and of the initial state."""
    dgains = torch.empty_like(dbefore)
    moves = zip(
        dgains.unbind(1), totals.unbind(1), dbefore.unbind(1), islice(carries, dgains.shape[1]),
        strict=True,
    )  # fmt: skip
    dafter = dgains.new_zeros(()) if dstate is None else dstate
    for dgain, total, dstate_in, carry in reversed(list(moves)):
        torch.mul(dafter, total, out=dgain) if dafter.ndim else dgain.zero_()
        dafter = dstate_in.add_(dgain) if carry is None else dstate_in.addcmul_(dgain, carry)
    return dgains, dafter


class _Cut:
    """Between [B, S, heads or groups, width] and batches [B x chunks x groups, Q, width]."""

    def __init__(self, chunks: tuple[int, int, int], groups: int) -> None:
        self.chunks, self.groups = chunks, groups

    def __call__(self, tensor: Tensor) -> Tensor:
        if self.groups == 1:
            return tensor.reshape(self.chunks[0] * self.chunks[1], self.chunks[2], -1)
        tensor = tensor.reshape(*self.chunks, self.groups, -1)
        return tensor.transpose(2, 3).reshape(-1, self.chunks[2], tensor.shape[-1])

    def back(self, batch: Tensor, shape: tuple[int, ...]) -> Tensor:
        if self.groups == 1:
            return batch.view(shape)
        tensor = batch.view(*self.chunks[:2], self.groups, self.chunks[2], -1)
        return tensor.transpose(2, 3).reshape(shape).contiguous()

    def masked(self, scores: Tensor, seen: Tensor) -> Tensor:
        """Zeroes, in place, what a token may not see in its chunk."""
        scores.view(-1, self.groups, *seen.shape[-2:]).mul_(seen)
        return scores

    def rows(self, batch: Tensor, mask: Tensor | None) -> Tensor:
        """Zeroes the tokens that `mask` leaves out."""
        if mask is None:
            return batch
        return (batch.unflatten(0, (-1, self.groups)) * mask).view(batch.shape)
