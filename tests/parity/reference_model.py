"""The hybrid model token by token, with no trick: what the real stack is compared with.

Reads the parameters of Megatron's state dict by name, in any dtype; `autograd` gives its gradients.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from frontload.recipes.schema import Model

Weights = Mapping[str, Tensor]


def recurrence(
    x_BSHE: Tensor,
    dt_BSH: Tensor,
    A_H: Tensor,
    B_BSGN: Tensor,
    C_BSGN: Tensor,
    *,
    D_H: Tensor,
    document_ids_BS: Tensor,
    initial_BHEN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t, y_t = h_t C_t + D x_t; h is 0 at a new document."""
    size_B, size_S, size_H, size_E = x_BSHE.shape
    per_group = size_H // B_BSGN.shape[2]
    state = initial_BHEN
    if state is None:
        state = x_BSHE.new_zeros(size_B, size_H, size_E, B_BSGN.shape[3])
    outputs = []
    for t in range(size_S):
        if t > 0:
            same_B = (document_ids_BS[:, t] == document_ids_BS[:, t - 1]).to(state.dtype)
            state = state * same_B[:, None, None, None]
        heads = []
        for head in range(size_H):
            b_BN, c_BN = B_BSGN[:, t, head // per_group], C_BSGN[:, t, head // per_group]
            x_BE, dt_B = x_BSHE[:, t, head], dt_BSH[:, t, head]
            decay_B = torch.exp(dt_B * A_H[head])
            gain_BEN = dt_B[:, None, None] * x_BE[:, :, None] * b_BN[:, None, :]
            new_BEN = decay_B[:, None, None] * state[:, head] + gain_BEN
            y_BE = (new_BEN * c_BN[:, None, :]).sum(-1) + D_H[head] * x_BE
            heads.append((new_BEN, y_BE))
        state = torch.stack([new for new, _ in heads], 1)
        outputs.append(torch.stack([y for _, y in heads], 1))
    return torch.stack(outputs, 1), state


def convolution(x_BSC: Tensor, weight_CK: Tensor, bias_C: Tensor, ids_BS: Tensor) -> Tensor:
    """Each token from itself and the tokens before it that are of its document, channel-wise."""
    num_taps = weight_CK.shape[1]
    rows = []
    for t in range(x_BSC.shape[1]):
        out_BC = bias_C + torch.zeros_like(x_BSC[:, t])
        for back in range(min(num_taps, t + 1)):
            same_B = (ids_BS[:, t] == ids_BS[:, t - back]).to(x_BSC.dtype)
            out_BC = out_BC + same_B[:, None] * x_BSC[:, t - back] * weight_CK[:, -1 - back]
        rows.append(out_BC)
    return torch.stack(rows, 1)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + epsilon) * weight


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


class MambaLayer:
    """Mamba-2: projection, convolution, recurrence, gated norm in each group, projection."""

    def __init__(self, model: Model, weights: Weights) -> None:
        self.model, self.weights = model, weights

    def __call__(self, hidden_BSD: Tensor, ids_BS: Tensor) -> Tensor:
        model, weights = self.model, self.weights
        heads, width, groups = (
            model.mamba_num_heads, model.mamba_head_dim, model.mamba_num_groups,
        )  # fmt: skip
        inner, states = heads * width, groups * model.mamba_state_dim
        normed = rms_norm(hidden_BSD, weights["norm.weight"], model.norm_epsilon)
        projected = normed @ weights["mixer.in_proj.weight"].T
        z, x, b, c, dt = projected.split([inner, inner, states, states, heads], -1)
        kernel, bias = weights["mixer.conv1d_weight"][:, 0], weights["mixer.conv1d_bias"]
        mixed = silu(convolution(torch.cat([x, b, c], -1), kernel, bias, ids_BS))
        x, b, c = mixed.split([inner, states, states], -1)
        shape = hidden_BSD.shape[:2]
        y_BSHE, _ = recurrence(
            x.reshape(*shape, heads, width),
            torch.log1p(torch.exp(dt + weights["mixer.dt_bias"])),
            -torch.exp(weights["mixer.A_log"]),
            b.reshape(*shape, groups, -1),
            c.reshape(*shape, groups, -1),
            D_H=weights["mixer.D"],
            document_ids_BS=ids_BS,
        )
        gated = (y_BSHE.reshape(*shape, inner) * silu(z)).reshape(*shape, groups, -1)
        normed = rms_norm(gated, weights["mixer.norm.weight"].reshape(groups, -1), 1e-5)
        return normed.reshape(*shape, inner) @ weights["mixer.out_proj.weight"].T


