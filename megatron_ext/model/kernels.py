"""The models of CUDA kernels: mamba-ssm's mixer alone, or among Transformer Engine's layers.

`mamba_ssm` is the plain torch model with Megatron's own mixer, and attention of packed documents
by their lengths. `transformer_engine` is Megatron's own hybrid_stack_spec, with three changes:
documents of a row stay apart in attention, checkpoints carry the names of the plain torch layers,
and Transformer Engine's extra state stays out of them. Neither was run on a GPU: none was at hand.
On a CPU the first is tested with mamba-ssm's kernels interpreted, the second with torch modules in
Transformer Engine's place that have its parameters.
"""

import functools
import importlib
import importlib.util
from dataclasses import replace
from typing import Any

import torch
from megatron.core.models.hybrid.hybrid_block import HybridStackSubmodules
from megatron.core.models.hybrid.hybrid_model import HybridModel
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.spec_utils import ModuleSpec
from torch import Tensor, nn

from frontload.megatron_ext.model.layers import DocumentAttention, DocumentResets
from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.gemms import check_layers
from frontload.recipes.machines.cluster import MAMBA_SSM, TORCH, TRANSFORMER_ENGINE
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import Precision
from frontload.recipes.schema import Model

MIXER_PACKAGES = ("mamba_ssm", "causal_conv1d")
PACKAGES = {
    MAMBA_SSM: MIXER_PACKAGES,
    TRANSFORMER_ENGINE: ("transformer_engine", *MIXER_PACKAGES),
}
"""What each set of kernels is made of."""

EXTRA_STATE = "_extra_state"

FUSED_NORMS = {
    "mamba_layer": ("mixer.in_proj.layer_norm_", "norm."),
    "attention_layer": ("self_attention.linear_qkv.layer_norm_", "input_layernorm."),
    "mlp_layer": ("mlp.linear_fc1.layer_norm_", "pre_mlp_layernorm."),
}
"""Layer of the specification -> prefix of its norm where Transformer Engine has it (inside the
linear after it), and in a checkpoint, whichever layers wrote it."""


def check_kernels(placement: Placement, precision: Precision) -> None:
    """Checks that this machine has the layers that the placement asks for.

    Raises: RecipeError for an unknown set, without CUDA or a package, and for FP8 without them.
    """
    check_layers(placement, precision)
    if placement.kernels == TORCH:
        return
    needs = PACKAGES[placement.kernels]
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing or not torch.cuda.is_available():
        found = "no CUDA device" if not torch.cuda.is_available() else "no " + ", ".join(missing)
        raise RecipeError(
            "placement.kernels",
            found=f"is {placement.kernels}, and this machine has {found}",
            rule=f"its layers need CUDA, {', '.join(needs)}",
            do=f"write kernels: {TORCH}",
        )


def kernel_specs(model: Model, stock: ModuleSpec | None = None) -> ModuleSpec:
    """Which class stands for each letter on CUDA."""
    if stock is None:
        module = importlib.import_module("megatron.core.models.hybrid.hybrid_layer_specs")
        stock = module.hybrid_stack_spec
    assert stock is not None
    layers: Any = stock.submodules
    changed = {
        name: replace(getattr(layers, name).submodules, sharded_state_dict_keys_map={fused: stored})
        for name, (fused, stored) in FUSED_NORMS.items()
    }
    mamba, attention = changed["mamba_layer"], changed["attention_layer"]
    mixer = replace(mamba.mixer, params={"chunk_size": model.mamba_chunk_tokens})
    changed["mamba_layer"] = replace(mamba, mixer=mixer)
    inner = attention.self_attention
    core = functools.partial(PackedAttention, attention=inner.submodules.core_attention)
    inner = replace(inner, submodules=replace(inner.submodules, core_attention=core))
    changed["attention_layer"] = replace(attention, self_attention=inner)
    specs = {
        name: replace(getattr(layers, name), submodules=parts) for name, parts in changed.items()
    }
    return replace(stock, submodules=HybridStackSubmodules(**specs))


