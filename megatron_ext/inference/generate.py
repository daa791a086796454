"""Inference on a Megatron model's weights: full form, one-token form, batched generation.

There is no gradient and no Megatron here; parity with Megatron's forward is a test. The norms'
weights are folded into the product that follows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from frontload.megatron_ext.inference.beginnings import read_to_ends
from frontload.megatron_ext.inference.draws import Sampling, choose_tokens, uniform_draws
from frontload.megatron_ext.inference.states import (
    AttentionState,
    MambaState,
    MlpState,
    State,
)
from frontload.megatron_ext.model.ssd import (
    ScanInputs,
    causal_conv,
    chunked_state,
    ssd_chunked,
    ssd_step,
    step_state,
)
from frontload.recipes.facts.pattern import NUM_CONV_TAPS, Layer, parse_pattern
from frontload.recipes.schema import Model

Weights = Mapping[str, Tensor]
"""Parameters by the names of Megatron's state dict."""

MIXER_NORM_EPSILON = 1e-5  # megatron/core/ssm/mamba_mixer.py, ExtendedRMSNorm(eps=1e-5)
MAX_ROWS = 256  # of one generation batch: beyond it tokens/s no longer rise on one core


@dataclass(frozen=True, kw_only=True)
class Response:
    """New tokens, the stop token included, and the log-probability each was drawn with."""

    tokens: list[int]
    log_probabilities: list[float]


class MlpLayer:
    """Squared-ReLU MLP and its residual."""

    def __init__(self, model: Model, weights: Weights) -> None:
        norm_D = weights["pre_mlp_layernorm.weight"]
        self.epsilon = model.norm_epsilon
        self.up_DF = (weights["mlp.linear_fc1.weight"] * norm_D).t().contiguous()
        self.down_FD = weights["mlp.linear_fc2.weight"].t().contiguous()

    def full(
        self, hidden_BSD: Tensor, lengths_B: Tensor, *, before: State | None = None
    ) -> tuple[Tensor, MlpState]:
        del lengths_B, before
        flat_TD = hidden_BSD.flatten(0, 1)
        return self.step(flat_TD, MlpState()).view_as(hidden_BSD), MlpState()

    def step(self, hidden_BD: Tensor, state: State) -> Tensor:
        del state
        inner_BF = (_normalise(hidden_BD, self.epsilon) @ self.up_DF).relu_()
        return torch.addmm(hidden_BD, inner_BF.square_(), self.down_FD)


