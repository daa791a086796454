"""The actor's forward: transformers' NemotronH through our scan, against the rollout's decoder."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import NemotronHConfig, NemotronHForCausalLM
from transformers.models.nemotron_h import modeling_nemotron_h

from frontload.megatron_ext.hf.names import our_name
from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.generate import Decoder, generate_responses
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.recipes.grammar.load import find_recipe, load_recipe
from frontload.recipes.schema import Model
from frontload.rl.plugins.rollout import decoder_weights
from frontload.rl.plugins.scan import mixer_forward

TOKENS = 90  # nearly three chunks of 32
STEPS = 40
Mixer = modeling_nemotron_h.NemotronHMamba2Mixer


def tiny_model() -> Model:
    path = find_recipe("models", "hybrid_138k")
    assert path is not None
    return replace(load_recipe(path, Model).value, vocab_size=64)


@pytest.fixture(scope="module")
def trained() -> NemotronHForCausalLM:
    """A model trained on walks over words until it knows them: most drawn words have p 0.1 to 0.7.

    There an error of a logit shows most: p moves by p (1 - p) times it.
    """
    model = tiny_model()
    config = NemotronHConfig(
        hybrid_override_pattern=model.pattern,
        num_hidden_layers=len(model.pattern),
        hidden_size=model.hidden_size,
        intermediate_size=model.ffn_hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_query_groups,
        head_dim=model.kv_channels,
        mamba_num_heads=model.mamba_num_heads,
        mamba_head_dim=model.mamba_head_dim,
        ssm_state_size=model.mamba_state_dim,
        n_groups=model.mamba_num_groups,
        chunk_size=model.mamba_chunk_tokens,
        vocab_size=model.vocab_size,
        layer_norm_epsilon=model.norm_epsilon,
        use_mamba_kernels=False,
        attn_implementation="sdpa",
    )
    torch.manual_seed(1)
    actor = NemotronHForCausalLM(config).float()
    optimizer = torch.optim.AdamW(actor.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mixer, "torch_forward", mixer_forward)
        for _ in range(STEPS):
            loss = -log_probabilities(actor, walks(8, generator)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return actor.eval()


@pytest.fixture
def actor(trained: NemotronHForCausalLM, monkeypatch: pytest.MonkeyPatch) -> NemotronHForCausalLM:
    """The trained model through our scan, for one test to change."""
    monkeypatch.setattr(Mixer, "torch_forward", mixer_forward)
    return copy.deepcopy(trained)


def walks(num_rows: int, generator: torch.Generator) -> torch.Tensor:
    """Rows of words, each followed by one of its own four with shares 0.6, 0.25, 0.1, 0.05."""
    size_V = tiny_model().vocab_size
    words = torch.arange(size_V)[:, None]
    next_V4 = (words * torch.tensor([5, 7, 11, 13]) + 3) % (size_V - 4) + 4
    shares = torch.tensor([0.6, 0.25, 0.1, 0.05])
    choices_BS = shares.multinomial(num_rows * TOKENS, True, generator=generator)
    columns = [torch.randint(4, size_V, (num_rows,), generator=generator)]
    for choice_B in choices_BS.view(TOKENS, num_rows)[1:]:
        columns.append(next_V4[columns[-1], choice_B])
    return torch.stack(columns, 1)


def log_probabilities(
    actor: NemotronHForCausalLM, tokens_BS: torch.Tensor, mask_BS: torch.Tensor | None = None
) -> torch.Tensor:
    logits = actor(input_ids=tokens_BS, attention_mask=mask_BS, use_cache=False).logits
    return logits.log_softmax(-1)[:, :-1].gather(2, tokens_BS[:, 1:, None])[..., 0]


def weights_of(actor: NemotronHForCausalLM) -> dict[str, torch.Tensor]:
    tensors = {our_name(name): tensor.detach() for name, tensor in actor.state_dict().items()}
    return decoder_weights(tiny_model(), tensors)


def test_actor_and_full_form_agree_over_several_chunks(actor: NemotronHForCausalLM) -> None:
    tokens_BS = torch.randint(0, 64, (4, TOKENS), generator=torch.Generator().manual_seed(2))
    ours = LanguageModel(tiny_model(), weights_of(actor)).log_probabilities(tokens_BS.tolist())
    theirs = log_probabilities(actor, tokens_BS).detach().numpy()
    # float32 sums in another order: 1e-6 was seen, and the stock scan is off by more than 1e-3
    assert np.abs(np.exp(ours) - np.exp(theirs)).max() < 1e-5


def test_the_stock_scan_is_wrong_past_one_chunk(
    actor: NemotronHForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why the substitution exists: when this fails, transformers has mended it."""
    tokens_BS = torch.randint(0, 64, (4, TOKENS), generator=torch.Generator().manual_seed(2))
    ours = log_probabilities(actor, tokens_BS).detach().exp()
    monkeypatch.undo()
    stock = log_probabilities(actor, tokens_BS).detach().exp()
    assert (ours - stock).abs().max() > 1e-4
    assert (ours - stock)[:, :31].abs().max() < 1e-4  # the first chunk is right


