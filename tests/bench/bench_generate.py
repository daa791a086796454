"""Cached generation at batch 64 against transformers' NemotronH `generate` of the same weights.

Prompts have one length and no padding, and chunk_size covers them: transformers 5.x has defects
with left padding and with several chunks on a CPU. Nothing stops early. Both sides are greedy and
must write the same tokens.
"""

import numpy as np
import torch
from paired import measure, show
from reference_model import draw_weights
from torch import Tensor
from transformers import NemotronHConfig, NemotronHForCausalLM

from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.recipes.schema import Model

BATCH, PROMPT, NEW = 64, 32, 64


def hybrid(pattern: str, width: int, *, vocab_size: int) -> Model:
    return Model(
        pattern=pattern, hidden_size=width, ffn_hidden_size=3 * width, num_attention_heads=4,
        num_query_groups=4, kv_channels=width // 4, mamba_num_heads=4, mamba_head_dim=width // 4,
        mamba_state_dim=16, mamba_num_groups=1, mamba_chunk_tokens=32, vocab_size=vocab_size,
        max_sequence_tokens=128, tie_embeddings=False, norm_epsilon=1e-5, init_std=0.02,
        embedding_init_std=0.02,
    )  # fmt: skip


def to_transformers(model: Model, weights: dict[str, Tensor]) -> NemotronHForCausalLM:
    config = NemotronHConfig(
        vocab_size=model.vocab_size, hidden_size=model.hidden_size,
        intermediate_size=model.ffn_hidden_size, hybrid_override_pattern=model.pattern,
        num_attention_heads=model.num_attention_heads, head_dim=model.kv_channels,
        num_key_value_heads=model.num_query_groups, mamba_num_heads=model.mamba_num_heads,
        mamba_head_dim=model.mamba_head_dim, ssm_state_size=model.mamba_state_dim,
        n_groups=model.mamba_num_groups, conv_kernel=4, chunk_size=128, use_conv_bias=True,
        layer_norm_epsilon=model.norm_epsilon, tie_word_embeddings=False, time_step_min=1e-9,
        pad_token_id=0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    peer = NemotronHForCausalLM(config).eval()
    names = {
        "norm.weight": "norm.weight", "input_layernorm.weight": "norm.weight",
        "pre_mlp_layernorm.weight": "norm.weight", "mixer.conv1d_weight": "mixer.conv1d.weight",
        "mixer.conv1d_bias": "mixer.conv1d.bias", "mlp.linear_fc1.weight": "mixer.up_proj.weight",
        "mlp.linear_fc2.weight": "mixer.down_proj.weight",
        "self_attention.linear_proj.weight": "mixer.o_proj.weight",
    }  # fmt: skip
    state = {
        "model.embeddings.weight": weights["embedding.word_embeddings.weight"],
        "model.norm_f.weight": weights["decoder.final_norm.weight"],
        "lm_head.weight": weights["output_layer.weight"],
    }
    for name, weight in weights.items():
        if not name.startswith("decoder.layers."):
            continue
        number, _, rest = name.removeprefix("decoder.layers.").partition(".")
        prefix = f"model.layers.{number}."
        if rest == "self_attention.linear_qkv.weight":
            parts = weight.unflatten(0, (model.num_query_groups, -1, model.kv_channels))
            query, key, value = parts.split([parts.shape[1] - 2, 1, 1], 1)
            for letter, part in zip("qkv", (query, key, value), strict=True):
                state[f"{prefix}mixer.{letter}_proj.weight"] = part.flatten(0, 2)
        else:
            state[prefix + names.get(rest, rest)] = weight
    peer.load_state_dict(state)
    return peer


def compare(title: str, model: Model, *, rounds: int) -> None:
    weights = draw_weights(model, seed=5)
    ours, peer = LanguageModel(model, weights), to_transformers(model, weights)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(2, model.vocab_size, (BATCH, PROMPT), generator=generator)

    def run_ours() -> list[list[int]]:
        samples = ours.generate(
            prompts.tolist(), Sampling(max_new_tokens=NEW, temperature=0.0, seed=0, stop_token=-1)
        )
        return [row[0] for row in samples]

    def run_peer() -> list[list[int]]:
        with torch.inference_mode():
            rows = peer.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=NEW,
                do_sample=False,
                use_cache=True,
            )
        return rows[:, PROMPT:].tolist()

    same = np.mean([a == b for a, b in zip(run_ours(), run_peer(), strict=True)])
    print(f"rows with the same {NEW} greedy tokens: {same:.0%}")
    assert same > 0.9, "the two sides do not run the same model"
    timings = measure({"transformers NemotronH": run_peer, "ours": run_ours}, rounds=rounds)
    size = sum(weight.numel() for weight in weights.values())
    show(f"{title}: {size:,} parameters, {BATCH} prompts of {PROMPT}, {NEW} new tokens (goal 3)",
         timings, base="transformers NemotronH", tokens=BATCH * NEW)  # fmt: skip


if __name__ == "__main__":
    compare("laptop study's shape", hybrid("M*-M*-", 64, vocab_size=208), rounds=3)
    compare("a million parameters", hybrid("M-M*M-M-", 128, vocab_size=2048), rounds=2)
