"""The hybrid model: which class builds each layer letter, and how its weights are drawn."""

import functools
import math
import zlib
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.hybrid.hybrid_block import HybridStackSubmodules
from megatron.core.models.hybrid.hybrid_model import HybridModel
from megatron.core.pipeline_parallel.utils import is_pp_first_stage, is_pp_last_stage
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.ssm.mamba_layer import MambaLayerSubmodules
from megatron.core.ssm.mamba_mixer import MambaMixer, MambaMixerSubmodules
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_layer import TransformerLayerSubmodules

from frontload.megatron_ext import cpu
from frontload.megatron_ext.model.kernels import (
    KernelHybridModel,
    LengthAttention,
    PackedAttention,
    check_kernels,
    kernel_specs,
)
from frontload.megatron_ext.model.layers import (
    ColumnLinear,
    DocumentAttention,
    GroupRMSNorm,
    PlainAttentionLayer,
    PlainMambaLayer,
    PlainMlpLayer,
    RMSNorm,
    RowLinear,
    TorchHybridModel,
    TorchHybridStack,
    TorchMambaMixer,
)
from frontload.megatron_ext.ranks.settings import transformer_config
from frontload.recipes.facts.pattern import split_pipeline
from frontload.recipes.machines.cluster import TORCH, TRANSFORMER_ENGINE
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import find_precision
from frontload.recipes.schema import Model


def layer_specs(model: Model, kernels: str = TORCH) -> ModuleSpec:
    """Which class stands for each letter: plain torch, or the same around mamba-ssm's mixer."""
    mixer, attend = TorchMambaMixer, DocumentAttention
    if kernels != TORCH:
        mixer = MambaMixer
        attend = functools.partial(PackedAttention, attention=LengthAttention)
    # get_bias_dropout_add is a function where Megatron's own annotation asks for a class
    add_residual: Any = get_bias_dropout_add
    linear = {"linear_qkv": ColumnLinear, "linear_proj": RowLinear}
    mamba = MambaLayerSubmodules(
        norm=RMSNorm,
        mixer=ModuleSpec(
            module=mixer,
            params={"chunk_size": model.mamba_chunk_tokens},
            submodules=MambaMixerSubmodules(ColumnLinear, RowLinear),
        ),
        mamba_bda=add_residual,
    )
    attention = TransformerLayerSubmodules(
        input_layernorm=RMSNorm,
        self_attention=ModuleSpec(
            module=SelfAttention,
            params={"attn_mask_type": AttnMaskType.causal},
            submodules=SelfAttentionSubmodules(core_attention=attend, **linear),
        ),
        self_attn_bda=add_residual,
    )
    mlp = TransformerLayerSubmodules(
        pre_mlp_layernorm=RMSNorm,
        mlp=functools.partial(
            MLP.as_mlp_submodule,
            submodules=MLPSubmodules(linear_fc1=ColumnLinear, linear_fc2=RowLinear),
        ),
        mlp_bda=add_residual,
    )
    return ModuleSpec(
        module=TorchHybridStack,
        submodules=HybridStackSubmodules(
            mamba_layer=ModuleSpec(module=PlainMambaLayer, submodules=mamba),
            attention_layer=ModuleSpec(module=PlainAttentionLayer, submodules=attention),
            mlp_layer=ModuleSpec(module=PlainMlpLayer, submodules=mlp),
        ),
    )


def build_model(
    model: Model, placement: Placement, groups: ProcessGroupCollection, *, precision: str
) -> HybridModel:
    """Builds this rank's part of the model; its weights are undefined until drawn or loaded.

    Raises: RecipeError if the placement asks for kernels that this machine does not have.
    """
    check_kernels(placement, find_precision(precision))
    config = transformer_config(model, placement, precision=precision)
    with_engine = placement.kernels == TRANSFORMER_ENGINE
    if placement.kernels == TORCH:
        cpu.use_torch_mamba(GroupRMSNorm)
    build = KernelHybridModel if with_engine else TorchHybridModel
    return build(
        config,
        kernel_specs(model) if with_engine else layer_specs(model, placement.kernels),
        model.vocab_size,
        model.max_sequence_tokens,
        hybrid_layer_pattern="|".join(split_pipeline(model, placement)),
        pre_process=is_pp_first_stage(groups.pp),
        post_process=is_pp_last_stage(groups.pp),
        share_embeddings_and_output_weights=model.tie_embeddings,
        position_embedding_type="none",
        pg_collection=groups,
    )


