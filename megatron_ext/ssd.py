"""State-space duality of Mamba-2 in plain torch: chunked matmul form, causal conv, single steps.

Document ids never decrease along a row; tokens of different documents do not see each other.

The chunked form. With s_i the sum of dt A over a chunk up to token i, the decay from token j to
token i is exp(s_i) exp(-s_j), so the factors go onto outputs and inputs, and the products of a
chunk are shared by all heads of a group: no exponential and no mask of (chunk x chunk) a head. That
is safe while exp(-s_j) is far from overflow; a chunk that decays more is cut in halves first.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


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


def causal_conv(
    x_BSC: Tensor,
    weight_CK: Tensor,
    bias_C: Tensor | None,
    *,
    document_ids_BS: Tensor | None = None,
) -> Tensor:
    """Convolves each channel with its own taps over the tokens up to itself, without activation.

    Shapes: C channels, K taps; the last tap multiplies the token itself.
    """
    same = []
    if document_ids_BS is not None:
        ids = document_ids_BS
        for shift in range(1, min(weight_CK.shape[1], x_BSC.shape[1])):
            same.append((ids[:, shift:] == ids[:, :-shift])[..., None].to(x_BSC.dtype))
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


def causal_conv_step(
    x_BC: Tensor, state_BKC: Tensor, weight_CK: Tensor, bias_C: Tensor | None
) -> Tensor:
    """One token of `causal_conv`; `state_BKC` (the last K-1 inputs) is moved on in place."""
    window = torch.cat([state_BKC, x_BC[:, None]], 1)
    state_BKC.copy_(window[:, 1:])
    out = (window * weight_CK.t()).sum(1)
    return out if bias_C is None else out + bias_C


def step_state(state_BHEN: Tensor, num_groups: int) -> Tensor:
    """The state of `ssd_chunked` as `ssd_step` keeps it: channels innermost, groups outermost.

    Shapes: state_BGNC; C are the channels (heads x E) of one group.
    """
    size_B, size_N = state_BHEN.shape[0], state_BHEN.shape[3]
    return state_BHEN.reshape(size_B, num_groups, -1, size_N).transpose(2, 3).contiguous()


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
    document_ids_BS: Tensor | None = None,
    initial_state_BHEN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Runs the recurrence over whole sequences, a chunk at a time; returns y and the final state.

    The initial state belongs to the first document of a row, the final state to the last.

    Shapes: y_BSHE, final_state_BHEN.
    Source: Dao and Gu 2024, "Transformers are SSMs", section 6.
    """
    x_BSHE, dt_BSH, B_BSGN, C_BSGN = inputs.x, inputs.dt, inputs.B, inputs.C
    size_S = x_BSHE.shape[1]
    with torch.no_grad():
        size_Q = _safe_chunk(dt_BSH * inputs.A_H, min(chunk_tokens, size_S))
    padding = -size_S % size_Q
    if padding:
        x_BSHE, B_BSGN, C_BSGN = (
            F.pad(tensor, (0, 0, 0, 0, 0, padding)) for tensor in (x_BSHE, B_BSGN, C_BSGN)
        )
        dt_BSH = F.pad(dt_BSH, (0, 0, 0, padding))
        if document_ids_BS is not None:
            last = document_ids_BS[:, -1:].expand(-1, padding)
            document_ids_BS = torch.cat([document_ids_BS, last], 1)
    masks = None if document_ids_BS is None else _document_masks(document_ids_BS, size_Q)
    tensors = (x_BSHE, dt_BSH, inputs.A_H, B_BSGN, C_BSGN, inputs.D_H, initial_state_BHEN)
    y_BSHE, final_BHEN = _ChunkedScan.apply(*tensors, masks, size_Q)  # type: ignore[misc]
    return y_BSHE[:, :size_S] if padding else y_BSHE, final_BHEN


_MOST_DECAY = 60.0  # of a chunk: exp(60) is 1e26, and float32 holds sums of 1e38
_TOKEN_DECAY = 40.0  # of a token: exp(-40) is 4e-18, nothing beside 1 in float64; more is cut off