class AttentionLayer:
    """Causal attention with grouped keys and its residual."""

    def __init__(self, model: Model, weights: Weights) -> None:
        norm_D = weights["input_layernorm.weight"]
        self.epsilon, self.width = model.norm_epsilon, model.kv_channels
        self.groups = model.num_query_groups
        self.queries = model.num_attention_heads // self.groups  # per key/value head
        self.qkv_DC = (weights["self_attention.linear_qkv.weight"] * norm_D).t().contiguous()
        self.output_CD = weights["self_attention.linear_proj.weight"].t().contiguous()

    def full(
        self, hidden_BSD: Tensor, lengths_B: Tensor, *, before: State | None = None
    ) -> tuple[Tensor, AttentionState]:
        size_B, size_S, _ = hidden_BSD.shape
        query, keys, values = self._project(hidden_BSD)
        keys_BKSE, values_BKSE = (t.transpose(1, 2).contiguous() for t in (keys, values))
        slots_S = torch.arange(size_S, device=hidden_BSD.device)
        bias_BS = torch.zeros(size_B, size_S, device=hidden_BSD.device, dtype=hidden_BSD.dtype)
        bias_BS.masked_fill_(slots_S >= lengths_B[:, None], -torch.inf)
        state = AttentionState(keys_BKSE, values_BKSE, bias_BS[:, None].repeat(1, self.groups, 1))
        seen = None
        if before is not None:
            assert isinstance(before, AttentionState)
            seen = _seen_behind(before, slots_S)
            state = before.followed_by(state)
        out_BHSE = F.scaled_dot_product_attention(
            query.flatten(2, 3).transpose(1, 2),
            state.keys_BKSE,
            state.values_BKSE,
            attn_mask=seen,
            is_causal=seen is None,
            enable_gqa=self.queries > 1,
        )
        out_BSD = out_BHSE.transpose(1, 2).reshape(size_B, size_S, -1) @ self.output_CD
        return hidden_BSD + out_BSD, state

    def step(self, hidden_BD: Tensor, state: State) -> Tensor:
        assert isinstance(state, AttentionState)
        size_B, slot = hidden_BD.shape[0], state.num_slots
        query, key, value = self._project(hidden_BD)
        state.keys_BKSE[:, :, slot] = key
        state.values_BKSE[:, :, slot] = value
        state.num_slots = slot + 1
        keys, values = (
            cache.flatten(0, 1)[:, : slot + 1] for cache in (state.keys_BKSE, state.values_BKSE)
        )
        scores = torch.baddbmm(
            state.bias_BKS.flatten(0, 1)[:, None, : slot + 1],
            query.reshape(-1, self.queries, self.width),
            keys.transpose(1, 2),
            alpha=self.width**-0.5,
        )
        out_BC = torch.bmm(scores.softmax(-1), values).view(size_B, -1)
        return torch.addmm(hidden_BD, out_BC, self.output_CD)

    def _project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [..., K, H/K, E], key and value [..., K, E]: Megatron keeps each group together."""
        qkv = _normalise(hidden, self.epsilon) @ self.qkv_DC
        qkv = qkv.unflatten(-1, (self.groups, self.queries + 2, self.width))
        return qkv[..., : self.queries, :], qkv[..., -2, :], qkv[..., -1, :]


class MambaLayer:
    """Mamba-2 mixer and its residual."""

    def __init__(self, model: Model, weights: Weights) -> None:
        norm_D = weights["norm.weight"]
        self.epsilon, self.chunk_tokens = model.norm_epsilon, model.mamba_chunk_tokens
        self.heads, self.width = model.mamba_num_heads, model.mamba_head_dim
        self.groups, self.state_width = model.mamba_num_groups, model.mamba_state_dim
        self.inner, self.states = self.heads * self.width, self.groups * self.state_width
        self.input_DC = (weights["mixer.in_proj.weight"] * norm_D).t().contiguous()
        self.conv_CK = weights["mixer.conv1d_weight"].squeeze(1)
        self.taps_KC = list(self.conv_CK.t().contiguous())
        self.conv_bias_C = weights["mixer.conv1d_bias"]
        self.dt_bias_H = weights["mixer.dt_bias"].float()
        self.A_H = -weights["mixer.A_log"].float().exp()
        self.D_H = weights["mixer.D"].float()
        output_DC = weights["mixer.out_proj.weight"] * weights["mixer.norm.weight"]
        self.output_CD = output_DC.t().contiguous()

    def full(
        self, hidden_BSD: Tensor, lengths_B: Tensor, *, before: State | None = None
    ) -> tuple[Tensor, MambaState]:
        gate, conv_in, dt = self._project(hidden_BSD)
        num_taps, initial_BHEN = NUM_CONV_TAPS - 1, None
        if before is None:
            padded = F.pad(conv_in, (0, 0, num_taps, 0))
        else:
            assert isinstance(before, MambaState)
            padded = torch.cat([torch.stack(before.taps, 1), conv_in], 1)
            initial_BHEN = chunked_state(before.ssm_BGNC, self.heads)
        conv_out = F.silu(causal_conv(padded, self.conv_CK, self.conv_bias_C)[:, num_taps:])
        dt_BSH = F.softplus(dt.float() + self.dt_bias_H)
        slots_S = torch.arange(hidden_BSD.shape[1], device=hidden_BSD.device)
        dt_BSH = dt_BSH * (slots_S < lengths_B[:, None])[..., None]  # dt 0 keeps the state
        y_BSHE, ssm_BHEN = ssd_chunked(
            self._heads(conv_out, dt_BSH),
            chunk_tokens=self.chunk_tokens,
            initial_state_BHEN=initial_BHEN,
        )
        rows = torch.arange(len(lengths_B), device=lengths_B.device)
        taps = [padded[rows, lengths_B + tap] for tap in range(num_taps)]
        out_BSD = self._gate(y_BSHE.flatten(2), gate) @ self.output_CD
        return hidden_BSD + out_BSD, MambaState(taps, step_state(ssm_BHEN, self.groups))

    def step(self, hidden_BD: Tensor, state: State) -> Tensor:
        assert isinstance(state, MambaState)
        gate, conv_in, dt = self._project(hidden_BD)
        conv_out = torch.addcmul(self.conv_bias_C, conv_in, self.taps_KC[-1])
        for tap_BC, weight_C in zip(state.taps, self.taps_KC, strict=False):
            conv_out.addcmul_(tap_BC, weight_C)
        state.taps = [*state.taps[1:], conv_in]
        dt_BH = F.softplus(dt.float() + self.dt_bias_H)
        y_BHE = ssd_step(self._heads(F.silu(conv_out, inplace=True), dt_BH), state.ssm_BGNC)
        return torch.addmm(hidden_BD, self._gate(y_BHE.flatten(1), gate), self.output_CD)

    def _project(self, hidden: Tensor) -> tuple[Tensor, ...]:
        projected = _normalise(hidden, self.epsilon) @ self.input_DC
        return projected.split([self.inner, self.inner + 2 * self.states, self.heads], -1)

    def _heads(self, conv_out: Tensor, dt: Tensor) -> ScanInputs:
        x, b, c = conv_out.float().split([self.inner, self.states, self.states], -1)
        b, c = (t.unflatten(-1, (self.groups, self.state_width)) for t in (b, c))
        x = x.unflatten(-1, (self.heads, self.width))
        return ScanInputs(x=x, dt=dt, A_H=self.A_H, B=b, C=c, D_H=self.D_H)

    def _gate(self, y: Tensor, gate: Tensor) -> Tensor:
        gated = (y.to(gate.dtype) * F.silu(gate)).unflatten(-1, (self.groups, -1))
        return _normalise(gated, MIXER_NORM_EPSILON).flatten(-2)


def _normalise(hidden: Tensor, epsilon: float) -> Tensor:
    """RMS norm without a weight; torch's own is one kernel on CUDA but seven on a CPU."""
    if hidden.is_cuda:
        return F.rms_norm(hidden, hidden.shape[-1:], eps=epsilon)
    norm = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
    square = torch.addcmul(norm.new_full((), epsilon), norm, norm, value=1 / hidden.shape[-1])
    return hidden * square.rsqrt_()


