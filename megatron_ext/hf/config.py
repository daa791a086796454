"""The model recipe as the config.json of Hugging Face `nemotron_h`, and back."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frontload.megatron_ext.checkpoints.files import first_line
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.facts.pattern import NUM_CONV_TAPS, Layer, check_model
from frontload.recipes.schema import Model

MODEL_TYPE = "nemotron_h"
GATED_NORM_EPSILON = 1e-5  # megatron/core/ssm/mamba_mixer.py:419 states it, whatever the config
NO_CLAMP = 1e-30
"""time_step_min. Transformers clamps dt to at least this, in 5.10 on a CPU and in 5.2x everywhere;
Megatron does not. A dt this small adds nothing to a float32 state and exp(dt A) rounds to 1, so the
clamp is harmless; 0 would be too, but drawing fresh weights takes its logarithm."""

_KINDS = {
    "mamba": Layer.MAMBA,  # transformers 5.10
    "linear_attention": Layer.MAMBA,  # transformers 5.2x
    "attention": Layer.ATTENTION,
    "full_attention": Layer.ATTENTION,
    "mlp": Layer.MLP,
}
_FIELDS = {
    "hidden_size": "hidden_size",
    "ffn_hidden_size": "intermediate_size",
    "num_attention_heads": "num_attention_heads",
    "num_query_groups": "num_key_value_heads",
    "kv_channels": "head_dim",
    "mamba_num_heads": "mamba_num_heads",
    "mamba_head_dim": "mamba_head_dim",
    "mamba_state_dim": "ssm_state_size",
    "mamba_num_groups": "n_groups",
    "mamba_chunk_tokens": "chunk_size",
    "vocab_size": "vocab_size",
    "max_sequence_tokens": "max_position_embeddings",
    "tie_embeddings": "tie_word_embeddings",
    "norm_epsilon": "layer_norm_epsilon",
    "init_std": "initializer_range",
}
OWN_CHUNK = "mamba_chunk_tokens"
"""The chunk of training, in a key of ours; other writers have `chunk_size` only."""
MAX_SCAN_BYTES = 4 << 30
"""Ours: of the largest tensor of one sequence in one layer of transformers' scan without kernels.
`hybrid_15m` at its 2048 tokens has just this; `hybrid_8b` would have 64 TiB."""
_FIXED: dict[str, Any] = {
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "mamba_proj_bias": False,
    "use_conv_bias": True,
    "conv_kernel": NUM_CONV_TAPS,
    "mlp_hidden_act": "relu2",
    "mamba_hidden_act": "silu",
    "sliding_window": None,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
}
"""What this engine builds in one way only; a config without the key means the same."""
_ABSENT = ("rope_scaling", "rope_parameters", "num_nextn_predict_layers", "moe_latent_size")
"""Features of a config that have no place in this engine, unless empty."""
_ARITHMETIC_FREE = (
    "mamba_chunk_tokens", "max_sequence_tokens", "init_std", "embedding_init_std",
)  # fmt: skip
"""Fields that change no output of given weights."""
_INFINITY = {"__float__": "Infinity"}  # as transformers 5 writes it into JSON
_NO_LIMITS = (None, [0.0, float("inf")], [0.0, _INFINITY])
_NO_FIELD_DEFAULT = (
    0.02  # embedding_init_std of a config that another tool wrote; only for new weights
)


def to_config(model: Model, *, dtype: str, token_ids: Mapping[str, int | None]) -> dict[str, Any]:
    """The config of a model: the pattern as `hybrid_override_pattern` only.

    Transformers 5.10 and 5.2x name the layer kinds differently and 5.10 refuses the other names;
    both read the pattern. `token_ids` has bos_token_id, eos_token_id and pad_token_id.


    Raises: ArtifactError for a model whose arithmetic this format cannot state.
    """
    if Layer.MAMBA.value in model.pattern and model.norm_epsilon != GATED_NORM_EPSILON:
        raise ArtifactError(
            "convert to-hf: model.norm_epsilon",
            found=f"is {model.norm_epsilon}",
            rule=f"Megatron's gated norm always has {GATED_NORM_EPSILON}, and nemotron_h has one "
            "epsilon for all norms",
            do=f"train with norm_epsilon {GATED_NORM_EPSILON}",
        )
    inner = model.mamba_num_heads * model.mamba_head_dim
    own = {theirs: getattr(model, ours) for ours, theirs in _FIELDS.items()}
    return {
        "architectures": ["NemotronHForCausalLM"],
        "model_type": MODEL_TYPE,
        "hybrid_override_pattern": model.pattern,
        "num_hidden_layers": len(model.pattern),
        **own,
        "chunk_size": exported_chunk(model),
        OWN_CHUNK: model.mamba_chunk_tokens,
        **_FIXED,
        **token_ids,
        "embedding_init_std": model.embedding_init_std,  # no field of theirs; they keep it
        "expand": max(1, inner // model.hidden_size),  # for reading: the heads say the width
        "time_step_min": NO_CLAMP,
        "residual_in_fp32": False,
        "rescale_prenorm_residual": True,
        "dtype": dtype,
        "torch_dtype": dtype,  # its name before transformers 4.56
        "use_cache": True,
    }


def exported_chunk(model: Model) -> int:
    """The `chunk_size` of a config: it covers the trained length, where memory can hold that.

    The scan of transformers 5.10 without GPU kernels sums over the wrong axis from the second chunk
    on (modeling_nemotron_h.py:524); what a chunk covers is right, and its size changes no result.
    Kernels take powers of two, and are right with any.
    """
    covering = 1 << (model.max_sequence_tokens - 1).bit_length()
    scan_bytes = 4 * model.mamba_num_heads * model.mamba_state_dim * covering**2
    if covering <= model.mamba_chunk_tokens or scan_bytes > MAX_SCAN_BYTES:
        return model.mamba_chunk_tokens
    return covering


def read_config(folder: Path) -> Model:
    """Reads the model of a Hugging Face folder, from whichever writer.

    Raises: ArtifactError for another architecture or a feature that this engine does not have.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        found_type = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise _refused(
            folder,
            found=f"no usable config.json ({first_line(error)})",
            rule="a Hugging Face folder describes its model there",
            do="name the folder that holds config.json and the safetensors",
        ) from error
    if found_type != MODEL_TYPE:
        raise _refused(
            folder,
            found=f"model_type is {found_type!r}",
            rule=f"this engine reads {MODEL_TYPE}",
            do="convert the model to nemotron_h first, or use the tool it is made for",
        )
    _check_features(folder, config)
    try:
        values = {ours: config[theirs] for ours, theirs in _FIELDS.items()}
        values["mamba_chunk_tokens"] = config.get(OWN_CHUNK, config["chunk_size"])
        model = Model(
            pattern=_pattern(folder, config),
            embedding_init_std=float(config.get("embedding_init_std", _NO_FIELD_DEFAULT)),
            **values,
        )
        _check_types(model)
        check_model(model)
    except (KeyError, TypeError, ValueError, RecipeError) as error:
        raise _refused(
            folder,
            found=f"config.json does not give a model ({error})",
            rule="it states " + ", ".join(_FIELDS.values()) + " and the layers",
            do="export the model again with every field written out",
        ) from error
    return model


