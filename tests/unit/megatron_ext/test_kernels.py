"""The CUDA model's names, shapes, checkpoints and packing, on torch modules of TE's shape.

Nothing here runs a kernel. The stand-ins have Transformer Engine's parameters (a norm's weight
inside the linear, extra state) and Megatron's own specification and layers around them.
"""

import functools
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frontload.megatron_ext import cpu

cpu.prepare()
from megatron.core.models.hybrid import hybrid_block, hybrid_layer_specs  # noqa: E402
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint  # noqa: E402

from frontload.megatron_ext.checkpoints.save import Parts, load_weights, save_weights  # noqa: E402
from frontload.megatron_ext.model import stack  # noqa: E402
from frontload.megatron_ext.model.kernels import (  # noqa: E402
    FUSED_NORMS,
    KernelHybridModel,
    check_kernels,
    document_lengths,
    kernel_specs,
)
from frontload.megatron_ext.model.layers import (  # noqa: E402
    ColumnLinear,
    RMSNorm,
    RowLinear,
    TorchMambaMixer,
    document_resets,
)
from frontload.megatron_ext.model.stack import build_model, initialise_weights  # noqa: E402
from frontload.megatron_ext.ranks.parallelism import join_groups, take_census  # noqa: E402
from frontload.megatron_ext.ranks.settings import fp8_settings, transformer_config  # noqa: E402
from frontload.recipes.errors import RecipeError  # noqa: E402
from frontload.recipes.facts.gemms import check_widths  # noqa: E402
from frontload.recipes.machines.cluster import MAMBA_SSM, TRANSFORMER_ENGINE  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from frontload.recipes.machines.precision import find_precision  # noqa: E402
from tests.training_inputs import tiny_model  # noqa: E402

MODEL = tiny_model(pattern="M-*M-")
METADATA = {"chained_optim_avoid_prefix": True}


class NormColumn(ColumnLinear):
    """Has the parameters of TELayerNormColumnParallelLinear."""

    def __init__(self, input_size: int, *args: Any, **options: Any) -> None:
        super().__init__(input_size, *args, **options)
        self.layer_norm_weight = nn.Parameter(torch.ones(input_size))

    def forward(self, input_: Tensor, *args: Any, **options: Any) -> Any:  # pyright: ignore
        normed = F.rms_norm(input_, input_.shape[-1:], self.layer_norm_weight, 1e-5)
        return super().forward(normed, *args, **options)


class StatefulNorm(RMSNorm):
    """Has the parameters of te.pytorch.RMSNorm."""

    def get_extra_state(self) -> Tensor:
        return torch.zeros(1)

    def set_extra_state(self, state: Any) -> None:
        assert state is None


class LengthAttention(nn.Module):
    """Has TEDotProductAttention's extra state, and its `thd` rows: one document after another."""

    def __init__(self, *, softmax_scale: float | None = None, **_: Any) -> None:
        super().__init__()
        self.scale = softmax_scale
        self.seen: list[Any] = []

    def get_extra_state(self) -> Tensor:
        return torch.zeros(1)

    def set_extra_state(self, state: Any) -> None:
        assert state is None

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: Any = (), metadata: Any = None
    ) -> dict[str, Any]:
        state = self.state_dict(prefix="", keep_vars=True)
        return make_sharded_tensors_for_checkpoint(
            state, prefix, {}, sharded_offsets, dp_cp_group=metadata["dp_cp_group"]
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        *,
        packed_seq_params: Any = None,
        **_: Any,
    ) -> Tensor:
        del mask
        if packed_seq_params is None:
            bounds, shape = [0, len(query)], query.shape[:2]
            parts = [tensor.permute(1, 2, 0, 3) for tensor in (query, key, value)]
        else:
            self.seen.append(packed_seq_params)
            bounds, shape = packed_seq_params.cu_seqlens_q.tolist(), query.shape[:1]
            parts = [tensor.transpose(0, 1)[None] for tensor in (query, key, value)]
        outs = [
            F.scaled_dot_product_attention(
                parts[0][:, :, low:high],
                parts[1][:, :, low:high],
                parts[2][:, :, low:high],
                is_causal=True,
                scale=self.scale,
                enable_gqa=True,
            )
            for low, high in itertools.pairwise(bounds)
        ]
        out = torch.cat(outs, 2).permute(2, 0, 1, 3)  # token, row, head, width
        return out.reshape(*shape, -1)


