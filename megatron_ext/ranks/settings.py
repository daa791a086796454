"""Recipe and placement into Megatron's configuration objects: the only adapter between the two."""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from frontload.recipes.machines.cluster import TRANSFORMER_ENGINE
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import find_precision
from frontload.recipes.schema import Model, Optimizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def parameter_dtype(precision: str) -> torch.dtype:
    """The dtype of weights and activations.

    Raises: RecipeError for a precision that this engine does not have.
    """
    return DTYPES[find_precision(precision).dtype]


def fp8_settings(precision: str) -> dict[str, Any]:
    """A precision's FP8 in Megatron's words; empty for one without."""
    found = find_precision(precision)
    if not found.is_fp8:
        return {}
    return {
        "fp8": "e4m3" if found.gradient == "e4m3" else "hybrid",
        "fp8_recipe": {"tensor": "tensorwise", "block": "blockwise"}[found.scaling],
        "first_last_layers_bf16": True,
        "num_layers_at_start_in_bf16": found.bf16_layers_at_start,
        "num_layers_at_end_in_bf16": found.bf16_layers_at_end,
    }


def squared_relu(hidden: Tensor) -> Tensor:
    """Nemotron-H's MLP activation. Megatron's own is compiled at import (activations.py:16)."""
    return _SquaredRelu.apply(hidden)  # type: ignore[return-value]


class _SquaredRelu(torch.autograd.Function):
    """Its gradient is twice the root: two products where autograd does five passes."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:  # type: ignore[override]
        root = F.relu(hidden)
        ctx.save_for_backward(root)
        return root.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # type: ignore[override]
        (root,) = ctx.saved_tensors
        return (root * 2).mul_(grad_outputs[0])


def transformer_config(model: Model, placement: Placement, *, precision: str) -> TransformerConfig:
    """Megatron's model configuration. Weights are drawn by `stack.initialise_weights`, not here."""
    dtype = parameter_dtype(precision)
    with_engine = placement.kernels == TRANSFORMER_ENGINE
    return TransformerConfig(
        num_layers=len(model.pattern),
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.num_query_groups,
        kv_channels=model.kv_channels,
        mamba_num_heads=model.mamba_num_heads,
        mamba_head_dim=model.mamba_head_dim,
        mamba_state_dim=model.mamba_state_dim,
        mamba_num_groups=model.mamba_num_groups,
        is_hybrid_model=True,
        normalization="RMSNorm",
        layernorm_epsilon=model.norm_epsilon,
        activation_func=squared_relu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        init_method_std=model.init_std,
        embedding_init_method_std=model.embedding_init_std,
        perform_initialization=False,
        use_cpu_initialization=not torch.cuda.is_available(),
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        tensor_model_parallel_size=placement.tensor_parallel,
        pipeline_model_parallel_size=placement.pipeline_parallel,
        context_parallel_size=placement.context_parallel,
        sequence_parallel=placement.sequence_parallel,
        calculate_per_token_loss=True,  # loss over the global batch, whatever the layout
        transformer_impl="transformer_engine" if with_engine else "local",
        **fp8_settings(precision),
        persist_layer_norm=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        batch_p2p_comm=False,
        recompute_granularity="full" if placement.recompute else None,
        recompute_method="uniform" if placement.recompute else None,
        recompute_num_layers=1 if placement.recompute else None,
    )


def optimizer_config(
    optimizer: Optimizer, placement: Placement, *, precision: str
) -> OptimizerConfig:
    """Megatron's optimizer configuration; the learning rate of a step is set by the loop."""
    dtype = parameter_dtype(precision)
    return OptimizerConfig(
        optimizer="adam",
        lr=optimizer.learning_rate,
        min_lr=optimizer.min_learning_rate,
        adam_beta1=optimizer.adam_beta1,
        adam_beta2=optimizer.adam_beta2,
        adam_eps=optimizer.adam_epsilon,
        weight_decay=optimizer.weight_decay,
        clip_grad=optimizer.clip_grad,
        bf16=dtype is torch.bfloat16,
        params_dtype=dtype,
        use_distributed_optimizer=placement.distributed_optimizer,
        overlap_param_gather=placement.overlap_communication and placement.distributed_optimizer,
    )


def ddp_config(placement: Placement) -> DistributedDataParallelConfig:
    """Gradients are summed in float32; with overlap each bucket as soon as its last one is known.

    The distributed optimizer's weights are then gathered as the next forward pass needs them.
    """
    gathers = placement.overlap_communication and placement.distributed_optimizer
    return DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=placement.overlap_communication,
        overlap_param_gather=gathers,
        use_distributed_optimizer=placement.distributed_optimizer,
    )
