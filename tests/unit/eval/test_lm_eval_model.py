"""The lm-eval adapter against sums done by hand on a bigram model."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from frontload.data_tools.text.document import Conversation
from frontload.data_tools.text.render import encode_few_shot_prompt
from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.data_tools.text.train_tokenizer import corpus_texts, train_byte_pairs
from frontload.eval.asking.harness import run_base_suite
from frontload.eval.asking.lm_eval_model import FrontloadLM
from frontload.eval.asking.prompts import few_shot_prompt
from frontload.eval.results import ChoiceResult, GeneratedResult
from frontload.eval.suites import ChoiceItem, FewShotItem, items_of_suite, read_items
from tests.unit.eval.fake_study import BigramModel, recipe, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, per_family=3)
    return folder


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> TextTokenizer:
    return TextTokenizer.load(corpus)


def asked(*arguments: object) -> SimpleNamespace:
    return SimpleNamespace(args=arguments)


def test_log_likelihood_is_the_sum_over_the_continuation_only(tokenizer: TextTokenizer) -> None:
    model = BigramModel(tokenizer.vocab_size)
    lm = FrontloadLM(model, tokenizer)
    requests = [
        asked("the box 1 holds", " a ring"),
        asked("the box 1 holds", " a"),
        asked("the box 2 holds", " a"),
        asked("", "a ring"),
    ]
    context, one, two = tokenizer.encode("the box 1 holds"), *tokenizer.encode("a ring")
    log_p_VV = model.log_p_VV.astype("f8")
    expected = [
        log_p_VV[context[-1], one] + log_p_VV[one, two],
        log_p_VV[context[-1], one],
        log_p_VV[context[-1], one],
        log_p_VV[END, one] + log_p_VV[one, two],
    ]
    found = lm.loglikelihood(requests)  # pyright: ignore[reportArgumentType]
    assert [value for value, _ in found] == pytest.approx(expected)


def test_greedy_flag_is_whether_every_token_is_the_first_choice(tokenizer: TextTokenizer) -> None:
    model = BigramModel(tokenizer.vocab_size)
    start = tokenizer.encode("box")[0]
    best = [start]
    for _ in range(3):
        best.append(int(model.log_p_VV[best[-1]].argmax()))
    lm = FrontloadLM(model, tokenizer)
    context = [start]
    other = best[1:-1] + [(best[-1] + 1) % tokenizer.vocab_size]
    requests = [
        (("", ""), context, best[1:]),
        (("", ""), context, other),
        (("", ""), context, best[1:2]),
        (("", ""), context, [(best[1] + 1) % tokenizer.vocab_size]),
    ]
    assert [greedy for _, greedy in lm._loglikelihood_tokens(requests)] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("words", [1, 7, 8, 9, 30, 61])
def test_rolling_log_likelihood_predicts_every_token_once(
    tokenizer: TextTokenizer, words: int
) -> None:
    model = BigramModel(tokenizer.vocab_size, max_sequence_tokens=8)
    text = " ".join(
        ["ring", "cup", "coin", "box", "holds", "a", "the"][n % 7] for n in range(words)
    )
    tokens = [END, *tokenizer.encode(text)]
    expected = float(model.log_p_VV.astype("f8")[tokens[:-1], tokens[1:]].sum())
    (found,) = FrontloadLM(model, tokenizer).loglikelihood_rolling([asked(text)])  # pyright: ignore
    assert found == pytest.approx(expected, rel=1e-6)


def test_generation_is_cut_at_the_first_stop_text(tokenizer: TextTokenizer) -> None:
    model = BigramModel(tokenizer.vocab_size)
    lm = FrontloadLM(model, tokenizer)
    options = {"until": [], "max_gen_toks": 6, "do_sample": False}
    (whole,) = lm.generate_until([asked("the box", options)])  # pyright: ignore[reportArgumentType]
    stop = whole.split()[2]
    (cut,) = lm.generate_until([asked("the box", options | {"until": [stop]})])  # pyright: ignore
    assert whole.startswith(cut)
    assert cut.split() == whole.split()[: whole.split().index(stop)]


def test_our_scores_are_lm_evals_own(corpus: Path, tokenizer: TextTokenizer) -> None:
    from frontload.eval.asking import harness

    items = items_of_suite(read_items(corpus / "items.jsonl"), "base")
    base = [item for item in items if isinstance(item, (ChoiceItem, FewShotItem))]
    seen: dict = {}
    original = harness.evaluate

    def keeping(*arguments: object, **options: object) -> object:
        seen.update(original(*arguments, **options))  # pyright: ignore
        return seen

    harness.evaluate = keeping  # pyright: ignore[reportAttributeAccessIssue]
    try:
        model = BigramModel(tokenizer.vocab_size, seed=3)
        results = run_base_suite(model, tokenizer, items=base, recipe=recipe("base"))
    finally:
        harness.evaluate = original
    assert [result.id for result in results] == [item.id for item in base]
    for benchmark, numbers in seen["results"].items():
        ours = [result.accuracy for result in results if result.benchmark == benchmark]
        assert numbers["acc,none"] == pytest.approx(np.mean(ours)), benchmark
    choices = [result for result in results if isinstance(result, ChoiceResult)]
    assert 0 < sum(result.accuracy for result in choices) < len(choices)


def test_few_shot_prompts_hold_as_many_examples_as_fit(
    corpus: Path, tokenizer: TextTokenizer
) -> None:
    items = [i for i in read_items(corpus / "items.jsonl") if isinstance(i, FewShotItem)]
    item = items[0]
    whole = few_shot_prompt(tokenizer, item, num_shots=2, max_tokens=500)
    assert (whole.num_shots, whole.num_tokens) == (2, len(tokenizer.encode(whole.text)))
    less = few_shot_prompt(tokenizer, item, num_shots=2, max_tokens=whole.num_tokens - 1)
    assert less.num_shots == 1
    assert less.num_tokens < whole.num_tokens
    none = few_shot_prompt(tokenizer, item, num_shots=2, max_tokens=1)
    assert none.num_shots == 0
    assert item.question in none.text
    model = BigramModel(tokenizer.vocab_size, max_sequence_tokens=less.num_tokens)
    (result,) = run_base_suite(model, tokenizer, items=[item], recipe=recipe("base"))
    assert isinstance(result, GeneratedResult)
    assert (result.num_shots, result.prompt_tokens) == (1, less.num_tokens)


@pytest.mark.parametrize("kind", ["word", "byte_bpe"])
def test_the_prompt_text_encodes_to_the_ids_of_training(
    corpus: Path, tokenizer: TextTokenizer, kind: str
) -> None:
    """lm-eval hands over texts; training joins pieces that are encoded apart."""
    if kind == "byte_bpe":
        tokenizer = train_byte_pairs(
            corpus_texts([corpus / "training.jsonl"]), vocab_size=400
        ).tokenizer
    rows = [json.loads(line) for line in (corpus / "items.jsonl").read_text().splitlines()]
    for row in (row for row in rows if row["kind"] == "few_shot"):
        exemplars = [Conversation(id="", family="", domain="", **one) for one in row["exemplars"]]
        expected = encode_few_shot_prompt(tokenizer, exemplars, question=row["question"])
        names = ("id", "benchmark", "category", "family", "question", "answer", "inside_shq")
        item = FewShotItem(exemplars=tuple(exemplars), **{name: row[name] for name in names})
        prompt = few_shot_prompt(tokenizer, item, num_shots=9, max_tokens=9999)
        assert tokenizer.encode(prompt.text) == expected
