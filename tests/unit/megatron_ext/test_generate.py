"""Draws and choices of generation. Parity with Megatron's forward is in tests/parity."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from frontload.megatron_ext.inference.draws import Sampling, choose_tokens, uniform_draws
from frontload.megatron_ext.inference.generate import Decoder, generate
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.megatron_ext.inference.states import AttentionState
from tests.parity.reference_model import draw_weights
from tests.training_inputs import tiny_model


def sampling(**changes: int | float) -> Sampling:
    values = {"max_new_tokens": 50, "temperature": 1.0, "seed": 3, "stop_token": 1,
              "num_samples": 4}  # fmt: skip
    return Sampling(**(values | changes))  # type: ignore[arg-type]


def test_draws_are_uniform_and_independent() -> None:
    draws = uniform_draws(list(range(100)), sampling())
    assert draws.shape == (400, 50)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    counts, _ = np.histogram(draws, 20, (0.0, 1.0))
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 44  # 19 degrees of freedom: above 44 once in a thousand
    for axis in (0, 1):
        one, other = np.delete(draws, 0, axis), np.delete(draws, -1, axis)
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03
    assert len(np.unique(draws)) == draws.size


def test_a_draw_depends_on_its_names_only() -> None:
    draws = uniform_draws([5, 2], sampling())
    np.testing.assert_array_equal(draws[4:], uniform_draws([2], sampling()))
    np.testing.assert_array_equal(draws[::4], uniform_draws([5, 2], sampling(num_samples=1)))
    np.testing.assert_array_equal(draws[:, :9], uniform_draws([5, 2], sampling(max_new_tokens=9)))
    assert not np.any(draws == uniform_draws([5, 2], sampling(seed=4)))
    assert not np.any(draws == uniform_draws([5, 2], sampling(seed=-3)))


def test_choices_follow_the_shares() -> None:
    shares = torch.tensor([0.0, 0.1, 0.6, 0.0, 0.3])
    draws = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:-1]
    logits = shares.log()[None].expand(len(draws), -1)
    counts = torch.bincount(choose_tokens(logits, draws, 1.0), minlength=5) / len(draws)
    torch.testing.assert_close(counts, shares, atol=2e-4, rtol=0)
    sharper = torch.bincount(choose_tokens(logits, draws, 0.5), minlength=5) / len(draws)
    torch.testing.assert_close(sharper, shares**2 / (shares**2).sum(), atol=2e-4, rtol=0)
    assert choose_tokens(logits, draws, 0.0).unique().tolist() == [2]


def plain_nucleus(log_p_V: np.ndarray, *, temperature: float, top_p: float) -> np.ndarray:
    """The shares of a draw, written out: likeliest first until they hold `top_p`."""
    shares_V = np.exp(log_p_V.astype("f8") / temperature)
    shares_V /= shares_V.sum()
    kept, held = np.zeros_like(shares_V), 0.0
    for token in np.argsort(-shares_V, kind="stable"):
        kept[token] = shares_V[token]
        held += shares_V[token]
        if held >= top_p:
            break
    return kept / kept.sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.5), (0.7, 0.9), (1.3, 0.05)])
def test_draws_of_a_model_are_those_of_its_nucleus(temperature: float, top_p: float) -> None:
    model, num_samples = tiny_model(), 4_000
    language_model = LanguageModel(model, draw_weights(model, seed=1))
    prompt, words = [4, 5, 6], list(range(model.vocab_size))
    (scored,) = language_model.candidate_scores([prompt], [words])
    expected = plain_nucleus(scored.log_probabilities_S, temperature=temperature, top_p=top_p)
    (made,) = language_model.generate(
        [prompt],
        Sampling(
            max_new_tokens=1,
            temperature=temperature,
            seed=5,
            stop_token=-1,
            num_samples=num_samples,
            top_p=top_p,
        ),
    )
    found = np.bincount([one for (one,) in made], minlength=model.vocab_size) / num_samples
    assert not found[expected == 0].any(), "nothing outside the nucleus is drawn"
    errors = np.sqrt(expected * (1 - expected) / num_samples)
    assert (np.abs(found - expected) <= 4 * errors + 1e-12).all()
    assert 0 < np.count_nonzero(expected) < model.vocab_size


def test_a_nucleus_of_everything_changes_no_draw() -> None:
    model = tiny_model()
    decoder = Decoder(model, draw_weights(model, seed=1))
    prompts, whole = [[4, 5, 6], [9]], sampling(max_new_tokens=12)
    assert generate(decoder, prompts, whole) == generate(
        decoder, prompts, replace(whole, top_p=1.0)
    )
    assert generate(decoder, prompts, replace(whole, top_p=0.3)) != generate(
        decoder, prompts, whole
    )


def test_rows_end_at_the_stop_token_or_the_limit() -> None:
    model = tiny_model()
    decoder = Decoder(model, draw_weights(model, seed=1))
    prompts = [[4, 5, 6], [9], [8, 8]]
    free = generate(decoder, prompts, sampling(max_new_tokens=12, stop_token=-1))
    assert all(len(row) == 12 for rows in free for row in rows)
    stop = free[1][2][4]
    for rows, whole in zip(
        generate(decoder, prompts, sampling(max_new_tokens=12, stop_token=stop)), free, strict=True
    ):
        for row, reference in zip(rows, whole, strict=True):
            end = reference.index(stop) + 1 if stop in reference else 12
            assert row == reference[:end]


def test_no_prompt_gives_no_answer_and_an_empty_one_is_a_bug() -> None:
    model = tiny_model()
    decoder = Decoder(model, draw_weights(model, seed=1))
    assert generate(decoder, [], sampling()) == []
    with pytest.raises(AssertionError):
        generate(decoder, [[]], sampling())


@pytest.mark.parametrize("groups", [1, 2])
def test_a_decoder_of_bf16_weights_follows_one_of_float32(groups: int) -> None:
    """What evaluation computes on CUDA after bf16 training, in both forms, and tokens chosen."""
    model = replace(tiny_model(), mamba_num_groups=groups)
    exact = draw_weights(model, seed=1)
    rounded = {name: weight.bfloat16() for name, weight in exact.items()}
    plain, half = Decoder(model, exact), Decoder(model, rounded)
    tokens_BS, lengths_B = torch.tensor([[4, 5, 6, 7, 3], [9, 2, 8, 0, 0]]), torch.tensor([5, 3])
    next_B = torch.tensor([6, 4])
    found = []
    with torch.inference_mode():
        for decoder in (plain, half):
            hidden_BSD, states = decoder.full(tokens_BS, lengths_B)
            last = decoder.logits(hidden_BSD[torch.arange(2), lengths_B - 1])
            for state in states:
                if isinstance(state, AttentionState):
                    state.reserve(2)
            found.append(torch.stack([last, decoder.step(next_B, states)]).float())
    assert found[1].isfinite().all()
    error = (found[1] - found[0]).norm() / found[0].norm()
    assert 1e-4 < error < 0.03, "bf16 keeps 8 bits: 0.4% a rounding, some tens of them in a row"
    for temperature in (0.0, 0.6):
        (rows,) = generate(half, [[4, 5, 6]], sampling(temperature=temperature, stop_token=-1))
        assert [len(row) for row in rows] == [50] * 4