def _safe_chunk(log_decay_BSH: Tensor, chunk_tokens: int) -> int:
    """The longest chunk, `chunk_tokens` halved as often as needed, that decays little enough."""
    log_decay_BSH = log_decay_BSH.clamp_min(-_TOKEN_DECAY)
    size_Q = chunk_tokens
    while size_Q > 1:
        whole = F.pad(log_decay_BSH, (0, 0, 0, -log_decay_BSH.shape[1] % size_Q))
        if whole.unflatten(1, (-1, size_Q)).sum(2).min() > -_MOST_DECAY:
            break
        size_Q = (size_Q + 1) // 2
    return size_Q


def _document_masks(ids_BS: Tensor, size_Q: int) -> tuple[Tensor, ...]:
    """Who sees whom: in a chunk; the state before it; the state after it; from state to state."""
    ids = ids_BS.unflatten(1, (-1, size_Q))
    before = torch.cat([ids[:, :1, :1], ids[:, :-1, -1:]], 1)
    last = ids[:, :, -1:]
    same = ids[..., :, None] == ids[..., None, :]
    return same, ids == before, ids == last, before == last


class _ChunkedScan(torch.autograd.Function):
    """The chunked form with its derivative by hand.

    Names: `inputs` are x dt exp(-s), `weights` are exp(s), `states` enter a chunk; products of one
    chunk and group are batches of [Q, N] and [Q, heads of the group x E].
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        x, dt, A, B, C, D, initial, masks, size_Q = args
        size_B, size_S, size_H, size_E = x.shape
        size_G, size_N = B.shape[2:]
        chunks = (size_B, size_S // size_Q, size_Q)
        cut = _Cut(chunks, size_G)
        log_decay = (dt * A).clamp_min_(-_TOKEN_DECAY)
        weights = log_decay.view(*chunks, size_H).cumsum(2).exp_()
        dt_weights = (dt.view_as(weights) / weights).view_as(dt)
        inputs = cut(x * dt_weights[..., None])
        B, C = cut(B), cut(C)
        scores = cut.mask(torch.bmm(C, B.transpose(1, 2)), masks)
        B_out, C_in = (B, C) if masks is None else (cut.rows(B, masks[2]), cut.rows(C, masks[1]))

        gains = torch.bmm(inputs.transpose(1, 2), B_out)
        gains = gains.view(*chunks[:2], size_H, size_E, size_N)
        totals = weights[:, :, -1, :, None, None]
        carry = None if masks is None else masks[3][..., None, None].to(x.dtype)
        states = x.new_empty(size_B, chunks[1] + 1, size_H, size_E, size_N)
        states[:, 0] = 0.0 if initial is None else initial
        for chunk in range(chunks[1]):
            if carry is None:
                gains[:, chunk].add_(states[:, chunk])
            else:
                gains[:, chunk].addcmul_(states[:, chunk], carry[:, chunk])
            torch.mul(gains[:, chunk], totals[:, chunk], out=states[:, chunk + 1])
        before = states[:, :-1].reshape(-1, inputs.shape[2], size_N)
        summed = torch.bmm(scores, inputs).baddbmm_(C_in, before.transpose(1, 2))
        summed = cut.back(summed, x.shape)
        weights = weights.view_as(dt)
        skip = torch.zeros_like(x) if D is None else x * D[:, None]
        y = skip.addcmul_(summed, weights[..., None])
        ctx.save_for_backward(
            *(x, dt, A, D, B, C, B_out, C_in, scores, inputs, gains, before, summed),
            *(weights, dt_weights, totals, carry),
        )
        ctx.masks, ctx.cut, ctx.has_initial = masks, cut, initial is not None
        return y, states[:, -1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        dy, dstate = grad_outputs
        (x, dt, A, D, B, C, B_out, C_in, scores, inputs, gains, before, summed) = ctx.saved_tensors[
            :13
        ]
        weights, dt_weights, totals, carry = ctx.saved_tensors[13:]
        masks, cut = ctx.masks, ctx.cut
        chunks, size_H = cut.chunks, x.shape[2]
        dsummed_natural = dy * weights[..., None]
        dsummed = cut(dsummed_natural)
        dscores = cut.mask(torch.bmm(dsummed, inputs.transpose(1, 2)), masks)
        dC = torch.bmm(dsummed, before)
        dbefore = torch.bmm(dsummed.transpose(1, 2), C_in).view_as(gains)
        dgains = torch.empty_like(gains)
        for chunk in reversed(range(chunks[1])):
            torch.mul(dstate, totals[:, chunk], out=dgains[:, chunk])
            if carry is None:
                dstate = dbefore[:, chunk].add_(dgains[:, chunk])
            else:
                dstate = dbefore[:, chunk].addcmul_(dgains[:, chunk], carry[:, chunk])
        dgains_flat = dgains.view(-1, inputs.shape[2], gains.shape[-1])
        dB = torch.bmm(inputs, dgains_flat)
        if masks is not None:
            dC, dB = cut.rows(dC, masks[1]), cut.rows(dB, masks[2])
        dC.baddbmm_(dscores, B)
        dB.baddbmm_(dscores.transpose(1, 2), C)
        dinputs = torch.bmm(scores.transpose(1, 2), dsummed)
        dinputs.baddbmm_(B_out, dgains_flat.transpose(1, 2))
        dinputs = cut.back(dinputs, x.shape)

        # Every term is a product of exp(s) of its output and exp(-s) of its input: so are the sums.
        ddt_weights = (x * dinputs).sum(-1)
        ds = (dsummed_natural.mul_(summed)).sum(-1).addcmul_(ddt_weights, dt_weights, value=-1.0)
        ds = ds.view(*chunks, size_H)
        ds[:, :, -1] += (dgains * gains).sum((-1, -2))
        dlog_decay = ds.flip(2).cumsum(2).flip(2).view_as(dt)
        ddt = (ddt_weights / weights).addcmul_(dlog_decay, A)
        dA = (dlog_decay * dt).sum((0, 1))
        dx = dinputs.mul_(dt_weights[..., None])
        dD = None
        if D is not None:
            dD = (dy * x).sum((0, 1, 3))
            dx.addcmul_(dy, D[:, None])
        dB, dC = (cut.back(d, (*x.shape[:2], cut.groups, d.shape[2])) for d in (dB, dC))
        return dx, ddt, dA, dB, dC, dD, dstate if ctx.has_initial else None, None, None


class _Cut:
    """Between [B, S, heads or groups, width] and batches [B x chunks x groups, Q, width]."""

    def __init__(self, chunks: tuple[int, int, int], groups: int) -> None:
        self.chunks, self.groups = chunks, groups

    def __call__(self, tensor: Tensor) -> Tensor:
        tensor = tensor.reshape(*self.chunks, self.groups, -1)
        return tensor.transpose(2, 3).reshape(-1, self.chunks[2], tensor.shape[-1])

    def back(self, batch: Tensor, shape: tuple[int, ...]) -> Tensor:
        tensor = batch.view(*self.chunks[:2], self.groups, self.chunks[2], -1)
        return tensor.transpose(2, 3).reshape(shape)

    def mask(self, scores: Tensor, masks: tuple[Tensor, ...] | None) -> Tensor:
        """Zeroes, in place, what a token may not see in its chunk."""
        scores.tril_()
        if masks is not None:
            same = masks[0][:, :, None]
            scores.view(*self.chunks[:2], self.groups, *same.shape[-2:]).mul_(same)
        return scores

    def rows(self, batch: Tensor, mask: Tensor) -> Tensor:
        """Zeroes the tokens that `mask` [B, chunks, Q] leaves out."""
        whole = batch.view(*self.chunks[:2], self.groups, self.chunks[2], -1)
        return (whole * mask[:, :, None, :, None]).view_as(batch)
