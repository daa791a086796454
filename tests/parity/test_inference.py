"""Log-probabilities and cached generation, batched, against Megatron's full forward.

Tolerance 2e-5 of log-probabilities of size 1 to 20: both sides are float32, summed differently.
"""

import numpy as np
import pytest
import torch

from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.language_model import LanguageModel
from tests.parity.conftest import Trained


@pytest.fixture(scope="module")
def language_model(trained: Trained) -> LanguageModel:
    return LanguageModel.load(trained.artifact)


def megatron_log_probabilities(trained: Trained, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return trained.module(torch.tensor([tokens]), None, None)[0].log_softmax(-1)


def sequences(vocabulary: int, lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, vocabulary, (n,), generator=generator).tolist() for n in lengths]


def test_log_probabilities_of_unequal_rows(trained: Trained, language_model: LanguageModel) -> None:
    rows = sequences(trained.model.vocab_size, [30, 2, 17, 1, 9, 31])
    scores = language_model.log_probabilities(rows, batch_sequences=4)
    assert [len(score) for score in scores] == [29, 1, 16, 0, 8, 30]
    for row, score in zip(rows, scores, strict=True):
        table = megatron_log_probabilities(trained, row)
        expected = [float(table[i, token]) for i, token in enumerate(row[1:])]
        np.testing.assert_allclose(score, expected, rtol=2e-5, atol=2e-5)


def test_greedy_generation_is_megatrons_argmax(
    trained: Trained, language_model: LanguageModel
) -> None:
    prompts = sequences(trained.model.vocab_size, [5, 1, 12, 3, 20, 8])
    answers = language_model.generate(
        prompts, Sampling(max_new_tokens=24, temperature=0.0, seed=0, stop_token=7, num_samples=2)
    )
    for prompt, (answer, again) in zip(prompts, answers, strict=True):
        assert answer == again
        assert len(answer) == 24 or answer[-1] == 7
        assert 7 not in answer[:-1]
        table = megatron_log_probabilities(trained, prompt + answer[:-1])[len(prompt) - 1 :]
        chosen = table.gather(1, torch.tensor(answer)[:, None]).squeeze(1)
        assert torch.all(chosen >= table.max(1).values - 2e-5)  # the argmax, or a tie with it


def test_sampled_tokens_are_those_of_megatrons_shares(
    trained: Trained, language_model: LanguageModel
) -> None:
    """Each token is where its draw falls in Megatron's own cumulative shares, at every position."""
    from frontload.megatron_ext.inference.draws import Sampling, uniform_draws

    prompts = sequences(trained.model.vocab_size, [6, 2, 15])
    sampling = Sampling(max_new_tokens=16, temperature=0.7, seed=9, stop_token=7, num_samples=3)
    answers = language_model.generate(
        prompts, Sampling(max_new_tokens=16, temperature=0.7, seed=9, stop_token=7, num_samples=3)
    )
    draws = uniform_draws([0, 1, 2], sampling).reshape(3, 3, 16)
    checked = 0
    for prompt, samples, rows in zip(prompts, answers, draws, strict=True):
        for answer, row in zip(samples, rows, strict=True):
            table = megatron_log_probabilities(trained, prompt + answer[:-1])[len(prompt) - 1 :]
            shares = (table.double() / 0.7).softmax(-1).cumsum(-1)
            for position, token in enumerate(answer):
                low = float(shares[position, token - 1]) if token else 0.0
                assert low - 1e-4 <= row[position] <= float(shares[position, token]) + 1e-4
                checked += 1
    assert checked > 60


def test_batching_does_not_change_a_sample(
    monkeypatch: pytest.MonkeyPatch, trained: Trained, language_model: LanguageModel
) -> None:
    prompts = sequences(trained.model.vocab_size, [5, 1, 12, 3, 20, 8, 5])
    whole = language_model.generate(
        prompts, Sampling(max_new_tokens=20, temperature=1.0, seed=4, stop_token=7, num_samples=3)
    )
    monkeypatch.setattr("frontload.megatron_ext.inference.generate.MAX_ROWS", 4)
    cut = language_model.generate(
        prompts, Sampling(max_new_tokens=20, temperature=1.0, seed=4, stop_token=7, num_samples=3)
    )
    assert whole == cut
    fewer = language_model.generate(
        prompts[:2],
        Sampling(max_new_tokens=20, temperature=1.0, seed=4, stop_token=7, num_samples=1),
    )
    assert [row[0] for row in whole[:2]] == [row[0] for row in fewer]
    other_seed = language_model.generate(
        prompts, Sampling(max_new_tokens=20, temperature=1.0, seed=5, stop_token=7, num_samples=3)
    )
    assert whole != other_seed
