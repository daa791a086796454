"""The hybrid in bare PyTorch: the same layers and kernels as the engine, and nothing else."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frontload.megatron_ext.model.ssd import Documents, ScanInputs, causal_conv, ssd_chunked
from frontload.recipes.schema import Model


class Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, self.weight.shape, self.weight, 1e-5)


class Mixer(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.inner = model.mamba_num_heads * model.mamba_head_dim
        self.states = model.mamba_num_groups * model.mamba_state_dim
        channels, heads = self.inner + 2 * self.states, model.mamba_num_heads
        self.in_proj = nn.Linear(model.hidden_size, self.inner + channels + heads, bias=False)
        self.conv1d_weight = nn.Parameter(torch.empty(channels, 1, 4))
        self.conv1d_bias = nn.Parameter(torch.empty(channels))
        self.dt_bias, self.A_log, self.D = (nn.Parameter(torch.empty(heads)) for _ in range(3))
        self.norm = Norm(self.inner)
        self.out_proj = nn.Linear(self.inner, model.hidden_size, bias=False)

    def forward(self, hidden: Tensor, documents: Documents) -> Tensor:
        model, inner, states = self.model, self.inner, self.states
        channels = inner + 2 * states
        gate, mixed, dt = self.in_proj(hidden).split([inner, channels, model.mamba_num_heads], -1)
        kernel = self.conv1d_weight.squeeze(1)
        mixed = F.silu(causal_conv(mixed, kernel, self.conv1d_bias, documents=documents))
        x, b, c = mixed.split([inner, states, states], -1)
        inputs = ScanInputs(
            x=x.unflatten(-1, (-1, model.mamba_head_dim)),
            dt=F.softplus(dt + self.dt_bias),
            A_H=-self.A_log.exp(),
            B=b.unflatten(-1, (-1, model.mamba_state_dim)),
            C=c.unflatten(-1, (-1, model.mamba_state_dim)),
            D_H=self.D,
        )
        y, _ = ssd_chunked(inputs, chunk_tokens=model.mamba_chunk_tokens, documents=documents)
        gated = (y.flatten(2) * F.silu(gate)).unflatten(-1, (model.mamba_num_groups, -1))
        normed = F.rms_norm(gated, gated.shape[-1:], eps=1e-5).flatten(2) * self.norm.weight
        return self.out_proj(normed)


class Mamba(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.norm, self.mixer = Norm(model.hidden_size), Mixer(model)

    def forward(self, hidden: Tensor, documents: Documents) -> Tensor:
        return hidden + self.mixer(self.norm(hidden), documents)


class Attention(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.groups, self.width = model.num_query_groups, model.kv_channels
        self.queries = model.num_attention_heads // self.groups
        self.input_layernorm = Norm(model.hidden_size)
        self.self_attention = nn.Module()
        rows = self.groups * (self.queries + 2) * self.width
        self.self_attention.linear_qkv = nn.Linear(model.hidden_size, rows, bias=False)
        rows = self.groups * self.queries * self.width
        self.self_attention.linear_proj = nn.Linear(rows, model.hidden_size, bias=False)

    def forward(self, hidden: Tensor, documents: Documents) -> Tensor:
        qkv = self.self_attention.linear_qkv(self.input_layernorm(hidden))
        qkv = qkv.unflatten(-1, (self.groups, self.queries + 2, self.width))
        query, key, value = qkv.split([self.queries, 1, 1], 3)
        out = F.scaled_dot_product_attention(
            *(t.flatten(2, 3).transpose(1, 2) for t in (query, key, value)),
            attn_mask=documents.hidden(query.dtype),
            enable_gqa=self.queries > 1,
        )
        return hidden + self.self_attention.linear_proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        from frontload.megatron_ext.ranks.settings import squared_relu  # after cpu.prepare()

        self.activation = squared_relu
        self.pre_mlp_layernorm, self.mlp = Norm(model.hidden_size), nn.Module()
        self.mlp.linear_fc1 = nn.Linear(model.hidden_size, model.ffn_hidden_size, bias=False)
        self.mlp.linear_fc2 = nn.Linear(model.ffn_hidden_size, model.hidden_size, bias=False)

    def forward(self, hidden: Tensor, documents: Documents) -> Tensor:
        del documents
        inner = self.activation(self.mlp.linear_fc1(self.pre_mlp_layernorm(hidden)))
        return hidden + self.mlp.linear_fc2(inner)


class BareModel(nn.Module):
    """Parameters carry Megatron's names, so that its state dict loads."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.embedding, self.decoder = nn.Module(), nn.Module()
        self.embedding.word_embeddings = nn.Embedding(model.vocab_size, model.hidden_size)
        kinds = {"M": Mamba, "*": Attention, "-": Mlp}
        self.decoder.layers = nn.ModuleList(kinds[letter](model) for letter in model.pattern)
        self.decoder.final_norm = Norm(model.hidden_size)
        self.output_layer = nn.Linear(model.hidden_size, model.vocab_size, bias=False)
        if model.tie_embeddings:
            self.output_layer.weight = self.embedding.word_embeddings.weight

    def forward(self, tokens: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """Mean loss."""
        documents = Documents(ids)
        hidden = self.embedding.word_embeddings(tokens)
        for layer in self.decoder.layers:
            hidden = layer(hidden, documents)
        logits = self.output_layer(self.decoder.final_norm(hidden))
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())