def _check_types(model: Model) -> None:
    """JSON may hold anything, and a dataclass takes it. Raises: TypeError naming the field."""
    for item in dataclasses.fields(Model):
        value = getattr(model, item.name)
        kind: Any = (int, float) if item.type is float else item.type
        right = isinstance(value, kind) and isinstance(value, bool) == (item.type is bool)
        if not right or (item.type is int and value < 1):
            raise TypeError(f"{_FIELDS.get(item.name, item.name)} is {value!r}")


def check_arithmetic(folder: Path, found: Model, known: Model) -> None:
    """Checks that a folder's model computes what the known recipe says.

    Raises: ArtifactError naming the first field that differs.
    """
    for name in (item.name for item in dataclasses.fields(Model)):
        asked, value = getattr(known, name), getattr(found, name)
        if name not in _ARITHMETIC_FREE and value != asked:
            raise _refused(
                folder,
                found=f"its {name} is {value}",
                rule=f"the recipe's is {asked}",
                do="import it without the recipe, or name the folder that came from it",
            )


def _check_features(folder: Path, config: dict[str, Any]) -> None:
    for name, ours in _FIXED.items():
        found = config.get(name, ours)
        if found != ours:
            raise _refused(
                folder,
                found=f"config.json: {name} is {found!r}",
                rule=f"this engine has {name} {ours!r} only",
                do="use a model without it",
            )
    for name in _ABSENT:
        if config.get(name):
            raise _refused(
                folder,
                found=f"config.json: {name} is {config[name]!r}",
                rule="this engine has no rotary positions, experts or multi-token prediction",
                do="use a model without it",
            )
    if config.get("time_step_limit") not in _NO_LIMITS:
        raise _refused(
            folder,
            found=f"config.json: time_step_limit is {config['time_step_limit']}",
            rule="Megatron does not clamp dt",
            do="use a model trained without the limit",
        )
    if Layer.MAMBA.value in _pattern(folder, config):
        epsilon = config.get("layer_norm_epsilon", GATED_NORM_EPSILON)
        if epsilon != GATED_NORM_EPSILON:
            raise _refused(
                folder,
                found=f"config.json: layer_norm_epsilon is {epsilon}",
                rule=f"Megatron's gated norm always has {GATED_NORM_EPSILON}",
                do="use a model trained with it",
            )


def _pattern(folder: Path, config: dict[str, Any]) -> str:
    known = {layer.value for layer in Layer}
    pattern = config.get("hybrid_override_pattern")
    if pattern is None:
        names = config.get("layers_block_type") or config.get("layer_types") or []
        pattern = "".join(_KINDS[n].value if n in _KINDS else "?" for n in names)
        unknown = sorted({str(name) for name in names if name not in _KINDS})
    else:
        unknown = sorted(set(str(pattern)) - known)
    if unknown or not pattern:
        shown = ", ".join(unknown) or "none"
        raise _refused(
            folder,
            found=f"config.json: layers of kind {shown}" + (" (experts)" * ("E" in shown)),
            rule="this engine builds M (Mamba-2), * (attention) and - (MLP)",
            do="use a model of these layers",
        )
    return str(pattern)


def _refused(folder: Path, *, found: str, rule: str, do: str) -> ArtifactError:
    return ArtifactError(f"Hugging Face folder {folder}", found=found, rule=rule, do=do)