def stand_in_spec() -> Any:
    """Megatron's own specification, with a torch class for each of Transformer Engine's."""
    stock: Any = hybrid_layer_specs.hybrid_stack_spec
    layers = stock.submodules

    def swap(spec: Any, **changes: Any) -> Any:
        return replace(spec, submodules=replace(spec.submodules, **changes))

    mixer = swap(layers.mamba_layer.submodules.mixer, in_proj=NormColumn, out_proj=RowLinear)
    mixer = replace(mixer, module=TorchMambaMixer)
    attention = swap(
        layers.attention_layer.submodules.self_attention,
        linear_qkv=NormColumn, linear_proj=RowLinear, core_attention=LengthAttention,
    )  # fmt: skip
    mlp = layers.mlp_layer.submodules.mlp
    inner = replace(mlp.keywords["submodules"], linear_fc1=NormColumn, linear_fc2=RowLinear)
    return swap(
        stock,
        mamba_layer=swap(layers.mamba_layer, mixer=mixer),
        attention_layer=swap(layers.attention_layer, self_attention=attention),
        mlp_layer=swap(layers.mlp_layer, mlp=functools.partial(mlp.func, submodules=inner)),
    )


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model as `build_model` makes it for CUDA, with the stand-ins; its weights drawn."""
    monkeypatch.setattr(hybrid_block, "TENorm", StatefulNorm)
    monkeypatch.setattr(stack, "check_kernels", lambda *_: None)
    monkeypatch.setattr(stack, "kernel_specs", lambda model: kernel_specs(model, stand_in_spec()))
    placement = Placement(kernels=TRANSFORMER_ENGINE)
    cpu.use_torch_mamba(stack.GroupRMSNorm)
    module = build_model(MODEL, placement, join_groups(placement), precision="fp32")
    initialise_weights(module, MODEL, 3)
    assert isinstance(module, KernelHybridModel)
    return module


@pytest.fixture
def plain() -> Any:
    module = build_model(MODEL, Placement(), join_groups(Placement()), precision="fp32")
    initialise_weights(module, MODEL, 4)
    return module


def parts(module: Any) -> Parts:
    return Parts(module=module, optimizer=None, groups=join_groups(Placement()))


def logits(module: Any, *, packed: bool) -> Tensor:
    tokens = torch.arange(64).view(2, 32) * 7 % MODEL.vocab_size
    ids = torch.stack([torch.arange(32) // 9, torch.arange(32) // 16])
    resets = document_resets(ids) if packed else None
    with torch.no_grad():
        return module(tokens, None, None, packed_seq_params=resets)


def stored(module: Any) -> dict[str, tuple[int, ...]]:
    """Names in a checkpoint -> shape of the whole tensor."""
    groups = join_groups(Placement())
    parts = module.sharded_state_dict(metadata=METADATA | {"dp_cp_group": groups.dp_cp})
    found = {}
    for part in parts.values():
        whole = part.build() if hasattr(part, "build") else {"": part}
        for one in whole.values() if isinstance(whole, dict) else whole:
            found[one.key] = tuple(getattr(one, "global_shape", ()))
    return found


def test_both_models_have_the_same_names_and_shapes_in_a_checkpoint(
    kernels: Any, plain: Any
) -> None:
    assert stored(kernels) == stored(plain)
    names = {name for name, _ in kernels.named_parameters()}
    fused = {name for name in names if "layer_norm_weight" in name}
    assert len(fused) == len(MODEL.pattern)
    for name in fused:
        (stored_name,) = (
            name.replace(fused + "weight", stored + "weight")
            for fused, stored in FUSED_NORMS.values()
            if fused in name
        )
        assert stored_name in dict(plain.named_parameters())


@pytest.mark.parametrize("packed", [False, True])
def test_checkpoints_move_both_ways_and_give_the_same_logits(
    kernels: Any, plain: Any, tmp_path: Path, *, packed: bool
) -> None:
    before = logits(plain, packed=packed)
    assert not torch.allclose(logits(kernels, packed=packed), before)
    save_weights(tmp_path / "plain", parts(plain), state={})
    load_weights(tmp_path / "plain", parts(kernels))
    # 1e-5: the norm in one function here, in the linear there; sums in another order
    torch.testing.assert_close(logits(kernels, packed=packed), before, rtol=1e-5, atol=1e-5)
    save_weights(tmp_path / "kernels", parts(kernels), state={})
    initialise_weights(plain, MODEL, 5)
    load_weights(tmp_path / "kernels", parts(plain))
    assert torch.equal(logits(plain, packed=packed), before)


def test_weights_are_drawn_alike_and_counted(kernels: Any, plain: Any) -> None:
    initialise_weights(plain, MODEL, 3)
    torch.testing.assert_close(
        logits(kernels, packed=False), logits(plain, packed=False), rtol=1e-5, atol=1e-5
    )
    take_census(kernels, MODEL, Placement(), join_groups(Placement()))


def test_documents_reach_the_kernel_as_lengths(kernels: Any) -> None:
    logits(kernels, packed=True)
    attention = kernels.decoder.layers[2].self_attention.core_attention.attention
    (seen,) = attention.seen
    assert (seen.qkv_format, seen.max_seqlen_q) == ("thd", 16)
    assert seen.cu_seqlens_q.tolist() == [0, 9, 18, 27, 32, 48, 64]
    assert seen.cu_seqlens_q.dtype == torch.int32


def test_equal_ids_of_two_rows_are_two_documents() -> None:
    found = document_lengths(torch.tensor([[0, 0, 1], [1, 1, 1]]))
    assert found.cu_seqlens_q.tolist() == [0, 2, 3, 6]
    assert found.max_seqlen_q == 3


@pytest.mark.parametrize(
    ("kernels", "precision", "words"),
    [
        (TRANSFORMER_ENGINE, "bf16", ["is transformer_engine", "write kernels: torch"]),
        (MAMBA_SSM, "bf16", ["is mamba_ssm", "need CUDA, mamba_ssm, causal_conv1d; write kernels"]),
        (MAMBA_SSM, "fp32", ["is fp32 with placement.kernels mamba_ssm", "write bf16, or kernels"]),
        ("torch", "nano2_blockwise", ["with placement.kernels torch", "Transformer Engine's"]),
        (MAMBA_SSM, "nano2_blockwise", ["with placement.kernels mamba_ssm", "transformer_engine"]),
        ("cuda", "bf16", ["is 'cuda'", "torch, mamba_ssm or transformer_engine", "write torch"]),
    ],
)
def test_what_this_machine_lacks_is_refused(kernels: str, precision: str, words: list[str]) -> None:
    if torch.cuda.is_available() and kernels != "torch":
        pytest.skip("this machine has CUDA")
    with pytest.raises(RecipeError) as error:
        check_kernels(Placement(kernels=kernels), find_precision(precision))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"kv_channels": 12}, "model.kv_channels are 12"),
        ({"mamba_head_dim": 17}, "the convolution's channels on a rank are 66"),
    ],
)
def test_widths_that_no_kernel_takes_are_refused(changes: dict[str, int], words: str) -> None:
    model = tiny_model(**changes)
    check_widths(model, Placement(tensor_parallel=2))
    placement = Placement(tensor_parallel=2, kernels=MAMBA_SSM)
    if not words:
        check_widths(model, placement)
        return
    with pytest.raises(RecipeError, match=f"mamba_ssm, and {words}; its kernels take multiples"):
        check_widths(model, placement)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bf16", (None, False)),
        ("nemotron_h_current_scaling", ("hybrid", "tensorwise", 2, 2)),
        ("nano2_blockwise", ("e4m3", "blockwise", 2, 2)),
    ],
)
def test_precisions_in_megatrons_words(name: str, expected: tuple[Any, ...]) -> None:
    config = transformer_config(tiny_model(pattern="M-M-M-M-"), Placement(), precision=name)
    found: tuple[Any, ...] = (config.fp8, config.first_last_layers_bf16)
    if config.fp8:
        ends = (config.num_layers_at_start_in_bf16, config.num_layers_at_end_in_bf16)
        found = (config.fp8, config.fp8_recipe, *ends)
    assert found == expected
    assert config.params_dtype == torch.bfloat16
    assert bool(fp8_settings(name)) == bool(config.fp8)


def test_torch_layers_keep_their_norm_beside_mamba_ssm(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed mamba-ssm gives the mixer a norm of its own, which runs on CUDA alone."""

    class OnlyCuda(nn.Module):
        def __init__(self, size: int, *, dtype: Any, **_: Any) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size, dtype=dtype))

    mixer = sys.modules["megatron.core.ssm.mamba_mixer"]
    tokens = torch.arange(24).view(2, 12)
    logits = []
    for changes in ({}, {"HAVE_MAMBA_SSM": True, "ExtendedRMSNorm": OnlyCuda}):
        for name, value in changes.items():
            monkeypatch.setattr(mixer, name, value)
        module: Any = build_model(MODEL, Placement(), join_groups(Placement()), precision="fp32")
        initialise_weights(module, MODEL, 4)
        logits.append(module(tokens, None, None).detach())
    assert torch.equal(*logits)
    norm = module.decoder.layers[0].mixer.norm
    assert isinstance(norm, stack.GroupRMSNorm)
    assert norm.weight.tensor_model_parallel
    assert norm.tp_group is not None
