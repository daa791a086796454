"""Rows that join and leave a batch say what they say alone, with their own draws and scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from frontload.megatron_ext.inference.draws import (
    Sampling,
    choose_row_tokens,
    choose_tokens,
    draws_at,
    row_key,
    uniform_draws,
)
from frontload.megatron_ext.inference.generate import Decoder
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.megatron_ext.inference.running import RowRequest, RunningBatch
from tests.parity.reference_model import draw_weights
from tests.training_inputs import tiny_model

MODEL = replace(tiny_model(), pattern="M*-M*-M")
WEIGHTS = draw_weights(MODEL, seed=11)


def requests(number: int) -> list[RowRequest]:
    """Rows of unlike lengths, temperatures and seeds; two of three samples of one prompt."""
    rng = np.random.default_rng(5)
    return [
        RowRequest(
            row=row,
            prompt=tuple(rng.integers(4, 100, 3 + 5 * (row // 2 % 4)).tolist())
            if row % 2 == 0
            else (9, 8, 7),
            temperature=(0.0, 0.7, 1.0)[row % 3],
            seed=row // 4,
            sample=row % 2,
        )
        for row in range(number)
    ]


def said_alone(request: RowRequest, num_tokens: int) -> list[int]:
    model = LanguageModel(MODEL, WEIGHTS)
    ((*_, tokens),) = model.generate(
        [list(request.prompt)],
        Sampling(
            max_new_tokens=num_tokens,
            temperature=request.temperature,
            seed=request.seed,
            stop_token=-1,
            num_samples=request.sample + 1,
        ),
    )
    return tokens


def test_rows_that_join_and_leave_say_what_generate_says_of_each_alone() -> None:
    batch = RunningBatch(Decoder(MODEL, WEIGHTS))
    waiting = requests(11)
    lengths = {one.row: 4 + 9 * (one.row % 5) for one in waiting}
    expected = {one.row: said_alone(one, lengths[one.row]) for one in waiting}
    said: dict[int, list[int]] = {}
    while waiting or batch.num_rows:
        if waiting:  # one to three at a time, while the others are under way
            count = 1 + len(waiting) % 3
            batch.admit(waiting[:count])
            said |= {one.row: [] for one in waiting[:count]}
            waiting = waiting[count:]
        ended = set()
        for drawn in batch.draw():
            said[drawn.row].append(drawn.token)
            if len(said[drawn.row]) == lengths[drawn.row]:
                ended.add(drawn.row)
        batch.advance(ended)
    assert said == expected
    assert batch.num_passes < 60, "rows share their passes"


def test_a_batch_that_ran_empty_takes_rows_again() -> None:
    batch = RunningBatch(Decoder(MODEL, WEIGHTS))
    one = requests(1)[0]
    found = []
    for _ in range(2):
        batch.admit([one])
        found.append([drawn.token for drawn in batch.draw()])
        batch.advance({one.row})
        assert batch.num_rows == 0
    assert found[0] == found[1]


def test_scores_of_drawn_tokens_are_the_models_at_temperature_1() -> None:
    model = LanguageModel(MODEL, WEIGHTS)
    batch = model.open_batch()
    plain, scored = requests(2)
    batch.admit([plain, replace(scored, num_top=3, temperature=0.5)])
    tokens, ranked = [], []
    for _ in range(70):
        (first, second) = batch.draw()
        assert first.ranked is None
        assert second.ranked is not None
        tokens.append(second.token)
        ranked.append(second.ranked)
        batch.advance(set())
    whole = [*scored.prompt, *tokens]
    (expected,) = model.token_scores([whole])
    start = len(scored.prompt) - 1
    found = [one.log_probability for one in ranked]
    np.testing.assert_allclose(found, expected.log_probabilities_S[start:], atol=2e-5)
    for one, greedy in zip(ranked, expected.is_greedy_S[start:], strict=True):
        assert len(one.top) == 3
        assert [size for _, size in one.top] == sorted((s for _, s in one.top), reverse=True)
        assert (one.top[0][0] == one.token) == greedy


def test_a_texts_scores_are_those_of_evaluation_and_name_the_next_token() -> None:
    model = LanguageModel(MODEL, WEIGHTS)
    rows = [[4, 5, 6, 7, 8], [9], [30, 31, 32]]
    found = model.ranked_scores(rows, num_top=2)
    for row, ranked, scores in zip(rows, found, model.token_scores(rows), strict=True):
        assert [one.token for one in ranked[:-1]] == row[1:]
        own = [one.log_probability for one in ranked[:-1]]
        np.testing.assert_allclose(own, scores.log_probabilities_S, atol=2e-5)
        ((tokens,),) = model.generate(
            [row], Sampling(max_new_tokens=1, temperature=0, seed=0, stop_token=-1)
        )
        assert [ranked[-1].token] == tokens == [ranked[-1].top[0][0]]
        assert ranked[-1].log_probability == ranked[-1].top[0][1]


def test_a_rows_draws_are_those_of_a_single_prompt() -> None:
    sampling = Sampling(max_new_tokens=9, temperature=1.0, seed=-3, stop_token=1, num_samples=3)
    expected = uniform_draws([0], sampling)
    for sample in range(3):
        keys = np.array([row_key(-3, sample)] * 9, np.uint64)
        np.testing.assert_array_equal(draws_at(keys, np.arange(9)), expected[sample])


@pytest.mark.parametrize(
    ("top_p", "kept"), [(1.0, 5), (0.97, 5), (0.95, 4), (0.9, 3), (0.8, 2), (0.49, 1), (0.01, 1)]
)
def test_a_nucleus_keeps_the_fewest_likeliest_tokens_that_hold_top_p(
    top_p: float, kept: int
) -> None:
    shares = torch.tensor([0.055, 0.1, 0.5, 0.04, 0.305])
    draws = torch.linspace(0, 1, 2_001, dtype=torch.float64)[:-1]
    logits = shares.log()[None].expand(len(draws), -1).contiguous()
    chosen = choose_row_tokens(
        logits,
        draws,
        temperature_B=torch.ones(len(draws)),
        top_p_B=torch.full((len(draws),), top_p, dtype=torch.float64),
    )
    likeliest = shares.argsort(descending=True)[:kept]
    expected = torch.zeros(5).scatter(0, likeliest, shares[likeliest] / shares[likeliest].sum())
    found = torch.bincount(chosen, minlength=5) / len(draws)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_each_row_keeps_its_own_temperature_and_nucleus() -> None:
    rows = torch.randn(6, 50, generator=torch.Generator().manual_seed(2))
    draws = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    temperature = torch.tensor([0.0, 0.7, 2.0, 0.0, 1.0, 0.7])
    top_p = torch.tensor([1.0, 1.0, 1.0, 0.3, 1.0, 0.4], dtype=torch.float64)
    found = choose_row_tokens(rows, draws, temperature_B=temperature, top_p_B=top_p).tolist()
    for row, token in enumerate(found):
        one = slice(row, row + 1)
        if top_p[row] == 1 or temperature[row] == 0:
            alone = choose_tokens(rows[one], draws[one], float(temperature[row]))
        else:
            alone = choose_row_tokens(
                rows[one], draws[one], temperature_B=temperature[one], top_p_B=top_p[one]
            )
        assert [token] == alone.tolist()