class KernelHybridModel(HybridModel):
    """HybridModel whose checkpoints are those of the plain torch layers.

    Transformer Engine's extra state is that of delayed scaling, which no precision here uses; what
    the torch layers call by the same name is empty.
    """

    def sharded_state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        """What a checkpoint holds: the torch layers' names, and nothing in their extra state."""
        found: dict[str, Any] = {}
        for name, part in super().sharded_state_dict(*args, **options).items():
            if name.endswith(EXTRA_STATE):
                if "core_attention" in name or "norm." in name:
                    continue  # the torch layers have none there
                part.data = None
            found[name] = part
        return found

    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
        """Loads such a checkpoint; extra state starts empty."""
        extra = {name: None for name in self.state_dict() if name.endswith(EXTRA_STATE)}
        return super().load_state_dict(dict(state_dict) | extra, *args, **options)


class PackedAttention(nn.Module):
    """Core attention that hands rows of packed documents to a kernel as one row of documents.

    Differs: Megatron passes a batch of rows on as it is, where a kernel sees no documents at all.
    """

    def __init__(self, *args: Any, attention: Any, **options: Any) -> None:
        super().__init__()
        self.attention = attention(*args, **options)

    def forward(
        self,
        query_SBHE: Tensor,
        key_SBKE: Tensor,
        value_SBKE: Tensor,
        attention_mask: Tensor | None = None,
        *,
        attn_mask_type: AttnMaskType = AttnMaskType.causal,
        packed_seq_params: PackedSeqParams | None = None,
        **options: Any,
    ) -> Tensor:
        """Shapes: S x B x (H E), as the projection after it takes it."""
        tensors = (query_SBHE, key_SBKE, value_SBKE)
        if packed_seq_params is None:
            return self.attention(
                *tensors, attention_mask, attn_mask_type=attn_mask_type, **options
            )
        size_S, size_B = query_SBHE.shape[:2]
        ids_BS = packed_seq_params.seq_idx
        assert isinstance(packed_seq_params, DocumentResets)
        assert ids_BS is not None
        flat = (tensor.transpose(0, 1).flatten(0, 1) for tensor in tensors)
        out_TC = self.attention(
            *flat,
            None,
            attn_mask_type=attn_mask_type,
            packed_seq_params=document_lengths(ids_BS),
            **options,
        )
        return out_TC.reshape(size_B, size_S, -1).transpose(0, 1)


class LengthAttention(nn.Module):
    """Core attention by torch's kernel for rows of unequal lengths, as PackedAttention has them.

    Keys are repeated for the queries that share them: torch 2.11's form of it has no groups.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()
        self.whole_rows = DocumentAttention(*args, **options)
        self.attend = importlib.import_module("torch.nn.attention.varlen").varlen_attn

    def forward(
        self,
        *tensors: Any,
        packed_seq_params: PackedSeqParams | None = None,
        **options: Any,
    ) -> Tensor:
        """Takes queries, keys, values and no mask; without lengths as DocumentAttention.

        Shapes: query THE, key and value TKE, T tokens of all rows; returns T x (H E).
        """
        if packed_seq_params is None:
            return self.whole_rows(*tensors, **options)
        query_THE, key_TKE, value_TKE, _ = tensors
        per_group = query_THE.shape[1] // key_TKE.shape[1]
        out_THE = self.attend(
            query_THE,
            key_TKE.repeat_interleave(per_group, 1),
            value_TKE.repeat_interleave(per_group, 1),
            packed_seq_params.cu_seqlens_q,
            packed_seq_params.cu_seqlens_kv,
            packed_seq_params.max_seqlen_q,
            packed_seq_params.max_seqlen_kv,
            scale=self.whole_rows.scale,
            window_size=(-1, 0),  # a token sees those before it and itself
        )
        return out_THE.flatten(1)


def document_lengths(ids_BS: Tensor) -> PackedSeqParams:
    """Rows of documents as one row of `thd` tokens: where each document begins and ends.

    Units: int32 tokens, from the beginning of the first row.
    """
    is_first = torch.ones_like(ids_BS, dtype=torch.bool)  # a row begins a document
    is_first[:, 1:] = ids_BS[:, 1:] != ids_BS[:, :-1]
    starts = is_first.flatten().nonzero().flatten()
    bounds = torch.cat([starts, starts.new_tensor([ids_BS.numel()])])
    longest = int((bounds[1:] - bounds[:-1]).max())
    bounds = bounds.to(torch.int32)
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=bounds,
        cu_seqlens_kv=bounds,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )
