"""State-space duality of Mamba-2 in plain torch: chunked matmul form, causal conv, single steps.

Document ids never decrease along a row; tokens of different documents do not see each other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
    num_taps = weight_CK.shape[1]
    out = x_BSC * weight_CK[:, -1]
    if bias_C is not None:
        out = out + bias_C
    for shift in range(1, min(num_taps, x_BSC.shape[1])):
        shifted = x_BSC[:, :-shift]
        if document_ids_BS is not None:
            same = document_ids_BS[:, shift:] == document_ids_BS[:, :-shift]
            shifted = shifted * same[..., None]
        out = out + F.pad(shifted * weight_CK[:, -1 - shift], (0, 0, shift, 0))
    return out


def causal_conv_step(
    x_BC: Tensor, state_BKC: Tensor, weight_CK: Tensor, bias_C: Tensor | None
) -> Tensor:
    """One token of `causal_conv`; `state_BKC` (the last K-1 inputs) is moved on in place."""
    window = torch.cat([state_BKC, x_BC[:, None]], 1)
    state_BKC.copy_(window[:, 1:])
    out = (window * weight_CK.t()).sum(1)
    return out if bias_C is None else out + bias_C


def ssd_step(
    x_BHE: Tensor,
    dt_BH: Tensor,
    A_H: Tensor,
    B_BGN: Tensor,
    C_BGN: Tensor,
    *,
    state_BHEN: Tensor,
    D_H: Tensor | None = None,
) -> Tensor:
    """One token of the recurrence; `state_BHEN` is moved on in place."""
    num_heads, num_groups = x_BHE.shape[1], B_BGN.shape[1]
    if num_groups not in (1, num_heads):
        B_BGN = B_BGN.repeat_interleave(num_heads // num_groups, 1)
        C_BGN = C_BGN.repeat_interleave(num_heads // num_groups, 1)
    decay_BH = (dt_BH * A_H).exp()
    state_BHEN.mul_(decay_BH[..., None, None])
    state_BHEN.addcmul_((x_BHE * dt_BH[..., None])[..., None], B_BGN[:, :, None])
    y_BHE = (state_BHEN @ C_BGN[..., None]).squeeze(-1)
    return y_BHE if D_H is None else torch.addcmul(y_BHE, x_BHE, D_H[:, None])


def ssd_chunked(
    x_BSHE: Tensor,
    dt_BSH: Tensor,
    A_H: Tensor,
    B_BSGN: Tensor,
    C_BSGN: Tensor,
    *,
    chunk_tokens: int,
    D_H: Tensor | None = None,
    document_ids_BS: Tensor | None = None,
    initial_state_BHEN: Tensor | None = None,
    return_final_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Runs h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t, y_t = h_t C_t + D x_t, a chunk at a time.

    `dt` is after softplus, `A` is negative. The initial state belongs to the first document of
    the row, the final state (returned second, if asked for) to the last.

    Shapes: y_BSHE, final_state_BHEN.
    Source: Dao and Gu 2024, "Transformers are SSMs", section 6.
    """
    size_B, size_S, size_H, size_E = x_BSHE.shape
    size_G, size_N = B_BSGN.shape[2:]
    size_Q = min(chunk_tokens, size_S)
    padding = -size_S % size_Q
    x_in = x_BSHE
    if padding:
        x_BSHE, B_BSGN, C_BSGN = (
            F.pad(t, (0, 0, 0, 0, 0, padding)) for t in (x_BSHE, B_BSGN, C_BSGN)
        )
        dt_BSH = F.pad(dt_BSH, (0, 0, 0, padding))
        if document_ids_BS is not None:
            last = document_ids_BS[:, -1:].expand(-1, padding)
            document_ids_BS = torch.cat([document_ids_BS, last], 1)
    num_chunks = (size_S + padding) // size_Q
    heads = (size_B, num_chunks, size_Q, size_G, size_H // size_G)
    log_decay = (dt_BSH * A_H).view(heads).permute(0, 1, 3, 4, 2).cumsum(-1)  # b c g r q
    x = (x_BSHE * dt_BSH[..., None]).view(*heads, size_E).permute(0, 1, 3, 4, 2, 5)
    B = B_BSGN.reshape(size_B, num_chunks, size_Q, size_G, 1, size_N).permute(0, 1, 3, 4, 2, 5)
    C = C_BSGN.reshape(size_B, num_chunks, size_Q, size_G, 1, size_N).permute(0, 1, 3, 4, 2, 5)

    visible = torch.ones(size_Q, size_Q, dtype=torch.bool, device=x.device).tril()
    boundary = torch.ones(num_chunks + 1, num_chunks + 1, dtype=torch.bool, device=x.device).tril()
    from_start, to_end = log_decay, log_decay[..., -1:] - log_decay
    if document_ids_BS is not None:
        ids = document_ids_BS.view(size_B, num_chunks, 1, 1, size_Q)
        edges = torch.cat([ids[:, :1, ..., 0], ids[..., -1]], 1).view(size_B, 1, 1, -1)
        visible = visible & (ids[..., :, None] == ids[..., None, :])
        boundary = boundary & (edges[..., :, None] == edges[..., None, :])
        from_start = from_start.masked_fill(
            ids != edges[..., :-1].view(size_B, num_chunks, 1, 1, 1), -torch.inf
        )
        to_end = to_end.masked_fill(ids != ids[..., -1:], -torch.inf)
    decay = log_decay[..., :, None] - log_decay[..., None, :]
    decay = decay.masked_fill(~visible, -torch.inf).exp()
    y = (decay * (C @ B.transpose(-1, -2))) @ x

    states = (x * to_end.exp()[..., None]).transpose(-1, -2) @ B  # b c g r e n
    total = F.pad(log_decay[..., -1].permute(0, 2, 3, 1), (1, 0)).cumsum(-1)  # b g r c+1
    carry = (total[..., :, None] - total[..., None, :]).masked_fill(~boundary, -torch.inf).exp()
    if initial_state_BHEN is None:
        carry = carry[..., 1:]
    else:
        first = initial_state_BHEN.view(size_B, 1, size_G, -1, size_E, size_N)
        states = torch.cat([first, states], 1)
    flat = states.permute(0, 2, 3, 1, 4, 5).flatten(-2)
    before = (carry @ flat).unflatten(-1, (size_E, size_N)).permute(0, 3, 1, 2, 4, 5)
    y = y + (C @ before[:, :-1].transpose(-1, -2)) * from_start.exp()[..., None]

    y_BSHE = y.permute(0, 1, 4, 2, 3, 5).reshape(size_B, -1, size_H, size_E)[:, :size_S]
    if D_H is not None:
        y_BSHE = y_BSHE + x_in * D_H[:, None]
    if return_final_state:
        return y_BSHE, before[:, -1].reshape(size_B, size_H, size_E, size_N)
    return y_BSHE