def drawn_and_scored(actor: NemotronHForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
    """The probability each token was drawn with by the rollout, and the actor's for it."""
    sampling = Sampling(max_new_tokens=80, temperature=1.0, seed=3, stop_token=1, num_samples=5)
    prompts = [[2, 9, 17, 3], [2, 30, 31, 32, 33, 34, 35, 36, 37, 3], [2, 8, 3]]
    decoder = Decoder(tiny_model(), weights_of(actor))
    groups = generate_responses(decoder, prompts, sampling, score=True)
    drawn, scored = [], []
    for prompt, group in zip(prompts, groups, strict=True):
        for response in group:
            row = torch.tensor([prompt + response.tokens + [0] * 7])  # veRL pads on the right
            mask = torch.ones_like(row)
            mask[:, -7:] = 0
            with torch.no_grad():
                scored.append(log_probabilities(actor, row, mask)[0, len(prompt) - 1 : -7])
            drawn.append(torch.tensor(response.log_probabilities, dtype=scored[-1].dtype))
    return torch.cat(drawn).exp(), torch.cat(scored).exp()


def test_what_a_response_was_drawn_with_is_what_the_actor_scores(
    actor: NemotronHForCausalLM,
) -> None:
    drawn, scored = drawn_and_scored(actor)
    assert len(drawn) > 1000
    assert ((drawn > 0.1) & (drawn < 0.9)).float().mean() > 0.5
    assert (scored - drawn).abs().max() < 1e-5  # float32; see README for the study's weights


def test_in_float64_rollout_and_actor_are_one_function(
    actor: NemotronHForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a difference in float32, whatever the weights, is rounding and nothing else."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)  # what both sides cast to inside
    drawn, scored = drawn_and_scored(actor.double())
    assert drawn.dtype == scored.dtype == torch.float64
    assert (scored - drawn).abs().max() < 1e-12


def test_gradients_do_not_depend_on_the_chunk(actor: NemotronHForCausalLM) -> None:
    tokens_BS = torch.randint(0, 64, (4, TOKENS), generator=torch.Generator().manual_seed(4))
    found = []
    for chunk in (16, 128):
        for layer in actor.model.layers:
            if hasattr(layer.mixer, "chunk_size"):
                layer.mixer.chunk_size = chunk
        actor.zero_grad()
        log_probabilities(actor, tokens_BS).mean().backward()
        found.append({n: p.grad.clone() for n, p in actor.named_parameters() if p.grad is not None})
    for name, grad in found[0].items():
        scale = grad.abs().max().clamp_min(1e-6)
        # sums of about a thousand float32 terms in another order: 4e-6 was seen, in dt_bias
        assert (grad - found[1][name]).abs().max() / scale < 3e-5, name
