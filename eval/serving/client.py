"""An answerer that asks any server of the OpenAI protocol: ours, vLLM, or another."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import openai
import tenacity

from frontload.data_tools.text.end_tokens import end_tokens
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.asking.pairs import encode_pair
from frontload.eval.protocol.answers import (
    GarbledReply,
    Generated,
    GenerationRequest,
    Loglikelihood,
    LoglikelihoodRequest,
    RefusedRequest,
)
from frontload.eval.serving.replies import ScoredToken, read_places, read_text
from frontload.recipes.errors import FrontloadError, RecipeError, StageError

LONGEST_WAIT_SECONDS = 30.0
TRANSIENT = (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError)
"""No connection, no answer in time, 429, 5xx: worth another try."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Which server is asked, and how patiently."""

    url: str  # its base, which ends in /v1
    model: str | None = None  # None = the only one that it has
    api_key: str | None = None
    concurrency: int = 64  # requests under way at once
    timeout_seconds: float = 600.0  # for one answer
    most_tries: int = 6
    first_wait_seconds: float = 0.5  # before the second try; doubles, with a random part
    max_sequence_tokens: int | None = None  # where the server does not state it
    extra: Mapping[str, Any] | None = None  # None = skip_special_tokens: false, for our marks


class Keyed(Protocol):
    """A request with its name."""

    @property
    def key(self) -> str: ...


