"""The answerer of a server: the same answers as in process, patience, and what it refuses."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from frontload.data_tools.text.render import encode_prompts
from frontload.data_tools.text.tokenizer import END
from frontload.eval.asking.pairs import encode_pair
from frontload.eval.protocol.answers import Answerer, GenerationRequest, LoglikelihoodRequest
from frontload.eval.protocol.in_process import InProcess
from frontload.eval.serving.client import ServerAnswerer, ServerSettings
from frontload.megatron_ext.inference.draws import Sampling
from frontload.recipes.errors import FrontloadError, RecipeError, StageError
from tests.unit.eval_serving.small_server import CONTEXT, NAME, Running, Small, serve

Reply = Callable[[int], Response]
GOOD: dict[str, Any] = {
    "choices": [{"index": 0, "text": "so", "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def settings(url: str, **changes: Any) -> ServerSettings:
    return ServerSettings(**({"url": url, "first_wait_seconds": 0.01} | changes))


def asked(number: int, **changes: Any) -> GenerationRequest:
    values: dict[str, Any] = {
        "key": f"item-{number}", "prompt": f"the box {number} holds", "messages": None,
        "seed": number, "temperature": 0.8, "top_p": 1.0, "max_new_tokens": 10, "stop": (),
    }  # fmt: skip
    return GenerationRequest(**(values | changes))


@contextmanager
def flaky(reply: Reply) -> Iterator[str]:
    """A stand-in for what the real server never does: the number of the request names its reply."""
    app, count = FastAPI(), iter(range(10_000))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "m", "object": "model"}]}

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return reply(next(count))

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join()


def test_texts_are_those_of_the_model_in_process(small: Small, running: Running) -> None:
    answerer = ServerAnswerer(settings(running.url), small.tokenizer)
    messages = ({"role": "user", "content": "what is in box 1 ?"},)
    requests = [asked(n) for n in range(20)] + [asked(20, prompt=None, messages=messages)]
    found = dict(answerer.generate(requests))
    assert set(found) == {one.key for one in requests}
    (chat,) = encode_prompts(small.tokenizer, [messages[0]["content"]])
    for request in requests:
        ids = small.tokenizer.encode(request.prompt) if request.prompt else chat
        ((tokens,),) = small.model.generate(
            [ids], Sampling(max_new_tokens=10, temperature=0.8, seed=request.seed, stop_token=END)
        )
        answer = found[request.key]
        is_ended = tokens[-1] == END
        assert answer.text == small.tokenizer.decode(tokens[:-1] if is_ended else tokens)
        assert (answer.num_tokens, answer.finish) == (len(tokens), "stop" if is_ended else "length")
    assert not answerer.retries
    assert answerer.max_sequence_tokens == CONTEXT
    assert NAME in answerer.identity


def test_a_stop_text_and_a_nucleus_reach_the_server(small: Small, running: Running) -> None:
    answerer = ServerAnswerer(settings(running.url))
    ((_, whole),) = answerer.generate([asked(3, temperature=0.0)])
    ((_, narrow),) = answerer.generate([asked(3, temperature=5.0, top_p=1e-6)])
    assert narrow == whole, "the likeliest token alone is in the nucleus"
    mark = whole.text[4:6]
    ((_, cut),) = answerer.generate([asked(3, temperature=0.0, stop=(mark,))])
    assert cut.text == whole.text[: whole.text.index(mark)]
    assert cut.finish == "stop"


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_log_likelihoods_are_those_of_the_model_in_process(
    small: Small, running: Running, has_tokenizer: bool
) -> None:
    answerer = ServerAnswerer(settings(running.url), small.tokenizer if has_tokenizer else None)
    pairs = [
        ("the box 1 holds", " a ring"),
        ("the box 1 holds", " a"),
        ("so", " the coin in box 2"),
    ]
    pairs += [("", "a ring")] if has_tokenizer else []
    requests = [
        LoglikelihoodRequest(key=str(n), context=one, continuation=other)
        for n, (one, other) in enumerate(pairs)
    ]
    found = dict(answerer.loglikelihood(requests))
    for request in requests:
        before, after = encode_pair(
            small.tokenizer, request.context, continuation=request.continuation, end_token=END
        )
        (scores,) = small.model.token_scores([[*before, *after]])
        start = len(before) - 1
        answer = found[request.key]
        assert answer.total == pytest.approx(scores.log_probabilities_S[start:].sum(), abs=1e-4)
        assert answer.is_greedy == scores.is_greedy_S[start:].all()
        assert answer.num_tokens == len(after)


def test_what_greedy_decoding_writes_is_greedy(small: Small, running: Running) -> None:
    words = ["a ring", "the cup", "box 1", "so", "coin in", "holds", "wrong", "what is", "2 3"]
    contexts = [small.tokenizer.encode(f"the box holds {word}") for word in words]
    made = small.model.generate(
        contexts, Sampling(max_new_tokens=1, temperature=0.0, seed=0, stop_token=END)
    )
    rows = [[*ids, *tokens] for ids, (tokens,) in zip(contexts, made, strict=True)]
    whole = [small.tokenizer.decode(row) for row in rows]
    texts = [(small.tokenizer.decode(row[:-1]), text) for row, text in zip(rows, whole, strict=True)
             if small.tokenizer.encode(text) == row]  # fmt: skip
    assert texts, "some greedy token is the one that its text encodes to"
    context, text = texts[0]
    assert text.startswith(context)
    answerer = ServerAnswerer(settings(running.url))
    requests = [
        LoglikelihoodRequest(key="best", context=context, continuation=text[len(context) :]),
        LoglikelihoodRequest(key="other", context=context, continuation=" wrong"),
    ]
    found = dict(answerer.loglikelihood(requests))
    assert found["best"].is_greedy
    assert not found["other"].is_greedy


def test_without_a_tokenizer_a_token_over_the_join_is_refused(running: Running) -> None:
    answerer = ServerAnswerer(settings(running.url))
    request = LoglikelihoodRequest(key="k", context="the b", continuation="ox")
    with pytest.raises(RecipeError, match="spans the end of the context"):
        list(answerer.loglikelihood([request]))


def test_busy_and_broken_replies_are_asked_for_again_and_counted() -> None:
    bad = {0: 429, 1: 500, 2: 503, 5: 429}

    def reply(number: int) -> Response:
        return JSONResponse(GOOD, status_code=bad.get(number, 200))

    with flaky(reply) as url:
        answerer = ServerAnswerer(settings(url, concurrency=1))
        found = dict(answerer.generate(asked(n) for n in range(4)))
    assert [one.text for one in found.values()] == ["so"] * 4
    assert answerer.retries == {"status 429": 2, "status 500": 1, "status 503": 1}


def test_a_server_that_never_recovers_ends_the_run_after_its_tries() -> None:
    with flaky(lambda number: JSONResponse(GOOD, status_code=200 if number < 3 else 500)) as url:
        answerer = ServerAnswerer(settings(url, concurrency=1, most_tries=3))
        answers = answerer.generate(asked(n) for n in range(10))
        assert [next(answers)[0] for _ in range(3)] == ["item-0", "item-1", "item-2"]
        with pytest.raises(StageError, match=r"item-3: .* no answer in 3 tries \(status 500\)"):
            next(answers)
    assert answerer.retries == {"status 500": 2}


def test_an_answer_that_takes_too_long_is_asked_for_again() -> None:
    def reply(number: int) -> Response:
        time.sleep(0.6 if number == 0 else 0)
        return JSONResponse(GOOD)

    with flaky(reply) as url:
        answerer = ServerAnswerer(settings(url, timeout_seconds=0.3, first_wait_seconds=0.5))
        assert len(list(answerer.generate([asked(0)]))) == 1
    assert answerer.retries == {"no answer in time": 1}


def changed(**changes: Any) -> dict[str, Any]:
    return GOOD | changes


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (changed(choices=[]), "choices has 0 entries"),
        (changed(choices=None), "choices is None"),
        (changed(choices=[{"finish_reason": "stop"}]), r"choices\[0\].text is None"),
        (changed(choices=[{"text": "a", "finish_reason": "content_filter"}]), "content_filter"),
        (changed(usage={}), "usage.completion_tokens is None"),
        (changed(usage={"completion_tokens": 0}), "is 0 for 2 letters"),
        (["no", "object"], "choices is None"),
    ],
)
def test_a_reply_that_is_no_answer_is_refused_by_what_is_wrong(body: Any, named: str) -> None:
    with flaky(lambda number: JSONResponse(body)) as url:
        answerer = ServerAnswerer(settings(url))
        with pytest.raises(StageError, match=named):
            list(answerer.generate([asked(0)]))


def test_a_reply_that_is_no_json_is_refused() -> None:
    with flaky(lambda number: Response("<html>gateway</html>", media_type="text/html")) as url:
        answerer = ServerAnswerer(settings(url))
        with pytest.raises(StageError, match="item-0"):
            list(answerer.generate([asked(0)]))


@pytest.mark.parametrize(
    ("logprobs", "named"),
    [
        (None, "logprobs is None"),
        ({"tokens": ["a"], "token_logprobs": [None], "top_logprobs": [None]}, "does not echo"),
        (
            {"tokens": ["a", "b"], "token_logprobs": [None, 0.5], "top_logprobs": [None, {}]},
            "log-probability of 0.5",
        ),
        (
            {"tokens": ["a", "b"], "token_logprobs": [None, None], "top_logprobs": [None, {}]},
            "log-probability of None",
        ),
        (
            {"tokens": ["a"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {}]},
            "unlike lengths",
        ),
        (
            {"tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {}]},
            "without text_offset",
        ),
    ],
)
def test_scores_that_are_none_are_refused(logprobs: Any, named: str) -> None:
    """Some servers drop `echo` in silence: every option would score 0.0."""
    choice = {"index": 0, "text": "a b", "finish_reason": "length", "logprobs": logprobs}
    body = {"choices": [choice], "usage": {"prompt_tokens": 2}}
    with flaky(lambda number: JSONResponse(body)) as url:
        answerer = ServerAnswerer(settings(url))
        request = LoglikelihoodRequest(key="k", context="a", continuation=" b")
        with pytest.raises(StageError, match=named):
            list(answerer.loglikelihood([request]))


def test_what_the_server_refuses_names_the_request(small: Small, running: Running) -> None:
    answerer = ServerAnswerer(settings(running.url))
    with pytest.raises(RecipeError, match=r"item-4: .*maximum context length"):
        list(answerer.generate([asked(4, prompt="a " * CONTEXT)]))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"url": "http://127.0.0.1:9/v1"}, "does not answer"),
        ({"model": "other"}, f"models {NAME}"),
    ],
)
def test_a_server_that_is_none_or_lacks_the_model_is_refused_at_once(
    running: Running, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecipeError, match=named):
        ServerAnswerer(settings(**({"url": running.url} | changes)))


def test_a_key_is_sent(small: Small) -> None:
    with serve(small, api_key="secret") as running:
        with pytest.raises(RecipeError, match="another key"):
            ServerAnswerer(settings(running.url))
        answerer = ServerAnswerer(settings(running.url, api_key="secret"))
        assert len(list(answerer.generate([asked(0)]))) == 1


KILLED = """
import sys
from pathlib import Path
from tests.unit.eval_serving.small_server import make_small, serve
with serve(make_small(Path(sys.argv[1]))) as running:
    print(running.url, flush=True)
    sys.stdin.read()