def _seen_behind(before: AttentionState, slots_S: Tensor) -> Tensor:
    """What attention adds to the scores of tokens behind a state, [B, 1, S, slots + S]."""
    old_BS = before.bias_BKS[:, 0, : before.num_slots]
    size_B, size_S = len(old_BS), len(slots_S)
    new_SS = torch.zeros(size_S, size_S, dtype=old_BS.dtype, device=old_BS.device)
    new_SS.masked_fill_(slots_S > slots_S[:, None], -torch.inf)
    parts = old_BS[:, None].expand(-1, size_S, -1), new_SS.expand(size_B, -1, -1)
    return torch.cat(parts, -1)[:, None]


_LAYERS = {
    Layer.MAMBA: MambaLayer,
    Layer.ATTENTION: AttentionLayer,
    Layer.MLP: MlpLayer,
}


class Decoding(Protocol):
    """What generation and scoring ask of a model, as `Decoder` does it."""

    table_VD: Tensor

    def full(
        self, tokens_BS: Tensor, lengths_B: Tensor, *, before: list[Any] | None = None
    ) -> tuple[Tensor, list[Any]]: ...

    def step(self, tokens_B: Tensor, states: list[Any]) -> Tensor: ...

    def logits(self, hidden_TD: Tensor) -> Tensor: ...


class Decoder:
    """The whole model in full form and in one-token form."""

    def __init__(self, model: Model, weights: Weights) -> None:
        self.table_VD = weights["embedding.word_embeddings.weight"]
        self.epsilon = model.norm_epsilon
        self.layers = []
        for index, kind in enumerate(parse_pattern(model.pattern)):
            prefix = f"decoder.layers.{index}."
            own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
            self.layers.append(_LAYERS[kind](model, own))
        output_VD = self.table_VD if model.tie_embeddings else weights["output_layer.weight"]
        self.output_DV = (output_VD * weights["decoder.final_norm.weight"]).t().contiguous()

    def full(
        self, tokens_BS: Tensor, lengths_B: Tensor, *, before: list[State] | None = None
    ) -> tuple[Tensor, list[State]]:
        """Hidden states before the output layer, and the state after each row's last token.

        Rows are padded on the right; what stands beyond a row's length changes nothing. With
        `before` they go on from these states, which are used up.
        """
        hidden_BSD, states = F.embedding(tokens_BS, self.table_VD), []
        for layer, known in zip(self.layers, before or [None] * len(self.layers), strict=True):
            hidden_BSD, state = layer.full(hidden_BSD, lengths_B, before=known)
            states.append(state)
        return hidden_BSD, states

    def step(self, tokens_B: Tensor, states: list[State]) -> Tensor:
        """Logits after one more token in each row; `states` move on."""
        hidden_BD = F.embedding(tokens_B, self.table_VD)
        for layer, state in zip(self.layers, states, strict=True):
            hidden_BD = layer.step(hidden_BD, state)
        return self.logits(hidden_BD)

    def logits(self, hidden_TD: Tensor) -> Tensor:
        return _normalise(hidden_TD, self.epsilon) @ self.output_DV


