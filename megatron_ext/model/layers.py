"""The layers that Megatron has only with Transformer Engine or mamba-ssm, in plain torch.

Parameters, their names and their sharding are Megatron's own; only the arithmetic is here.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.hybrid.hybrid_block import HybridStack
from megatron.core.models.hybrid.hybrid_model import HybridModel
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.ssm.mamba_layer import MambaLayer
from megatron.core.ssm.mamba_mixer import MambaMixer
from megatron.core.ssm.mlp_layer import MLPLayer
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from megatron.core.utils import get_pg_size
from torch import Tensor, nn

from frontload.megatron_ext.model.rms_norm import rms_norm
from frontload.megatron_ext.model.ssd import Documents, ScanInputs, causal_conv, ssd_chunked


@dataclass
class DocumentResets(PackedSeqParams):
    """Rows of whole documents: what lets conv, state and attention see one document only.

    Differs: Megatron packs one row of `thd` tokens and derives `seq_idx` from lengths; here a batch
    of rows carries one id a token, so the rows stay a batch in every layer.
    """

    documents: Documents | None = None
    """The masks of the torch layers, made once a batch. Kernels take the ids in `seq_idx`."""


def document_resets(document_ids_BS: Tensor) -> DocumentResets:
    """What every layer reads of a batch whose documents do not see each other."""
    return DocumentResets(
        qkv_format="sbhd",
        seq_idx=document_ids_BS.to(torch.int32),
        documents=Documents(document_ids_BS),
    )


def _documents(resets: PackedSeqParams | None) -> Documents | None:
    return resets.documents if isinstance(resets, DocumentResets) else None


class ColumnLinear(ColumnParallelLinear):
    """Megatron's column-parallel linear; alone in its tensor group it is one plain product."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.is_alone = get_pg_size(self.tp_group) == 1

    def forward(
        self,
        input_: Tensor,
        weight: Tensor | None = None,
        runtime_gather_output: bool | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        if not self.is_alone:
            return super().forward(input_, weight, runtime_gather_output)
        used = self.weight if weight is None else weight
        assert used is not None
        return F.linear(input_, used), None


class RowLinear(RowParallelLinear):
    """Megatron's row-parallel linear; alone in its tensor group it is one plain product."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.is_alone = get_pg_size(self.tp_group) == 1

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:  # pyright: ignore
        if not self.is_alone:
            return super().forward(input_)
        return F.linear(input_, self.weight), None


class RMSNorm(nn.Module):
    """RMS norm that may run under sequence parallelism.

    Differs: WrappedTorchNorm refuses sequence parallelism (torch_norm.py:50); its weight's gradient
    only has to be summed over the tensor ranks, which the flag on the weight asks for.
    """

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        setattr(self.weight, "sequence_parallel", config.sequence_parallel)  # noqa: B010

    def forward(self, hidden_SBD: Tensor) -> Tensor:
        return rms_norm(hidden_SBD, self.weight, self.eps)


class DocumentAttention(nn.Module):
    """Core attention by scaled_dot_product_attention: grouped keys, packed documents."""

    def __init__(
        self, config: TransformerConfig, *, softmax_scale: float | None = None, **_: Any
    ) -> None:
        super().__init__()
        self.config = config
        self.scale = softmax_scale

    def forward(
        self,
        query_SBHE: Tensor,
        key_SBKE: Tensor,
        value_SBKE: Tensor,
        attention_mask: Tensor | None = None,
        *,
        packed_seq_params: PackedSeqParams | None = None,
        **_: Any,
    ) -> Tensor:
        del attention_mask  # causality and documents are the whole mask
        documents = _documents(packed_seq_params)
        hidden = None if documents is None else documents.hidden(query_SBHE.dtype)
        query, key, value = (
            tensor.permute(1, 2, 0, 3) for tensor in (query_SBHE, key_SBKE, value_SBKE)
        )
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=hidden,
            is_causal=hidden is None,
            scale=self.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return out.permute(2, 0, 1, 3).flatten(2)


class TorchMambaMixer(MambaMixer):
    """Megatron's Mamba-2 mixer, its parameters and sharding, with the scan in plain torch."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        theirs = self.norm
        if not isinstance(theirs, GroupRMSNorm):  # mamba-ssm is installed; its norm needs CUDA
            self.norm = GroupRMSNorm(
                self.d_inner_local_tp, group_size=self.d_inner_local_tp // self.ngroups_local_tp
            )
            self.norm.weight, self.norm.tp_group = theirs.weight, theirs.tp_group

    def forward(
        self,
        hidden_states: Tensor,
        inference_context: Any = None,
        *,
        inference_params: Any = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        assert inference_context is inference_params is None, (
            "generation is in inference/generate.py"
        )
        projected_SBC, _ = self.in_proj(hidden_states)
        y_SBC = self._scan(projected_SBC, _documents(packed_seq_params))
        return self.out_proj(y_SBC)

    def _scan(self, projected_SBC: Tensor, documents: Documents | None) -> Tensor:
        """Local shard: gate, convolution, state space, gated group norm."""
        num_heads, num_groups = self.nheads_local_tp, self.ngroups_local_tp
        inner, states = num_heads * self.headdim, num_groups * self.d_state
        gate, conv_in, dt = projected_SBC.transpose(0, 1).split(
            [inner, inner + 2 * states, num_heads], -1
        )
        conv_out = F.silu(
            causal_conv(
                conv_in,
                self.conv1d_weight.squeeze(1),
                self.conv1d_bias,
                documents=documents,
            )
        )
        x, b, c = conv_out.float().split([inner, states, states], -1)
        scan = ScanInputs(
            x=x.unflatten(-1, (num_heads, self.headdim)),
            dt=F.softplus(dt.float() + self.dt_bias.float()),
            A_H=-self.A_log.float().exp(),
            B=b.unflatten(-1, (num_groups, self.d_state)),
            C=c.unflatten(-1, (num_groups, self.d_state)),
            D_H=self.D.float(),
        )
        y_BSHE, _ = ssd_chunked(scan, chunk_tokens=self.chunk_size, documents=documents)
        gated_BSC = y_BSHE.flatten(2).to(gate.dtype) * F.silu(gate)
        return self.norm(gated_BSC).transpose(0, 1)


class GroupRMSNorm(nn.Module):
    """RMS norm inside each state group: the part of mamba-ssm's RMSNormGated that is left here."""

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        assert not norm_before_gate
        self.eps = eps
        self.group_size = group_size or hidden_size
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.tp_group: Any = None  # set by the mixer

    def forward(self, gated_BSC: Tensor) -> Tensor:
        groups = gated_BSC.unflatten(-1, (-1, self.group_size))
        return rms_norm(groups, self.weight.view(-1, self.group_size), self.eps).flatten(-2)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: Any = None
    ) -> dict[str, Any]:
        """As ExtendedRMSNorm.sharded_state_dict, mamba_mixer.py:116."""
        return make_sharded_tensors_for_checkpoint(
            self.state_dict(prefix="", keep_vars=True),
            prefix,
            {"weight": 0},
            sharded_offsets,
            tp_group=self.tp_group,
            dp_cp_group=metadata["dp_cp_group"],
        )


class PlainAttentionLayer(TransformerLayer):
    """Megatron's layer, its parameters and sharding, for attention alone.

    Differs: no dropout, bias, rotation, offload or inference (TransformerLayer.forward,
    transformer_layer.py:746, asks for each of them at every step).
    """

    input_layernorm: Any  # Megatron's interfaces state no __call__
    self_attention: Any

    def forward(  # pyright: ignore
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *,
        packed_seq_params: PackedSeqParams | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        attention = self.self_attention
        qkv, _ = attention.linear_qkv(self.input_layernorm(hidden_states))
        groups, width = attention.num_query_groups_per_partition, attention.key_hidden_size
        queries = attention.num_attention_heads_per_partition // groups
        # of each group its queries, then key and value; one split, whose gradient is written once
        q, k, v = qkv.unflatten(-1, (groups, -1, width)).split([queries, 1, 1], -2)
        out = attention.core_attention(
            q.flatten(2, 3),
            k.squeeze(-2),
            v.squeeze(-2),
            attention_mask,
            packed_seq_params=packed_seq_params,
        )
        return hidden_states + attention.linear_proj(out)[0], None


class PlainMlpLayer(MLPLayer):
    """Megatron's MLP layer without dropout and bias, as PlainAttentionLayer."""

    mlp: Any
    pre_mlp_layernorm: Any

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        mlp = self.mlp
        inner, _ = mlp.linear_fc1(self.pre_mlp_layernorm(hidden_states))
        return hidden_states + mlp.linear_fc2(mlp.activation_func(inner))[0], None


class PlainMambaLayer(MambaLayer):
    """Megatron's Mamba layer without dropout and bias, as PlainAttentionLayer."""

    norm: Any

    def forward(  # pyright: ignore
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *,
        packed_seq_params: PackedSeqParams | None = None,
        **_: Any,
    ) -> Tensor:
        del attention_mask
        out, _ = self.mixer(self.norm(hidden_states), packed_seq_params=packed_seq_params)
        return hidden_states + out


class TorchHybridModel(HybridModel):
    """HybridModel whose loss, alone in its tensor group, is torch's own cross entropy."""

    def compute_language_model_loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        if self.pg_collection.tp.size() > 1:
            return super().compute_language_model_loss(labels, logits)
        labels_T = labels.transpose(0, 1).flatten()  # the logits are the large one: leave them
        loss_T = F.cross_entropy(logits.float().flatten(0, 1), labels_T, reduction="none")
        return loss_T.view(logits.shape[:2]).transpose(0, 1)


class TorchHybridStack(HybridStack):
    """HybridStack with its final norm from the specification.

    Differs: HybridStack builds TENorm (hybrid_block.py:215), which needs Transformer Engine.
    """

    def __init__(self, config: TransformerConfig, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, post_layer_norm=False, **options)
        self.post_layer_norm = True
        if self.post_process:
            self.final_norm = RMSNorm(config, config.hidden_size, config.layernorm_epsilon)
