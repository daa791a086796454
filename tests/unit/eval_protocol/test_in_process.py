"""A checkpoint in this process: its answers hang on what is asked, not on what runs beside."""

from dataclasses import replace

import numpy as np
import pytest

from frontload.eval.protocol.answers import Generated, GenerationRequest, LoglikelihoodRequest
from frontload.eval.protocol.in_process import InProcess
from frontload.recipes.errors import RecipeError
from tests.unit.eval_protocol.protocol_inputs import CONTEXT


def ask(prompt: str | None = "Ada has 12 apples", **changes: object) -> GenerationRequest:
    plain = GenerationRequest(
        key="k",
        prompt=prompt,
        messages=None,
        seed=5,
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=16,
        stop=(),
    )
    return replace(plain, **changes)


def answer(model: InProcess, request: GenerationRequest) -> Generated:
    ((key, found),) = model.generate([request])
    assert key == request.key
    return found


def test_an_answer_is_the_same_alone_and_among_others(drawn_model: InProcess) -> None:
    requests = [
        ask(
            "Question: " * (1 + number % 7),
            key=str(number),
            seed=number,
            stop=("A",) * (number % 2),
        )
        for number in range(150)
    ]
    together = dict(drawn_model.generate(requests))
    assert together.keys() == {one.key for one in requests}
    for one in requests[::46]:
        assert answer(drawn_model, one) == together[one.key]
    assert len({found.text for found in together.values()}) > 100, "seeds draw apart"


def test_the_seed_decides_and_temperature_0_is_greedy(drawn_model: InProcess) -> None:
    assert answer(drawn_model, ask()) == answer(drawn_model, ask())
    assert answer(drawn_model, ask(seed=6)) != answer(drawn_model, ask())
    greedy = [answer(drawn_model, ask(temperature=0.0, seed=seed)) for seed in (1, 2)]
    assert greedy[0] == greedy[1]
    narrow = answer(drawn_model, ask(top_p=1e-6))
    assert narrow == greedy[0], "the smallest nucleus is the likeliest token"


def test_an_answer_ends_before_its_first_stop_text(drawn_model: InProcess) -> None:
    whole = answer(drawn_model, ask(max_new_tokens=20))
    assert len(whole.text) > 6
    stop = whole.text[4:6]
    cut = answer(drawn_model, ask(max_new_tokens=20, stop=("never", stop)))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish == "stop"
    assert cut.num_tokens < whole.num_tokens, "it is not written to its end"


def test_a_long_answer_is_cut_and_says_so(drawn_model: InProcess) -> None:
    asked = [ask(key=str(seed), seed=seed, max_new_tokens=500) for seed in range(12)]
    long = list(dict(drawn_model.generate(asked)).values())
    cut = [one for one in long if one.finish == "length"]
    assert {one.num_tokens for one in cut} == {CONTEXT}, "no answer is longer than the training"
    ended = [one for one in long if one.finish == "stop"]
    assert ended, "a drawn model ends now and then"
    assert all("<|end|>" not in one.text for one in ended)


def test_a_conversation_is_asked_in_the_models_template(drawn_model: InProcess) -> None:
    turn = {"role": "user", "content": "Ada has 12 apples"}
    chat = answer(drawn_model, ask(prompt=None, messages=(turn,)))
    text = answer(drawn_model, ask("<|user|> Ada has 12 apples <|assistant|>"))
    assert chat == text


def test_log_likelihoods_are_sums_over_the_tokens_of_the_continuation(
    drawn_model: InProcess,
) -> None:
    pairs = [("Ada has", " 12 apples"), ("Ada has", " 3"), ("", "Ada"), ("Ada ha", "s 12")]
    requests = [
        LoglikelihoodRequest(key=str(number), context=context, continuation=continuation)
        for number, (context, continuation) in enumerate(pairs)
    ]
    found = dict(drawn_model.loglikelihood(requests))
    encode = drawn_model.tokenizer.encode
    for number, (context, continuation) in enumerate(pairs[:2]):
        before, whole = encode(context), encode(context + continuation)
        assert whole[: len(before)] == before
        (scores,) = drawn_model.model.token_scores([whole])
        tail = np.asarray(scores.log_probabilities_S)[len(before) - 1 :]
        assert found[str(number)].total == pytest.approx(float(tail.sum()), abs=1e-4)
        assert found[str(number)].num_tokens == len(whole) - len(before)
    assert all(one.num_tokens > 0 and one.total < 0 for one in found.values())


def test_a_model_with_positions_refuses_what_is_longer_than_its_context(
    drawn_model: InProcess,
) -> None:
    strict = InProcess(
        drawn_model.model, drawn_model.tokenizer, identity="strict", has_positions=True
    )
    long = "apples " * 60
    with pytest.raises(RecipeError, match=r"asking gsm8k/1 answer 0: .*48; nothing is cut"):
        answer(strict, ask(long, key="gsm8k/1 answer 0"))
    scored = LoglikelihoodRequest(key="mmlu/1", context=long, continuation=" pens")
    with pytest.raises(RecipeError, match="asking mmlu/1: its context and option"):
        list(strict.loglikelihood([scored]))
    prompt = "Ada has 12 apples"
    room = CONTEXT - len(strict.tokenizer.encode(prompt))
    told = [answer(strict, ask(prompt, seed=seed, max_new_tokens=500)) for seed in range(3)]
    assert max(one.num_tokens for one in told) == room
    assert answer(drawn_model, ask(long)).num_tokens > 0, "ours have none and are asked"