class ServerAnswerer:
    """Asks a server, many requests at once; implements `eval.protocol.answers.Answerer`.

    With a tokenizer, log-likelihoods are asked for by token ids, cut at the same place as in
    process. Without one the server's `text_offset` says where the continuation begins.

    Raises: RecipeError when it is made, for a server that does not answer or lacks the model.
    """

    def __init__(self, settings: ServerSettings, tokenizer: TextTokenizer | None = None) -> None:
        self.retries: Counter[str] = Counter()
        self._settings = settings
        self._tokenizer = tokenizer
        self._extra = (
            {"skip_special_tokens": False} if settings.extra is None else dict(settings.extra)
        )
        self._is_lost = threading.Event()
        self._client = openai.OpenAI(
            base_url=settings.url,
            api_key=settings.api_key or "none",
            timeout=settings.timeout_seconds,
            max_retries=0,  # tries are counted here
        )
        self._model, self._stated_tokens = self._find_model()

    @property
    def identity(self) -> str:
        """The server's name of the model; a server that renames its models renames the samples."""
        digest = "" if self._tokenizer is None else f"-{self._tokenizer.sha256()[:12]}"
        return f"server:{self._model}{digest}"

    @property
    def sums_in_batches(self) -> bool:
        """A server decides what runs side by side: asking again what is there would not help."""
        return False

    @property
    def max_sequence_tokens(self) -> int:
        """As the settings state it, or the server."""
        found = self._settings.max_sequence_tokens or self._stated_tokens
        if found is None:
            raise RecipeError(
                f"server {self._settings.url}",
                found=f"no max_model_len of {self._model} in /v1/models",
                rule="prompts are measured against the context of the model",
                do="state the context of the model",
            )
        return found

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[tuple[str, Generated]]:
        """(key, answer) of each request, as they come."""
        return self._ask_all(requests, self._generate_one)

    def loglikelihood(
        self, requests: Iterable[LoglikelihoodRequest]
    ) -> Iterator[tuple[str, Loglikelihood]]:
        """(key, score) of each request, as they come."""
        return self._ask_all(requests, self._score_one)

    def _find_model(self) -> tuple[str, int | None]:
        try:
            models = self._client.models.list().data
        except openai.OpenAIError as error:
            raise RecipeError(
                f"server {self._settings.url}",
                found=f"/v1/models does not answer ({error})",
                rule="the URL is that of a server of the OpenAI protocol, with /v1 at its end",
                do="start the server, or correct the URL or the key",
            ) from error
        names = [model.id for model in models]
        name = self._settings.model or (names[0] if len(names) == 1 else None)
        if name not in names:
            raise RecipeError(
                f"model {self._settings.model} of {self._settings.url}",
                found="models " + (", ".join(names) or "none"),
                rule="a request names one model of the server",
                do="name one of them",
            )
        stated = models[names.index(name)].model_dump().get("max_model_len")
        return name, stated if isinstance(stated, int) else None

    def _ask_all[R: Keyed, A](
        self, requests: Iterable[R], ask: Callable[[R], A]
    ) -> Iterator[tuple[str, A]]:
        """Answers as they come; what has come before a failure is handed over before its raise."""
        failure: FrontloadError | None = None
        self._is_lost.clear()
        with ThreadPoolExecutor(self._settings.concurrency) as pool, _set_at_end(self._is_lost):
            for key, future in self._under_way(pool, requests, ask=ask):
                error = future.exception()
                if error is None:
                    yield key, future.result()
                    continue
                if not isinstance(error, FrontloadError):
                    raise error
                failure = failure or error
                self._is_lost.set()
        self._show_retries()
        if failure is not None:
            raise failure

    def _under_way[R: Keyed, A](
        self, pool: ThreadPoolExecutor, requests: Iterable[R], *, ask: Callable[[R], A]
    ) -> Iterator[tuple[str, Future[A]]]:
        """Each request's future once it is done; none is begun after one was lost."""
        waiting = iter(requests)
        begun: dict[Future[A], str] = {}
        while True:
            room = 0 if self._is_lost.is_set() else self._settings.concurrency - len(begun)
            for request in islice(waiting, room):
                begun[pool.submit(ask, request)] = request.key
            if not begun:
                return
            done, _ = wait(begun, return_when=FIRST_COMPLETED)
            for future in done:
                yield begun.pop(future), future

    def _generate_one(self, request: GenerationRequest) -> Generated:
        body: dict[str, Any] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "max_tokens": request.max_new_tokens,
            **({"stop": list(request.stop)} if request.stop else {}),
            **self._extra,
        }
        if request.messages is not None:
            chat = body | {"messages": list(request.messages)}
            reply = self._post("/chat/completions", chat, key=request.key)
        else:
            reply = self._post("/completions", body | {"prompt": request.prompt}, key=request.key)
        return read_text(reply, key=request.key, is_chat=request.messages is not None)

    def _score_one(self, request: LoglikelihoodRequest) -> Loglikelihood:
        prompt: str | Sequence[int] = request.context + request.continuation
        start, is_ids = len(request.context), False
        if self._tokenizer is not None:
            end = end_tokens(self._tokenizer)[0]
            before, after = encode_pair(
                self._tokenizer,
                request.context,
                continuation=request.continuation,
                end_token=end,
            )
            prompt, start, is_ids = [*before, *after], len(before), True
        body = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
        reply = self._post("/completions", body, key=request.key)
        places = read_places(reply, key=request.key)
        if is_ids and len(places) != len(prompt):
            raise _garbage(request.key, f"{len(places)} scored tokens for {len(prompt)} sent")
        found = places[start:] if is_ids else _behind(places, request)
        if not found:
            raise _garbage(request.key, "no scored token of the continuation")
        sizes = [place.log_probability for place in found]
        if any(size is None for size in sizes):
            raise RefusedRequest(
                f"log-likelihood {request.key}",
                found="an empty context: no server scores the first token of a text",
                rule="a continuation follows a token",
                do="name the tokenizer of the model: its end token then stands in front",
            )
        return Loglikelihood(
            total=float(sum(size for size in sizes if size is not None)),
            is_greedy=all(place.is_likeliest for place in found),
            num_tokens=len(found),
        )

    def _post(self, route: str, body: dict[str, Any], *, key: str) -> Any:
        """The reply to one request, which is sent again where that may help."""
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TRANSIENT),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self._settings.most_tries),
                tenacity.stop_when_event_set(self._is_lost),
            ),
            wait=tenacity.wait_exponential_jitter(
                initial=self._settings.first_wait_seconds,
                max=LONGEST_WAIT_SECONDS,
                jitter=self._settings.first_wait_seconds,
            ),
            sleep=tenacity.sleep_using_event(self._is_lost),
            before_sleep=self._count_retry,
            reraise=True,
        )
        try:
            return tries(
                self._client.post, route, cast_to=object, body={"model": self._model, **body}
            )
        except openai.OpenAIError as error:
            raise self._explained(error, key) from error

    def _count_retry(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        reason = _reason(state.outcome.exception())
        if not self.retries[reason]:
            logger.warning("server %s: %s; it is asked again", self._settings.url, reason)
        self.retries[reason] += 1

    def _show_retries(self) -> None:
        if self.retries:
            shown = ", ".join(f"{number} after {name}" for name, number in self.retries.items())
            logger.warning("server %s was asked again: %s", self._settings.url, shown)

    def _explained(self, error: openai.OpenAIError, key: str) -> FrontloadError:
        """The last error of a request in four parts."""
        is_refused = isinstance(error, openai.APIStatusError) and not isinstance(error, TRANSIENT)
        if is_refused:
            return RefusedRequest(
                f"request {key}",
                found=f"{self._settings.url} refuses it: {_server_message(error)}",
                rule="a server answers what its model can take",
                do="where it is too long for the context, state shorter answers "
                "(benchmarks.NAME.sampling.max_new_tokens=N), fewer examples "
                "(benchmarks.NAME.num_shots=N) or other benchmarks (asked=[...]); else see to the "
                "server's key and options; what is answered stays",
            )
        return StageError(
            f"request {key}",
            found=f"{self._settings.url} gave no answer in {self._settings.most_tries} tries "
            f"({_reason(error)})",
            rule="what was answered so far is kept",
            do="see to the server, then run the same command again",
        )


@contextmanager
def _set_at_end(event: threading.Event) -> Iterator[None]:
    """Nobody tries again once the caller has gone."""
    try:
        yield
    finally:
        event.set()


def _behind(places: Sequence[ScoredToken], request: LoglikelihoodRequest) -> Sequence[ScoredToken]:
    """The tokens of the continuation, by where the server says that they begin."""
    start = len(request.context)
    if any(place.offset is None for place in places):
        raise _garbage(request.key, "log-probabilities without text_offset")
    first = next((n for n, place in enumerate(places) if (place.offset or 0) >= start), len(places))
    ends_before = first and (places[first].offset if first < len(places) else -1) == start
    if start and not ends_before:
        raise RefusedRequest(
            f"log-likelihood {request.key}",
            found="a token that spans the end of the context and the continuation",
            rule="a continuation is scored by tokens of its own",
            do="name the tokenizer of the model: the continuation is then encoded apart",
        )
    return places[first:]


def _reason(error: BaseException | None) -> str:
    if isinstance(error, openai.APITimeoutError):
        return "no answer in time"
    if isinstance(error, openai.APIConnectionError):
        return "a lost connection"
    if isinstance(error, openai.APIStatusError):
        return f"status {error.status_code}"
    return type(error).__name__


def _server_message(error: openai.OpenAIError) -> str:
    body = getattr(error, "body", None)
    found = body.get("message") if isinstance(body, dict) else None
    return f"status {getattr(error, 'status_code', '?')}: {found or error}"[:400]


def _garbage(key: str, found: str) -> GarbledReply:
    return GarbledReply(
        f"request {key}",
        found=found,
        rule="a server answers as the OpenAI protocol says",
        do="see to the server, then run the same command again; what was answered is kept",
    )
