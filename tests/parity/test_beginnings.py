"""Rows that begin alike, read behind one reading of their beginning, against each row read alone.

Tolerance 1e-4 of log-probabilities of size 1 to 20: both sides are float32, summed differently.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from frontload.megatron_ext.hf.transformers_decoder import load_transformers
from frontload.megatron_ext.inference import beginnings
from frontload.megatron_ext.inference.beginnings import RowFamily, find_families, read_to_ends
from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.generate import Decoder
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.megatron_ext.inference.running import RowRequest
from tests.parity.reference_model import draw_weights
from tests.training_inputs import tiny_model

MODELS = {
    "hybrid": tiny_model(pattern="M*-M*-M"),
    "transformer": tiny_model(pattern="*-*-"),
    "mamba": tiny_model(pattern="MM", mamba_num_groups=1),
}


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beginnings are shared however little they save."""
    monkeypatch.setattr(beginnings, "LEAST_TOKENS", 2)
    monkeypatch.setattr(beginnings, "LEAST_SAVED", 1)
    monkeypatch.setattr(beginnings, "BEGINNINGS_AT_ONCE", 2)


def drawn(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 90, (length,), generator=generator).tolist()


def few_shot_rows() -> list[list[int]]:
    """Families of odd lengths, in no order, one row alone, one that is a beginning of another,
    two that are the same."""
    starts = [drawn(length, length) for length in (3, 8, 17, 61)]
    rows = [[*start, *drawn(1 + 5 * part, part)] for start in starts for part in range(4)]
    rows += [drawn(25, 99), rows[-1][:-3], list(rows[5])]
    return [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]


@dataclass(kw_only=True)
class Counting:
    """A decoder that counts the tokens it reads in full form."""

    inner: Any
    num_tokens: int = 0
    passes: list[tuple[int, bool]] = field(default_factory=list)  # rows, behind a state

    def __post_init__(self) -> None:
        self.table_VD: Tensor = self.inner.table_VD

    def full(
        self, tokens_BS: Tensor, lengths_B: Tensor, *, before: list[Any] | None = None
    ) -> tuple[Tensor, list[Any]]:
        self.num_tokens += int(lengths_B.sum())
        self.passes.append((len(lengths_B), before is not None))
        return self.inner.full(tokens_BS, lengths_B, before=before)

    def step(self, tokens_B: Tensor, states: list[Any]) -> Tensor:
        return self.inner.step(tokens_B, states)

    def logits(self, hidden_TD: Tensor) -> Tensor:
        return self.inner.logits(hidden_TD)


@pytest.fixture(params=[*MODELS, "transformers"])
def counting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Counting]:
    if request.param != "transformers":
        model = MODELS[request.param]
        yield Counting(inner=Decoder(model, draw_weights(model, seed=5)))
        return
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=112, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    yield Counting(inner=load_transformers(tmp_path)._decoder)


def model_of(decoder: Any) -> LanguageModel:
    return LanguageModel.of_decoder(decoder, vocab_size=112, max_sequence_tokens=128)


def alone(decoder: Counting, rows: list[list[int]]) -> list[np.ndarray]:
    return [model_of(decoder.inner).log_probabilities([row])[0] for row in rows]


@pytest.mark.parametrize("batch", [64, 3])
def test_scores_are_those_of_each_row_alone(counting: Counting, batch: int) -> None:
    rows = few_shot_rows()
    expected = alone(counting, rows)
    for row, scores, one in zip(
        rows, model_of(counting).token_scores(rows, batch_sequences=batch), expected, strict=True
    ):
        assert scores.is_greedy_S.shape == one.shape == (len(row) - 1,)
        np.testing.assert_allclose(scores.log_probabilities_S, one, atol=1e-4, rtol=0)
    assert max(number for number, _ in counting.passes) <= batch
    read_alone = sum(map(len, rows))
    assert counting.num_tokens < 0.7 * read_alone, "beginnings are read once"


def test_options_of_one_token_are_scored_behind_their_beginning(counting: Counting) -> None:
    contexts = few_shot_rows()
    asked = [[4, 7, 80]] * len(contexts)
    found = model_of(counting).candidate_scores(contexts, asked)
    assert any(is_behind for _, is_behind in counting.passes)
    for context, one in zip(contexts, found, strict=True):
        (alone_,) = model_of(counting.inner).candidate_scores([context], [[4, 7, 80]])
        np.testing.assert_allclose(one.log_probabilities_S, alone_.log_probabilities_S, atol=1e-4)
        np.testing.assert_array_equal(one.is_greedy_S, alone_.is_greedy_S)


def test_ranks_are_those_of_each_row_alone(counting: Counting) -> None:
    rows = few_shot_rows()
    for row, ranked in zip(rows, model_of(counting).ranked_scores(rows, num_top=3), strict=True):
        (expected,) = model_of(counting.inner).ranked_scores([row], num_top=3)
        assert [one.token for one in ranked] == [one.token for one in expected]
        np.testing.assert_allclose(
            [share for one in ranked for _, share in one.top],
            [share for one in expected for _, share in one.top],
            atol=1e-4,
        )
    assert any(is_behind for _, is_behind in counting.passes)