"""


def test_a_server_killed_in_mid_run_loses_no_answer(small: Small, tmp_path: Path) -> None:
    """What had come is kept, the rest comes from another server, and all is as undisturbed."""
    requests = [asked(n, max_new_tokens=40) for n in range(24)]
    kept: dict[str, Any] = {}

    @contextmanager
    def started() -> Iterator[tuple[subprocess.Popen[str], str]]:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / str(len(kept)))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()
            process.wait()

    with started() as (process, url):
        answerer = ServerAnswerer(settings(url, concurrency=3, most_tries=2))
        failure: FrontloadError | None = None
        try:
            for key, answer in answerer.generate(requests):
                kept[key] = answer
                if len(kept) == 5:
                    process.kill()
        except StageError as error:
            failure = error
    assert failure is not None
    assert "a lost connection" in str(failure)
    assert 5 <= len(kept) < 24
    with serve(small) as running:
        answerer = ServerAnswerer(settings(running.url))
        kept |= dict(answerer.generate(one for one in requests if one.key not in kept))
        assert kept == dict(answerer.generate(requests))


def test_the_runner_may_ask_a_server_or_the_model_in_process(
    small: Small, running: Running
) -> None:
    ours: Answerer = InProcess(small.model, small.tokenizer, identity="x")
    served: Answerer = ServerAnswerer(settings(running.url), small.tokenizer)
    messages = ({"role": "user", "content": "what is in box 1 ?"},)
    requests = [asked(n, stop=("e",) if n % 2 else ()) for n in range(12)]
    requests.append(asked(12, prompt=None, messages=messages))
    assert dict(ours.generate(requests)) == dict(served.generate(requests))
    pairs = [
        LoglikelihoodRequest(key=str(n), context=one, continuation=other)
        for n, (one, other) in enumerate([("the box", " holds a cup"), ("so", " a"), ("", "ring")])
    ]
    expected, found = dict(ours.loglikelihood(pairs)), dict(served.loglikelihood(pairs))
    for key, one in expected.items():
        assert found[key].total == pytest.approx(one.total, abs=1e-4)
        assert (found[key].is_greedy, found[key].num_tokens) == (one.is_greedy, one.num_tokens)