def generate(
    decoder: Decoding, prompts: list[list[int]], sampling: Sampling
) -> list[list[list[int]]]:
    """Continues every prompt `num_samples` times: [prompt][sample] -> new tokens, stop included."""
    responses = generate_responses(decoder, prompts, sampling)
    return [[response.tokens for response in group] for group in responses]


@torch.inference_mode()
def generate_responses(
    decoder: Decoding, prompts: list[list[int]], sampling: Sampling, *, score: bool = False
) -> list[list[Response]]:
    """`generate`, with log-probabilities at the sampling's temperature if `score` asks for them.

    Prompts of similar length run side by side; each is read once and its state copied to its
    samples; rows that have stopped are dropped.
    """
    assert all(prompts), "a prompt has at least one token"
    samples: list[list[Response]] = [[] for _ in prompts]
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    size = max(1, MAX_ROWS // sampling.num_samples)
    for start in range(0, len(prompts), size):
        indices = by_length[start : start + size]
        batch = [prompts[index] for index in indices]
        rows = _generate_batch(decoder, batch, indices, sampling, score=score)
        for index, row in zip(np.repeat(indices, sampling.num_samples), rows, strict=True):
            samples[index].append(row)
    return samples


def _generate_batch(
    decoder: Decoding,
    prompts: list[list[int]],
    indices: list[int],
    sampling: Sampling,
    *,
    score: bool,
) -> list[Response]:
    assert not score or sampling.top_p == 1, "scores are those of the whole distribution"
    device = decoder.table_VD.device
    copies = np.repeat(np.arange(len(prompts)), sampling.num_samples).tolist()
    last_BD, states = read_to_ends(decoder, prompts, copies=copies)
    logits_BV = decoder.logits(last_BD)
    for state in states:
        state.reserve(sampling.max_new_tokens)

    draws_BS = torch.from_numpy(uniform_draws(indices, sampling)).to(device)
    new_BS = torch.zeros(len(copies), sampling.max_new_tokens, dtype=torch.long, device=device)
    scores_BS = torch.zeros_like(draws_BS, dtype=torch.float32) if score else draws_BS[:, :0]
    counts_B = torch.full((len(copies),), sampling.max_new_tokens, device=device)
    rows = torch.arange(len(copies), device=device)  # rows of `new_BS` still computed
    running = torch.ones(len(copies), dtype=torch.bool, device=device)
    for position in range(sampling.max_new_tokens):
        chosen_B = choose_tokens(
            logits_BV,
            draws_BS[rows, position],
            sampling.temperature,
            top_p=sampling.top_p,
        )
        new_BS[rows, position] = chosen_B
        if score:
            log_p_BV = (logits_BV.float() / (sampling.temperature or 1.0)).log_softmax(-1)
            scores_BS[rows, position] = log_p_BV.gather(1, chosen_B[:, None]).squeeze(1)
        stopped = running & (chosen_B == sampling.stop_token)
        counts_B[rows[stopped]] = position + 1
        running = running & ~stopped
        num_running = int(running.sum())
        if num_running == 0 or position + 1 == sampling.max_new_tokens:
            break
        if num_running <= 0.8 * len(rows):  # copying states costs about a step
            kept = running.nonzero().squeeze(1)
            rows, chosen_B, running = rows[kept], chosen_B[kept], running[kept]
            for state in states:
                state.take(kept)
        logits_BV = decoder.step(chosen_B, states)
    return [
        Response(tokens=row[:count], log_probabilities=scores[:count])
        for row, scores, count in zip(
            new_BS.tolist(), scores_BS.tolist(), counts_B.tolist(), strict=True
        )
    ]