def test_texts_are_those_of_each_prompt_alone(counting: Counting) -> None:
    prompts = few_shot_rows()
    options = {"max_new_tokens": 12, "temperature": 0.0, "seed": 4, "stop_token": -1}
    together = model_of(counting).generate(prompts, Sampling(num_samples=2, **options))  # pyright: ignore
    for prompt, texts in zip(prompts, together, strict=True):
        ((text,),) = model_of(counting.inner).generate([prompt], Sampling(**options))  # pyright: ignore
        assert texts == [text, text]
    assert any(is_behind for _, is_behind in counting.passes)


def test_rows_that_join_a_running_batch_share_their_beginning(counting: Counting) -> None:
    prompts = few_shot_rows()
    batch, said = model_of(counting).open_batch(), {row: [] for row in range(len(prompts))}
    waiting = list(enumerate(prompts))
    while waiting or batch.num_rows:
        if waiting:
            batch.admit(
                [
                    RowRequest(row=row, prompt=tuple(prompt), temperature=0, seed=0)
                    for row, prompt in waiting[:9]
                ]
            )
            del waiting[:9]
        for one in batch.draw():
            said[one.row].append(one.token)
        batch.advance({row for row, tokens in said.items() if len(tokens) == 6})
    assert any(is_behind for _, is_behind in counting.passes)
    for row, prompt in enumerate(prompts):
        ((text,),) = model_of(counting.inner).generate(
            [prompt], Sampling(max_new_tokens=6, temperature=0.0, seed=0, stop_token=-1)
        )
        assert said[row] == text


@pytest.mark.parametrize("name", MODELS)
def test_a_row_may_be_cut_anywhere(name: str) -> None:
    """Also within the taps of the convolution and within a chunk of the scan."""
    model = replace(MODELS[name], mamba_chunk_tokens=5)
    decoder = Decoder(model, draw_weights(model, seed=2))
    tokens_BS = torch.tensor([drawn(24, 1), drawn(24, 2)])
    whole_BSD, _ = decoder.full(tokens_BS, torch.tensor([24, 24]))
    for cut in (1, 2, 3, 5, 12, 22):
        lengths_B = torch.tensor([cut, cut])
        _, states = decoder.full(tokens_BS[:, :cut], lengths_B)
        rest_BSD, after = decoder.full(tokens_BS[:, cut:23], 23 - lengths_B, before=states)
        torch.testing.assert_close(rest_BSD, whole_BSD[:, cut:23], atol=2e-5, rtol=1e-5)
        logits_BV = decoder.step(tokens_BS[:, 23], _with_room(after))
        expected_BV = decoder.logits(whole_BSD[:, 23])
        torch.testing.assert_close(logits_BV, expected_BV, atol=1e-4, rtol=1e-5)


def _with_room(states: list[Any]) -> list[Any]:
    for state in states:
        state.reserve(1)
    return states


def test_reading_to_the_ends_gives_a_row_for_each_copy(counting: Counting) -> None:
    prompts = few_shot_rows()
    copies = [3, 0, 3, len(prompts) - 1]
    last_BD, _ = read_to_ends(counting, prompts, copies=copies)
    for row, copy in zip(last_BD, copies, strict=True):
        expected_BD, _ = read_to_ends(counting.inner, [prompts[copy]], copies=[0])
        torch.testing.assert_close(row, expected_BD[0], atol=1e-4, rtol=1e-4)


def test_families_save_what_can_be_saved() -> None:
    shot, other = drawn(10, 1), drawn(7, 2)
    rows = [[*shot, 1, 2], [9], [*other, 3], [*shot, 1, 4], [*other, 4, 4], [*shot, 5]]
    families = find_families(rows)
    assert sorted(families, key=lambda one: one.num_tokens) == [
        RowFamily(num_tokens=7, rows=(2, 4)),
        RowFamily(num_tokens=10, rows=(0, 3, 5)),
    ]


def test_a_deeper_beginning_wins_where_it_saves_more() -> None:
    shot = drawn(4, 1)
    deep = [[*shot, *drawn(50, 2), part] for part in range(3)]
    rows = [*deep, *([*shot, 1, part] for part in range(2))]
    assert {(one.num_tokens, one.rows) for one in find_families(rows)} == {
        (54, (0, 1, 2)),
        (5, (3, 4)),
    }


def test_families_of_any_rows_are_beginnings_and_apart() -> None:
    """Chains of a thousand rows, each the beginning of the next, among them."""
    rng = np.random.default_rng(3)
    drawn_rows = [rng.integers(0, 2, rng.integers(1, 9)).tolist() for _ in range(300)]
    for rows in (drawn_rows, [[7] * length for length in range(1, 1500)], [[1]], []):
        families = find_families(rows)
        members = list(chain.from_iterable(one.rows for one in families))
        assert len(members) == len(set(members))
        for one in families:
            assert len(one.rows) > 1
            start = rows[one.rows[0]][: one.num_tokens]
            assert len(start) == one.num_tokens
            for row in one.rows:
                assert rows[row][: one.num_tokens] == start
                assert len(rows[row]) > one.num_tokens, "every row keeps a token of its own"


def test_little_in_common_is_not_worth_more_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[*drawn(40, 1), part] for part in range(10)]
    monkeypatch.setattr(beginnings, "LEAST_SAVED", 9 * 40)
    assert len(find_families(rows)) == 1
    monkeypatch.setattr(beginnings, "LEAST_SAVED", 9 * 40 + 1)
    assert find_families(rows) == []
    monkeypatch.setattr(beginnings, "LEAST_SAVED", 1)
    monkeypatch.setattr(beginnings, "LEAST_TOKENS", 41)
    assert find_families(rows) == []
