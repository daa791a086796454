"""One thread that owns a model and runs all waiting requests side by side.

Generation is one running batch: a request joins between two tokens of the others. Texts to score
are read side by side between two tokens.
"""

import queue
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from frontload.megatron_ext.inference.running import DrawnToken, Ranked, RowRequest
from frontload.recipes.errors import StageError

MAX_PASS_TOKENS = 65_536  # of prompts read side by side, padding included


class RowBatch(Protocol):
    """Rows under way, as `megatron_ext.inference.running` runs them."""

    num_passes: int

    @property
    def num_rows(self) -> int: ...

    def admit(self, requests: Sequence[RowRequest]) -> None: ...

    def draw(self) -> list[DrawnToken]: ...

    def advance(self, ended: set[int]) -> None: ...


class ServedModel(Protocol):
    """What the engine asks of a model."""

    vocab_size: int
    max_sequence_tokens: int

    def open_batch(self) -> RowBatch: ...

    def ranked_scores(self, sequences: list[list[int]], *, num_top: int) -> list[list[Ranked]]: ...


class StopRule(Protocol):
    """Whether the last of these tokens ends a response."""

    def __call__(self, tokens: list[int]) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class WriteJob:
    """One response to write."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    sample: int
    num_top: int | None
    is_end: StopRule


@dataclass(frozen=True, kw_only=True)
class ScoreJob:
    """One text whose tokens are scored; the likeliest next token comes last."""

    tokens: tuple[int, ...]
    num_top: int


@dataclass(frozen=True, kw_only=True)
class Written:
    """The tokens of a response, the one that ended it included."""

    tokens: list[int]
    ranked: list[Ranked]
    is_ended: bool  # by its stop rule; else cut at `max_new_tokens`


@dataclass(kw_only=True)
class _Row:
    job: WriteJob
    future: "Future[Written]"
    tokens: list[int] = field(default_factory=list)
    ranked: list[Ranked] = field(default_factory=list)


class ServingEngine:
    """Takes jobs from any thread; a future brings what came of each.

    A job whose future is cancelled is dropped at the next token.
    """

    def __init__(self, model: ServedModel, *, max_rows: int) -> None:
        self.model = model
        self.error: BaseException | None = None
        self.num_score_passes = 0
        self.most_rows = 0  # that ran side by side
        self._max_rows = max_rows
        self._batch = model.open_batch()
        self._new: queue.SimpleQueue[tuple[Any, Future[Any]] | None] = queue.SimpleQueue()
        self._writing: deque[tuple[WriteJob, Future[Written]]] = deque()
        self._scoring: deque[tuple[ScoreJob, Future[list[Ranked]]]] = deque()
        self._in_pass: list[Future[list[Ranked]]] = []  # of the texts that are being scored
        self._rows: dict[int, _Row] = {}
        self._num_admitted = 0
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def num_passes(self) -> int:
        """Calls of the model so far: of prompts, of single tokens, of texts to score."""
        return self._batch.num_passes + self.num_score_passes

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the present token; what is waiting or under way fails with StageError."""
        self._is_stopped = True
        self._new.put(None)

    def join(self) -> None:
        """Waits until the thread has ended."""
        self._thread.join()

    def write(self, job: WriteJob) -> "Future[Written]":
        """Asks for a response."""
        future: Future[Written] = Future()
        self._new.put((job, future))
        return future

    def score(self, job: ScoreJob) -> "Future[list[Ranked]]":
        """Asks for the scores of a text: of every token but the first, then the next one."""
        future: Future[list[Ranked]] = Future()
        self._new.put((job, future))
        return future

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                self._take_new()
                self._score_some()
                self._admit_some()
                self._write_token()
        except BaseException as error:  # whoever waits hears of it; the server ends with it
            self.error = error
        self._is_stopped = True
        self._fail_all()

    def _take_new(self) -> None:
        """Sorts what has come; waits for it only where there is nothing else to do."""
        is_idle = not (self._rows or self._writing or self._scoring)
        while not self._is_stopped and (is_idle or not self._new.empty()):
            found = self._new.get()
            is_idle = False
            if found is None:
                return
            job, future = found
            waiting: deque[Any] = self._writing if isinstance(job, WriteJob) else self._scoring
            waiting.append((job, future))

    def _score_some(self) -> None:
        taken: list[tuple[ScoreJob, Future[list[Ranked]]]] = []
        longest = 0
        while self._scoring:
            job, future = self._scoring[0]
            longest = max(longest, len(job.tokens))
            if taken and longest * (len(taken) + 1) > MAX_PASS_TOKENS:
                break
            self._scoring.popleft()
            if not future.cancelled():
                taken.append((job, future))
        if not taken:
            return
        self._in_pass = [future for _, future in taken]
        num_top = max(job.num_top for job, _ in taken)
        found = self.model.ranked_scores([list(job.tokens) for job, _ in taken], num_top=num_top)
        self.num_score_passes += 1
        for (_, future), ranked in zip(taken, found, strict=True):
            _bring(future, ranked)
        self._in_pass = []

    def _admit_some(self) -> None:
        requests: list[RowRequest] = []
        longest = 0
        while self._writing and len(self._rows) < self._max_rows:
            job, future = self._writing[0]
            longest = max(longest, len(job.prompt))
            if requests and longest * (len(requests) + 1) > MAX_PASS_TOKENS:
                break
            self._writing.popleft()
            if future.cancelled():
                continue
            self._num_admitted += 1
            self._rows[self._num_admitted] = _Row(job=job, future=future)
            requests.append(_row_request(self._num_admitted, job))
        if requests:
            self._batch.admit(requests)
            self.most_rows = max(self.most_rows, len(self._rows))

    def _write_token(self) -> None:
        if not self._rows:
            return
        ended: set[int] = set()
        for drawn in self._batch.draw():
            row = self._rows[drawn.row]
            row.tokens.append(drawn.token)
            if drawn.ranked is not None:
                row.ranked.append(drawn.ranked)
            is_ended = row.job.is_end(row.tokens)
            if is_ended or len(row.tokens) == row.job.max_new_tokens or row.future.cancelled():
                ended.add(drawn.row)
                written = Written(tokens=row.tokens, ranked=row.ranked, is_ended=is_ended)
                _bring(self._rows.pop(drawn.row).future, written)
        self._batch.advance(ended)

    def _fail_all(self) -> None:
        futures: list[Future[Any]] = [row.future for row in self._rows.values()]
        futures += self._in_pass
        futures += [future for _, future in (*self._writing, *self._scoring)]
        while not self._new.empty():
            found = self._new.get()
            if found is not None:
                futures.append(found[1])
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(self._ended())

    def _ended(self) -> StageError:
        return StageError(
            "the request",
            found=f"the server stops ({self.error!r})" if self.error else "the server stops",
            rule="a server that stops answers no further request",
            do="send it again to a running server",
        )


def _row_request(row: int, job: WriteJob) -> RowRequest:
    return RowRequest(
        row=row,
        prompt=job.prompt,
        temperature=job.temperature,
        seed=job.seed,
        top_p=job.top_p,
        sample=job.sample,
        num_top=job.num_top,
    )


def _bring(future: "Future[Any]", found: object) -> None:
    """Hands over what was found, unless nobody waits for it any more."""
    if future.set_running_or_notify_cancel():
        future.set_result(found)