class AttentionLayer:
    """Causal softmax attention without positions; a key/value head serves a group of queries."""

    def __init__(self, model: Model, weights: Weights) -> None:
        self.model, self.weights = model, weights

    def __call__(self, hidden_BSD: Tensor, ids_BS: Tensor) -> Tensor:
        model, weights = self.model, self.weights
        groups, width = model.num_query_groups, model.kv_channels
        per_group = model.num_attention_heads // groups
        normed = rms_norm(hidden_BSD, weights["input_layernorm.weight"], model.norm_epsilon)
        qkv = normed @ weights["self_attention.linear_qkv.weight"].T
        qkv = qkv.reshape(*hidden_BSD.shape[:2], groups, per_group + 2, width)
        size_S = hidden_BSD.shape[1]
        hidden_from = torch.ones(size_S, size_S, dtype=torch.bool).triu(1)
        hidden_from = hidden_from | (ids_BS[:, :, None] != ids_BS[:, None, :])
        outputs = []
        for head in range(model.num_attention_heads):
            group = qkv[:, :, head // per_group]
            query, key, value = group[:, :, head % per_group], group[:, :, -2], group[:, :, -1]
            scores = query @ key.transpose(1, 2) / math.sqrt(width)
            outputs.append(scores.masked_fill(hidden_from, -math.inf).softmax(-1) @ value)
        return torch.cat(outputs, -1) @ weights["self_attention.linear_proj.weight"].T


class MlpLayer:
    """Squared ReLU between two projections."""

    def __init__(self, model: Model, weights: Weights) -> None:
        self.model, self.weights = model, weights

    def __call__(self, hidden_BSD: Tensor, ids_BS: Tensor) -> Tensor:
        del ids_BS
        weights = self.weights
        normed = rms_norm(hidden_BSD, weights["pre_mlp_layernorm.weight"], self.model.norm_epsilon)
        inner = (normed @ weights["mlp.linear_fc1.weight"].T).clamp(min=0) ** 2
        return inner @ weights["mlp.linear_fc2.weight"].T


LAYERS = {"M": MambaLayer, "*": AttentionLayer, "-": MlpLayer}


def reference_logits(
    model: Model, weights: Weights, tokens_BS: Tensor, document_ids_BS: Tensor | None = None
) -> Tensor:
    """Logits [B, S, V] of the whole model."""
    ids_BS = torch.zeros_like(tokens_BS) if document_ids_BS is None else document_ids_BS
    table = weights["embedding.word_embeddings.weight"]
    hidden = table[tokens_BS]
    for index, letter in enumerate(model.pattern):
        prefix = f"decoder.layers.{index}."
        own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        hidden = hidden + LAYERS[letter](model, own)(hidden, ids_BS)
    normed = rms_norm(hidden, weights["decoder.final_norm.weight"], model.norm_epsilon)
    return normed @ (table if model.tie_embeddings else weights["output_layer.weight"]).T


def reference_loss(logits_BSV: Tensor, labels_BS: Tensor) -> Tensor:
    """Mean negative log-likelihood of the labels."""
    log_shares = logits_BSV - torch.logsumexp(logits_BSV, -1, keepdim=True)
    return -log_shares.gather(-1, labels_BS[..., None]).mean()


def draw_weights(model: Model, seed: int) -> dict[str, Tensor]:
    """Float32 weights under Megatron's names, of the sizes that a trained model has.

    Unlike a fresh model's, projections are not near zero, norms differ from one and steps `dt`
    reach from 0.001 to about 3, so that errors in every part reach the logits.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    width, heads = model.hidden_size, model.mamba_num_heads
    inner = heads * model.mamba_head_dim
    channels = inner + 2 * model.mamba_num_groups * model.mamba_state_dim
    attention, keys = model.num_attention_heads, model.num_query_groups
    vocabulary, ffn = model.vocab_size, model.ffn_hidden_size
    drawn: dict[str, Tensor] = {
        "embedding.word_embeddings.weight": normal(vocabulary, width, scale=0.7)
    }
    for index, letter in enumerate(model.pattern):
        norm = 1.0 + normal(width, scale=0.2)
        layer = {
            "M": lambda norm=norm: {
                "norm.weight": norm,
                "mixer.in_proj.weight": normal(inner + channels + heads, width, scale=width**-0.5),
                "mixer.conv1d_weight": normal(channels, 1, 4, scale=0.5),
                "mixer.conv1d_bias": normal(channels, scale=0.2),
                "mixer.dt_bias": normal(heads, scale=1.5) - 2.5,
                "mixer.A_log": torch.rand(heads, generator=generator) * 3.0 - 0.5,
                "mixer.D": 1.0 + normal(heads, scale=0.3),
                "mixer.norm.weight": 1.0 + normal(inner, scale=0.2),
                "mixer.out_proj.weight": normal(width, inner, scale=0.6 * inner**-0.5),
            },
            "*": lambda norm=norm: {
                "input_layernorm.weight": norm,
                "self_attention.linear_qkv.weight": normal(
                    (attention + 2 * keys) * model.kv_channels, width, scale=1.5 * width**-0.5
                ),
                "self_attention.linear_proj.weight": normal(
                    width, attention * model.kv_channels, scale=0.6 * width**-0.5
                ),
            },
            "-": lambda norm=norm: {
                "pre_mlp_layernorm.weight": norm,
                "mlp.linear_fc1.weight": normal(ffn, width, scale=width**-0.5),
                "mlp.linear_fc2.weight": normal(width, ffn, scale=0.5 * ffn**-0.5),
            },
        }[letter]()
        drawn |= {f"decoder.layers.{index}.{name}": weight for name, weight in layer.items()}
    drawn["decoder.final_norm.weight"] = 1.0 + normal(width, scale=0.2)
    if not model.tie_embeddings:
        drawn["output_layer.weight"] = normal(vocabulary, width, scale=width**-0.5)
    return drawn