def initialise_weights(module: HybridModel, model: Model, seed: int) -> None:
    """Draws every parameter from a stream named by the seed and its own global name.

    Differs: Megatron draws in the order of construction from generators that depend on the tensor
    rank, so its weights change with the layout. Here each rank draws the whole tensor and keeps its
    part: the same weights at any TP and PP.
    """
    tp_group = module.pg_collection.tp
    for name, parameter in global_names(module).items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        whole = torch.empty(whole_shape(parameter, tp_group.size()))
        whole = _draw(name, whole, model, generator)
        with torch.no_grad():
            parameter.copy_(own_part(whole, parameter, tp_group=tp_group))


def whole_shape(parameter: torch.nn.Parameter, tp_size: int) -> list[int]:
    """The shape that a parameter has on one tensor rank."""
    shape = list(parameter.shape)
    cut = _whole_parts(parameter, tp_size)
    if cut:
        shape[getattr(parameter, "partition_dim", 0)] = sum(cut)
    return shape


def own_part(
    whole: torch.Tensor, parameter: torch.nn.Parameter, *, tp_group: dist.ProcessGroup
) -> torch.Tensor:
    """This tensor rank's part of a tensor in the shape of the whole parameter."""
    cut = _whole_parts(parameter, tp_group.size())
    if not cut:
        return whole
    dim = getattr(parameter, "partition_dim", 0)
    rank, size = tp_group.rank(), tp_group.size()
    return torch.cat([part.chunk(size, dim)[rank] for part in whole.split(cut, dim)], dim)


def global_names(module: HybridModel) -> dict[str, torch.nn.Parameter]:
    """Parameters by the name they have in the whole model, not in this pipeline stage."""
    first = module.decoder.layers[0].layer_number - 1  # type: ignore[union-attr, index]
    names: dict[str, torch.nn.Parameter] = {}
    for name, parameter in module.named_parameters():
        words = name.split(".")
        if words[:2] == ["decoder", "layers"]:
            words[2] = str(int(words[2]) + int(first))
        names[".".join(words)] = parameter
    return names


def _whole_parts(parameter: torch.nn.Parameter, tp_size: int) -> list[int]:
    """Sizes, before cutting, of the blocks that are cut one by one; empty if nothing is cut."""
    if not getattr(parameter, "tensor_model_parallel", False):
        return []
    dim = getattr(parameter, "partition_dim", 0)
    local = getattr(parameter, "partition_sizes", [parameter.shape[dim]])
    return [size * tp_size for size in local]


def _draw(
    name: str, tensor: torch.Tensor, model: Model, generator: torch.Generator
) -> torch.Tensor:
    """Megatron's and mamba-ssm's distributions, by the last word of the name."""
    kind = name.split(".")[-2:]
    if "norm" in name or kind[-1] == "D":
        return tensor.fill_(1.0)
    if kind[-1] in ("conv1d_weight", "conv1d_bias"):  # mamba_mixer.py:350, fan-in of 4 taps
        return tensor.uniform_(-0.5, 0.5, generator=generator)
    if kind[-1] == "A_log":  # mamba_mixer.py:394, A_init_range=(1, 16)
        return tensor.uniform_(1.0, 16.0, generator=generator).log_()
    if kind[-1] == "dt_bias":  # mamba_mixer.py:370, dt_min=1e-3, dt_max=0.1, floor 1e-4
        low, high = math.log(1e-3), math.log(0.1)
        dt = tensor.uniform_(low, high, generator=generator).exp_().clamp_(min=1e-4)
        return dt + torch.log(-torch.expm1(-dt))
    std = model.init_std
    if kind[0] == "word_embeddings":
        std = model.embedding_init_std
    elif kind[0] in ("out_proj", "linear_proj", "linear_fc2"):
        std /= math.sqrt(len(model.pattern))  # utils.py scaled_init_method_normal, hybrid
    return tensor.normal_(0.0, std, generator=generator)
