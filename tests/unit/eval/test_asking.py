"""What a model is asked, and what is kept of its answers: samples, seeds, cut documents."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.synthetic.problem import random_stream
from frontload.data_tools.text.render import encode_rows
from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.eval.asking.generation import answer_items
from frontload.eval.asking.heldout import score_heldout
from frontload.eval.results import GeneratedResult
from frontload.eval.stages import evaluate, evaluate_model
from frontload.eval.suites import GenerateItem, HeldoutDocument, read_heldout, read_items
from frontload.megatron_ext.inference.draws import Sampling
from frontload.recipes.errors import RecipeError
from tests.unit.eval.fake_study import BigramModel, recipe, workspace, write_corpus


class SamplingModel(BigramModel):
    """Draws each answer from the seed alone: equal seeds are equal answers, word by word."""

    def generate(self, prompts: list[list[int]], sampling: Sampling) -> list[list[list[int]]]:
        return [
            [self._drawn(sampling, question, sample) for sample in range(sampling.num_samples)]
            for question in range(len(prompts))
        ]

    def _drawn(self, sampling: Sampling, question: int, sample: int) -> list[int]:
        stream = random_stream(sampling.seed, "draw", question, sample)
        return [stream.randrange(END + 1, self.vocab_size) for _ in range(sampling.max_new_tokens)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, per_family=2)
    return folder


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> TextTokenizer:
    return TextTokenizer.load(corpus)


@pytest.fixture(scope="module")
def items(corpus: Path) -> list[GenerateItem]:
    """A hard question before the plain ones, another after them."""
    found = [i for i in read_items(corpus / "items.jsonl") if isinstance(i, GenerateItem)]
    return [found[-1], *found[:-1]]


def asked(
    tokenizer: TextTokenizer, items: list[GenerateItem], *, seed: int = 0, num_samples: int = 2
) -> list[GeneratedResult]:
    model = SamplingModel(tokenizer.vocab_size)
    return answer_items(
        model, tokenizer, items=items, recipe=recipe("sft", num_samples=num_samples, seed=seed)
    )


def texts(results: list[GeneratedResult], *, hard: bool) -> list[tuple[str, ...]]:
    return [tuple(s.text for s in r.samples) for r in results if r.hard == hard]


def test_every_question_is_answered_in_the_order_of_the_items(
    tokenizer: TextTokenizer, items: list[GenerateItem]
) -> None:
    assert [items[0].hard, items[1].hard, items[-1].hard] == [True, False, True]
    results = asked(tokenizer, items)
    assert [result.id for result in results] == [item.id for item in items]
    assert [len(result.samples) for result in results] == [2 + item.hard for item in items]
    for result, item in zip(results, items, strict=True):
        assert (result.gold, result.family, result.hard) == (item.answer, item.family, item.hard)
        assert result.prompt_tokens == len(tokenizer.encode(item.question)) + 2
        assert {sample.tokens for sample in result.samples} == {60}
        assert result.num_shots == 0


def test_no_two_seeds_and_no_hard_question_share_a_stream(
    tokenizer: TextTokenizer, items: list[GenerateItem]
) -> None:
    """A study of several seeds would count one draw twice."""
    first = []
    for seed in range(4):
        results = asked(tokenizer, items, seed=seed)
        first += [texts(results, hard=hard)[0][0] for hard in (False, True)]
    assert len(set(first)) == len(first)


def test_the_sampler_is_seeded_as_the_stored_evaluations_were(
    tokenizer: TextTokenizer, items: list[GenerateItem]
) -> None:
    """Another seed is another evaluation under the same key."""
    seeds = []

    class Seen(SamplingModel):
        def generate(self, prompts: list[list[int]], sampling: Sampling) -> list[list[list[int]]]:
            seeds.append(sampling.seed)
            return super().generate(prompts, sampling)

    for seed in (0, 3):
        answer_items(
            Seen(tokenizer.vocab_size), tokenizer, items=items, recipe=recipe("sft", seed=seed)
        )
    assert seeds == [0, 1, 6, 7], "plain, then hard"


def test_another_number_of_hard_samples_moves_no_other_answer(
    tokenizer: TextTokenizer, items: list[GenerateItem]
) -> None:
    few, all_but_hard = asked(tokenizer, items), [item for item in items if not item.hard]
    assert texts(asked(tokenizer, all_but_hard), hard=False) == texts(few, hard=False)


def test_an_answer_that_never_ends_is_no_answer(
    tokenizer: TextTokenizer, items: list[GenerateItem]
) -> None:
    for result in asked(tokenizer, items):
        assert not any(sample.correct for sample in result.samples)
        assert {sample.answer for sample in result.samples} == {""}
        assert all(sample.format_failure for sample in result.samples)
        assert result.gold_correct


def by_hand(
    tokenizer: TextTokenizer, document: HeldoutDocument, model: BigramModel, *, limit: int
) -> tuple[int, float, int]:
    """Tokens, loss and first choices of the answer inside the first `limit` tokens."""
    (row,) = encode_rows(tokenizer, [document.conversation()])
    tokens = row.tokens_S.tolist()
    begin = row.loss_mask_S.tolist().index(1)
    count, loss, greedy = 0, 0.0, 0
    for place in range(begin, min(limit, len(tokens))):
        row_V = model.log_p_VV[tokens[place - 1]]
        count += 1
        loss -= float(row_V[tokens[place]])
        greedy += int(row_V.argmax()) == tokens[place]
    return count, loss, greedy


@pytest.mark.parametrize("missing", [-1, 0, 1, 3])
def test_a_held_out_document_is_scored_on_its_answer_as_far_as_the_context_goes(
    corpus: Path, tokenizer: TextTokenizer, missing: int
) -> None:
    documents = read_heldout(corpus / "heldout.jsonl")
    (row,) = encode_rows(tokenizer, [documents[0].conversation()])
    limit = len(row.tokens_S) - missing
    model = BigramModel(tokenizer.vocab_size, max_sequence_tokens=limit, seed=2)
    for result, document in zip(score_heldout(model, tokenizer, documents), documents, strict=True):
        count, loss, greedy = by_hand(tokenizer, document, model, limit=limit)
        assert (result.num_tokens, result.num_greedy_tokens) == (count, greedy)
        assert result.loss_sum == pytest.approx(loss, rel=1e-6)
        assert (result.id, result.domain) == (document.id, document.domain)
    assert score_heldout(model, tokenizer, documents[:1])[0].is_cut == (missing > 0)


def test_first_choices_are_counted(corpus: Path, tokenizer: TextTokenizer) -> None:
    """A model that ranks the very next token first has every token right."""
    (document, *_) = read_heldout(corpus / "heldout.jsonl")
    (row,) = encode_rows(tokenizer, [document.conversation()])
    model = BigramModel(tokenizer.vocab_size)
    for one, two in zip(row.tokens_S[:-1], row.tokens_S[1:], strict=True):
        model.log_p_VV[one] = -9.0
        model.log_p_VV[one, two] = 0.0
    (result,) = score_heldout(model, tokenizer, [document])
    assert 0 < result.num_greedy_tokens <= result.num_tokens
    assert result.num_tokens == int(row.loss_mask_S.sum())


def test_a_question_that_fills_the_context_has_no_scored_token(
    corpus: Path, tokenizer: TextTokenizer
) -> None:
    (document, *_) = read_heldout(corpus / "heldout.jsonl")
    (row,) = encode_rows(tokenizer, [document.conversation()])
    for limit in (int(np.flatnonzero(row.loss_mask_S)[0]), 2):
        model = BigramModel(tokenizer.vocab_size, max_sequence_tokens=limit)
        (result,) = score_heldout(model, tokenizer, [document])
        assert (result.num_tokens, result.loss_sum, result.is_cut) == (0, 0.0, True)


@pytest.mark.parametrize(
    ("temperature", "counts", "message"),
    [
        (0.0, (2, 2), "greedy decoding gives the same answer every time"),
        (0.0, (1, 2), "1 and 2 hard, at temperature 0"),
        (0.7, (0, 1), "every item is answered at least once"),
        (0.7, (1, 0), "every item is answered at least once"),
    ],
)
def test_counts_of_samples_that_mean_nothing_are_refused_before_a_model_is_loaded(
    tmp_path: Path, temperature: float, counts: tuple[int, int], message: str
) -> None:
    wrong = replace(
        recipe("sft"), temperature=temperature, num_samples=counts[0], num_hard_samples=counts[1]
    )
    with pytest.raises(RecipeError, match=message):
        evaluate(wrong, {}, workspace(tmp_path))


def test_greedy_once_is_an_evaluation(corpus: Path, tmp_path: Path) -> None:
    tokenizer = TextTokenizer.load(corpus)
    model = SamplingModel(tokenizer.vocab_size)
    once = replace(recipe("sft"), temperature=0.0, num_samples=1, num_hard_samples=1)
    inputs = {"corpus": corpus, "tokenizer": corpus, "checkpoint": corpus}
    scores = evaluate_model(model, once, inputs=inputs, work=workspace(tmp_path))
    assert {one.num_samples for one in scores.benchmarks.values()} == {1}
    assert scores.protocol.max_sequence_tokens == model.max_sequence_tokens
