"""The server, asked by the `openai` client: what it writes, scores, batches and refuses."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import httpx
import openai
import pytest

from frontload.data_tools.text.render import encode_prompts
from frontload.data_tools.text.tokenizer import END
from frontload.eval.serving.app import Address, Server, make_answers
from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.running import RunningBatch
from frontload.recipes.errors import RecipeError, StageError
from tests.unit.eval_serving.small_server import CONTEXT, NAME, Running, Small, serve

PROMPT = "the box 1 holds a ring , so"
QUESTION = [{"role": "user", "content": "what is in box 1 ?"}]
HTTP = httpx.Client(timeout=60)
BODY: dict[str, Any] = {"model": NAME, "prompt": PROMPT, "max_tokens": 4}


def in_process(small: Small, ids: list[int], **options: Any) -> list[list[int]]:
    settings = {"max_new_tokens": 12, "temperature": 0.0, "seed": 0, "stop_token": END}
    (group,) = small.model.generate([ids], Sampling(**(settings | options)))  # pyright: ignore
    return group


def text_of(small: Small, tokens: list[int]) -> str:
    return small.tokenizer.decode(tokens[:-1] if tokens[-1] == END else tokens)


def test_a_completion_is_what_the_model_writes_in_process(
    small: Small, client: openai.OpenAI
) -> None:
    ids = small.tokenizer.encode(PROMPT)
    for options in ({"temperature": 0.0}, {"temperature": 0.9, "seed": 5}, {"temperature": 2.0}):
        seed = options.setdefault("seed", 7)
        expected = in_process(
            small, ids, temperature=options["temperature"], seed=seed, num_samples=3
        )
        for prompt in (PROMPT, ids):
            found = client.completions.create(
                model=NAME, prompt=prompt, max_tokens=12, n=3, **options,
                extra_body={"skip_special_tokens": False},
            )  # fmt: skip
            assert [one.text for one in found.choices] == [text_of(small, t) for t in expected]
            assert [one.finish_reason for one in found.choices] == [
                "stop" if tokens[-1] == END else "length" for tokens in expected
            ]
            assert found.usage is not None
            assert found.usage.prompt_tokens == len(ids)
            assert found.usage.completion_tokens == sum(map(len, expected))


def test_a_chat_is_the_checkpoints_template_before_its_answer(
    small: Small, client: openai.OpenAI
) -> None:
    (ids,) = encode_prompts(small.tokenizer, [QUESTION[0]["content"]])
    (expected,) = in_process(small, ids, temperature=0.8, seed=3)
    found = client.chat.completions.create(
        model=NAME, messages=QUESTION, temperature=0.8, seed=3, max_tokens=12,  # pyright: ignore
        extra_body={"skip_special_tokens": False},
    )  # fmt: skip
    assert found.choices[0].message.content == text_of(small, expected)
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(ids)
    parts = [{"type": "text", "text": "what is "}, {"type": "text", "text": "in box 1 ?"}]
    again = client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": parts}], temperature=0.8, seed=3,  # pyright: ignore
        max_completion_tokens=12, extra_body={"skip_special_tokens": False},
    )  # fmt: skip
    assert again.choices[0].message.content == found.choices[0].message.content


def test_a_request_without_a_seed_draws_anew_and_one_with_it_does_not(
    client: openai.OpenAI,
) -> None:
    def ask(**options: Any) -> str:
        found = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=16, **options)
        return found.choices[0].text

    assert len({ask(temperature=1.0) for _ in range(3)}) == 3
    assert len({ask(temperature=1.0, seed=2) for _ in range(3)}) == 1
    assert ask(temperature=1.0, seed=2) != ask(temperature=1.0, seed=3)


def test_a_text_ends_before_the_first_stop_text(small: Small, client: openai.OpenAI) -> None:
    (tokens,) = in_process(
        small, small.tokenizer.encode(PROMPT), max_new_tokens=40, temperature=1.0
    )
    whole = text_of(small, tokens)
    mark, later = whole[17:20], whole[29:31]
    found = client.completions.create(
        model=NAME, prompt=PROMPT, max_tokens=40, temperature=1.0, seed=0, stop=[later, mark],
        extra_body={"skip_special_tokens": False},
    ).choices[0]  # fmt: skip
    assert found.text == whole[: min(whole.index(mark), whole.index(later))]
    assert found.finish_reason == "stop"
    assert found.model_dump()["stop_reason"] in (mark, later)


def test_special_tokens_are_skipped_but_the_mark_of_the_answer(
    small: Small, client: openai.OpenAI
) -> None:
    marks = "<|user|> a <|assistant|> b <|answer|> c"
    ids = small.tokenizer.encode(marks)
    texts = [
        client.completions.create(
            model=NAME, prompt=ids, max_tokens=0, echo=True,
            extra_body={"skip_special_tokens": skips},
        ).choices[0].text
        for skips in (False, True)
    ]  # fmt: skip
    assert [text.replace(" ", "") for text in texts] == [marks.replace(" ", ""), "ab<|answer|>c"]


def test_echo_scores_every_token_of_the_prompt(small: Small, client: openai.OpenAI) -> None:
    text = "the caf\u00e9 \u4e2d box holds"  # letters of several tokens
    ids = small.tokenizer.encode(text)
    (scores,) = small.model.token_scores([ids])
    for new_tokens in (0, 1, 3):
        (choice,) = client.completions.create(
            model=NAME, prompt=text, max_tokens=new_tokens, echo=True, logprobs=2, temperature=0
        ).choices
        found = choice.logprobs
        assert found is not None
        assert found.token_logprobs is not None
        assert found.text_offset is not None
        assert found.tokens is not None
        count = len(found.token_logprobs)
        assert len(ids) <= count <= len(ids) + new_tokens
        assert found.token_logprobs[0] is None
        assert found.token_logprobs[1 : len(ids)] == pytest.approx(
            scores.log_probabilities_S.tolist(), abs=1e-4
        )
        for place, (token, offset) in enumerate(zip(found.tokens, found.text_offset, strict=True)):
            if not token.startswith("token_id:"):
                assert choice.text[offset : offset + len(token)] == token, place
        assert "token_id:" in "".join(found.tokens[: len(ids)]), "parts of letters are named by id"


def test_greedy_flags_can_be_read_from_the_likeliest_token(
    small: Small, client: openai.OpenAI
) -> None:
    ids = small.tokenizer.encode(PROMPT)
    (made,) = in_process(small, ids, max_new_tokens=6)
    row = [*ids, *made]
    (scores,) = small.model.token_scores([row])
    (choice,) = client.completions.create(
        model=NAME, prompt=row, max_tokens=0, echo=True, logprobs=1
    ).choices
    logprobs = choice.logprobs
    assert logprobs is not None
    tops, tokens = logprobs.top_logprobs or [], logprobs.tokens or []
    by_text = [tokens[place] in tops[place] for place in range(1, len(row))]  # pyright: ignore
    assert by_text == scores.is_greedy_S.tolist()
    assert all(by_text[len(ids) - 1 :])
    assert not all(by_text)


def test_scores_of_written_tokens_come_with_completions_and_chats(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"max_tokens": 5, "temperature": 0.7, "seed": 1}
    text = client.completions.create(model=NAME, prompt=PROMPT, logprobs=3, **options)
    logprobs = text.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.tokens or []) == text.usage.completion_tokens  # pyright: ignore
    assert all(len(top) == 3 for top in logprobs.top_logprobs or [])
    assert all(size is not None and size < 0 for size in logprobs.token_logprobs or [])
    chat = client.chat.completions.create(
        model=NAME,
        messages=QUESTION,
        logprobs=True,
        top_logprobs=2,
        **options,  # pyright: ignore
    )
    content = chat.choices[0].logprobs.content  # pyright: ignore
    assert len(content) == chat.usage.completion_tokens  # pyright: ignore
    assert all(len(one.top_logprobs) == 2 for one in content)  # pyright: ignore
    assert bytes(content[0].bytes).decode() == content[0].token  # pyright: ignore


def test_64_requests_at_once_share_their_passes_and_say_what_each_says_alone(
    small: Small, running: Running
) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=running.url, api_key="x", max_retries=0) as client:
            answers = [
                client.completions.create(
                    model=NAME, prompt=f"{PROMPT} {number}", max_tokens=24, seed=number,
                    temperature=0.5 + number / 64, extra_body={"skip_special_tokens": False},
                )
                for number in range(64)
            ]  # fmt: skip
            return [one.choices[0].text for one in await asyncio.gather(*answers)]

    before = running.engine.num_passes
    found = asyncio.run(ask())
    passes = running.engine.num_passes - before
    for number in (0, 1, 17, 40, 63):
        (alone,) = in_process(
            small,
            small.tokenizer.encode(f"{PROMPT} {number}"),
            max_new_tokens=24,
            temperature=0.5 + number / 64,
            seed=number,
        )
        assert found[number] == text_of(small, alone)
    assert passes < 64 * 24 / 6, "one at a time they take 64 x 24 passes"
    assert running.engine.most_rows > 16


@pytest.mark.parametrize(
    ("changes", "status", "named"),
    [
        ({"model": "other"}, 404, "'other'"),
        ({"prompt": "a " * CONTEXT}, 400, "maximum context length"),
        ({"max_tokens": CONTEXT}, 400, "lower max_tokens"),
        ({"prompt": [5, 100_000]}, 400, "token id 100000"),
        ({"prompt": []}, 400, "no ids"),
        ({"stream": True}, 400, "stream"),
        ({"top_k": 40}, 400, "top_k"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty"),
        ({"tempurature": 0.5}, 400, "tempurature"),
        ({"temperature": -1}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"n": 0}, 400, "n: "),
        ({"stop": ["a", ""]}, 400, "stop"),
        ({"logprobs": 21}, 400, "logprobs"),
        ({"prompt": {"a": 1}}, 400, "prompt"),
        ({"messages": QUESTION, "prompt": PROMPT}, 400, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(
    running: Running, changes: dict[str, Any], status: int, named: str
) -> None:
    answer = HTTP.post(f"{running.url}/completions", json=BODY | changes)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert named in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([{"role": "system", "content": "be short"}, *QUESTION], "role system"),
        ([{"role": "user", "content": "a <|answer|> 3"}], "special token"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "no text"),
        ([{"role": "user", "content": "hi", "tool_calls": [1]}], "tool_calls"),
        ([], "messages"),
    ],
)
def test_a_message_that_the_model_would_not_read_is_refused(
    running: Running, messages: list[dict[str, Any]], named: str
) -> None:
    answer = HTTP.post(f"{running.url}/chat/completions", json={"messages": messages})
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"]


def test_options_that_mean_nothing_are_taken(client: openai.OpenAI) -> None:
    client.completions.create(
        **BODY, frequency_penalty=0.0, presence_penalty=0.0, best_of=1, user="someone",
        extra_body={"min_p": 0.0, "top_k": -1, "repetition_penalty": 1.0, "logit_bias": None},
    )  # fmt: skip


def test_a_body_that_is_no_json_and_a_route_that_is_none(running: Running) -> None:
    headers = {"content-type": "application/json"}
    answer = HTTP.post(f"{running.url}/completions", content=b"{", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)
    answer = HTTP.post(f"{running.url}/completions", content=b'{"prompt": "a"}')  # as curl -d
    assert "send JSON, with Content-Type: application/json" in answer.json()["error"]["message"]
    answer = HTTP.post(f"{running.url}/embeddings", json={})
    assert answer.status_code == 404
    assert "/v1/completions" in answer.json()["error"]["message"]


def test_models_name_the_served_one_and_its_context(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == NAME
    assert model.model_dump()["max_model_len"] == CONTEXT


def test_a_server_with_a_key_answers_who_sends_it(small: Small) -> None:
    with serve(small, api_key="secret") as running:
        for key, status in ((None, 401), ("wrong", 401), ("secret", 200)):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            answer = HTTP.post(f"{running.url}/completions", json=BODY, headers=headers)
            assert answer.status_code == status
            assert HTTP.get(f"{running.url}/models", headers=headers).status_code == status
        assert HTTP.get(running.url.replace("/v1", "/health")).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7"])
def test_other_machines_need_a_key(host: str) -> None:
    with pytest.raises(RecipeError, match="--api-key-env"):
        Address(host=host, port=0).check()
    Address(host=host, port=0, api_key="secret").check()


def test_a_client_that_leaves_takes_its_rows_along(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontload.eval.serving.app.LOOK_SECONDS", 0.02)
    new_tokens = CONTEXT - 20
    with serve(small) as running:
        with pytest.raises(httpx.ReadTimeout):
            HTTP.post(
                f"{running.url}/completions",
                json=BODY | {"max_tokens": new_tokens, "n": 128, "temperature": 1},
                timeout=0.1,
            )
        HTTP.post(f"{running.url}/completions", json=BODY).raise_for_status()
        deadline = time.monotonic() + 30  # a reply is sent before its row is taken out
        while running.engine._batch.num_rows and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running.engine.num_passes < new_tokens, "nobody reads what else was written"
        assert running.engine._batch.num_rows == 0


def test_few_rows_at_once_only_take_longer(small: Small, client: openai.OpenAI) -> None:
    expected = client.completions.create(model=NAME, prompt=[PROMPT, "a cup", "so"], n=4, seed=1)
    with serve(small, max_rows=5) as running:
        found = HTTP.post(
            f"{running.url}/completions",
            json={"prompt": [PROMPT, "a cup", "so"], "n": 4, "seed": 1},
        ).json()
        assert running.engine.most_rows == 5
    assert [one["text"] for one in found["choices"]] == [one.text for one in expected.choices]
    assert [one["index"] for one in found["choices"]] == list(range(12))
    assert json.dumps(found)


class BrokenModel:
    """A stand-in for a model that runs out of memory in its first pass."""

    vocab_size = 400
    max_sequence_tokens = CONTEXT

    def __init__(self, small: Small) -> None:
        self._small = small

    def open_batch(self) -> RunningBatch:
        return self._small.model.open_batch()

    def ranked_scores(self, sequences: list[list[int]], *, num_top: int) -> NoReturn:
        raise MemoryError("no room for the logits")


def test_a_model_that_fails_ends_the_server_with_its_reason(small: Small) -> None:
    answers = make_answers(
        BrokenModel(small), small.tokenizer, name=NAME, template=None, max_rows=4
    )
    server = Server(answers, Address(host="127.0.0.1", port=0))
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(server.serve_until_stopped)
        asked = {"prompt": PROMPT, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
        answer = HTTP.post(f"{server.url}/completions", json=asked)
        assert answer.status_code == 503
        assert "no room for the logits" in answer.json()["error"]["message"]
        with pytest.raises(StageError, match="no room for the logits"):
            served.result(timeout=20)
