"""The published 8B shape, without its numbers: Megatron's names and shapes to transformers' own."""

import math
from typing import Any

import pytest
import torch

from frontload.megatron_ext.hf.config import to_config
from frontload.megatron_ext.hf.names import Link, groups
from frontload.megatron_ext.hf.tokenizer import token_ids
from frontload.recipes.facts.census import count_parameters
from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Model

# The layout is that of config.json in the Hugging Face repository nvidia/Nemotron-H-8B-Base-8K, the
# count that of public analyses of its weights. The fields after vocab_size change no shape.
PUBLISHED = Model(
    pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    hidden_size=4096,
    ffn_hidden_size=21504,
    num_attention_heads=32,
    num_query_groups=8,
    kv_channels=128,
    mamba_num_heads=128,
    mamba_head_dim=64,
    mamba_state_dim=128,
    mamba_num_groups=8,
    vocab_size=131072,
    mamba_chunk_tokens=128,
    max_sequence_tokens=8192,
    tie_embeddings=False,
    norm_epsilon=1e-5,
    init_std=0.014,
    embedding_init_std=0.014,
)
PUBLISHED_PARAMETERS = 8_100_852_736


def links() -> list[Link]:
    return [link for group in groups(PUBLISHED) for link in group.links]


def test_the_count_is_the_published_one() -> None:
    assert len(PUBLISHED.pattern) == 52
    assert count_parameters(PUBLISHED).total == PUBLISHED_PARAMETERS
    for side in ("megatron", "hf"):
        counts = [slot.count for link in links() for slot in getattr(link, side)]
        assert sum(counts) == PUBLISHED_PARAMETERS


def test_names_and_shapes_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    values = to_config(PUBLISHED, dtype="bfloat16", token_ids=token_ids())
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    expected = {
        name.replace("model.", "backbone.", 1): tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
    }
    assert {slot.name: slot.shape for link in links() for slot in link.hf} == expected
    assert sum(math.prod(shape) for shape in expected.values()) == PUBLISHED_PARAMETERS
    assert config.hybrid_override_pattern == PUBLISHED.pattern


def test_names_and_shapes_are_those_that_megatron_saves() -> None:
    """Builds the whole model of fake tensors and asks it for its distributed checkpoint."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from frontload.megatron_ext import cpu

    cpu.prepare()
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import (
        ShardedObject,
        ShardedTensor,
        apply_factories,
    )

    from frontload.megatron_ext.model.stack import build_model
    from frontload.megatron_ext.ranks import parallelism

    parallel = parallelism.join_groups(Placement())
    with FakeTensorMode(allow_non_fake_inputs=True):
        module = build_model(PUBLISHED, Placement(), parallel, precision="bf16")
        content: dict[str, Any] = module.sharded_state_dict(
            metadata={"dp_cp_group": parallel.dp_cp}
        )
        apply_factories(content)
    saved = list(nested_values(content))
    tensors = {one.key: one.global_shape for one in saved if isinstance(one, ShardedTensor)}
    assert {slot.name: slot.shape for link in links() for slot in link.megatron} == tensors
    states = [one.key for one in saved if isinstance(one, ShardedObject)]
    assert [f"{link.state}._extra_state" for link in links() if link.state] == states
