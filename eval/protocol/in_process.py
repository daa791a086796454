"""A checkpoint of this project as an answerer, in this process: many rows side by side."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from frontload.data_tools.text.chat import ChatTemplate, load_template
from frontload.data_tools.text.end_tokens import end_tokens
from frontload.data_tools.text.messages import Message
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.asking.lm_eval_model import FrontloadLM
from frontload.eval.asking.model import ScoringModel
from frontload.eval.asking.pairs import encode_pair
from frontload.eval.protocol.answers import (
    Finish,
    Generated,
    GenerationRequest,
    Loglikelihood,
    LoglikelihoodRequest,
    RefusedRequest,
)
from frontload.megatron_ext.inference.running import RowRequest, RunningBatch

MOST_ROWS = 128  # side by side: beyond it tokens a second no longer rise on one core
MOST_PROMPT_TOKENS = 1 << 16  # read side by side, padding included


class BatchModel(ScoringModel, Protocol):
    """A language model that rows may join while it writes."""

    def open_batch(self) -> RunningBatch: ...


@dataclass(kw_only=True)
class _Row:
    """One answer under way."""

    request: GenerationRequest
    prompt: tuple[int, ...]
    tokens: list[int] = field(default_factory=list)


class InProcess:
    """Answers with a model in this process.

    Answers depend on what is asked and on nothing else, up to the order in which a batch sums. A
    model with position embeddings (`has_positions`) refuses what is longer than its context. Ours
    have none: a prompt may be longer than the trained context, which is counted and not cut, and
    an answer has at most that many tokens.
    """

    def __init__(
        self,
        model: BatchModel,
        tokenizer: TextTokenizer,
        *,
        identity: str,
        has_positions: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.has_positions = model, tokenizer, has_positions
        self.end_tokens = end_tokens(tokenizer)
        self._identity = identity
        self._scorer = FrontloadLM(model, tokenizer)

    @cached_property
    def _template(self) -> ChatTemplate:
        """The chat template of the tokenizer, which a model that is asked by text may lack."""
        return load_template(None, self.tokenizer)

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def sums_in_batches(self) -> bool:
        return True

    @property
    def max_sequence_tokens(self) -> int:
        return self.model.max_sequence_tokens

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[tuple[str, Generated]]:
        """Answers as they end. A row that ends makes room for the next request.

        Raises: RecipeError for a prompt that leaves no room to answer.
        """
        waiting = [_Row(request=one, prompt=self._prompt(one)) for one in requests]
        waiting.sort(key=lambda row: -len(row.prompt))  # popped from the end: short ones first
        running: dict[int, _Row] = {}
        batch, number = self.model.open_batch(), 0
        while waiting or running:
            rows = _next_rows(waiting, room=MOST_ROWS - len(running))
            if rows:
                named = {number + place: row for place, row in enumerate(rows)}
                number += len(rows)
                running |= named
                batch.admit([_row_request(name, row) for name, row in named.items()])
            ended: set[int] = set()
            for drawn in batch.draw():
                row = running[drawn.row]
                row.tokens.append(drawn.token)
                answer = self._ended(row)
                if answer is not None:
                    ended.add(drawn.row)
                    yield row.request.key, answer
            for name in ended:
                del running[name]
            batch.advance(ended)

    def loglikelihood(
        self, requests: Iterable[LoglikelihoodRequest]
    ) -> Iterator[tuple[str, Loglikelihood]]:
        """Scores, through the adapter that lm-eval's own tasks use.

        Raises: RecipeError for a continuation without a token, or longer than the context.
        """
        asked = list(requests)
        pairs = [
            encode_pair(
                self.tokenizer,
                one.context,
                continuation=one.continuation,
                end_token=self.end_tokens[0],
            )
            for one in asked
        ]
        for one, (before, after) in zip(asked, pairs, strict=True):
            self._check_room(one.key, len(before) + len(after), what="its context and option")
        encoded = [
            ((one.context, one.continuation), before, after)
            for one, (before, after) in zip(asked, pairs, strict=True)
        ]
        found = self._scorer._loglikelihood_tokens(encoded)
        for one, (_, after), (total, is_greedy) in zip(asked, pairs, found, strict=True):
            yield (
                one.key,
                Loglikelihood(total=total, is_greedy=is_greedy, num_tokens=len(after)),
            )

    def _prompt(self, request: GenerationRequest) -> tuple[int, ...]:
        if request.messages is not None:
            text = self._chat(request.key, request.messages)
        else:
            text = request.prompt or ""
        tokens = tuple(self.tokenizer.encode(text)) or self.end_tokens[:1]
        self._check_room(request.key, len(tokens) + 1, what="its prompt and a token of an answer")
        return tokens

    def _check_room(self, key: str, num_tokens: int, *, what: str) -> None:
        if self.has_positions and num_tokens > self.max_sequence_tokens:
            raise RefusedRequest(
                f"asking {key}",
                found=f"{what} have {num_tokens} tokens",
                rule=f"the model's context has {self.max_sequence_tokens}; nothing is cut",
                do="ask with fewer examples (benchmarks.NAME.num_shots=N), or without this "
                "benchmark (asked=[...]); what is answered stays",
            )

    def _chat(self, key: str, messages: Sequence[Message]) -> str:
        turns = [(turn["role"], turn["content"]) for turn in messages]
        text = self._template.prompt(turns)
        if text is None:
            raise RefusedRequest(
                f"request {key}",
                found="a message that the chat template refuses or leaves out",
                rule=f"chat template {self._template.name} writes every message that it is given",
                do="name another tokenizer, or a suite that asks by text",
            )
        return text

    def _ended(self, row: _Row) -> Generated | None:
        """The answer of a row that is over; None while it goes on."""
        tokens, stop = row.tokens, row.request.stop
        if tokens[-1] in self.end_tokens:
            return self._generated(tokens[:-1], num_tokens=len(tokens), stop=stop, finish="stop")
        longest = max((len(one.encode()) for one in stop), default=0)
        if longest:
            tail = self.tokenizer.decode(tokens[-longest - 1 :])  # a token has a byte or more
            if any(one in tail for one in stop):
                return self._generated(tokens, num_tokens=len(tokens), stop=stop, finish="stop")
        room = self.max_sequence_tokens - self.has_positions * len(row.prompt)
        if len(tokens) >= min(row.request.max_new_tokens, room):
            return self._generated(tokens, num_tokens=len(tokens), stop=stop, finish="length")
        return None

    def _generated(
        self, tokens: Sequence[int], *, num_tokens: int, stop: Sequence[str], finish: Finish
    ) -> Generated:
        text = self.tokenizer.decode(tokens)
        ends = [text.find(one) for one in stop if one in text]
        if ends:
            text, finish = text[: min(ends)], "stop"
        return Generated(text=text, num_tokens=num_tokens, finish=finish)


def model_identity(files: Sequence[Path], tokenizer: TextTokenizer) -> str:
    """A name for weights and tokenizer by their bytes."""
    digest = hashlib.sha256(tokenizer.sha256().encode())
    for path in sorted(files):
        digest.update(path.name.encode())
        with open(path, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _next_rows(waiting: list[_Row], *, room: int) -> list[_Row]:
    """The rows that are read next, side by side: a part of the room is not worth a pass."""
    rows: list[_Row] = []
    if not waiting or (room < MOST_ROWS // 4 and room < len(waiting)):
        return rows
    while waiting and len(rows) < room:
        longest = len(waiting[-1].prompt)
        if rows and longest * (len(rows) + 1) > MOST_PROMPT_TOKENS:
            break
        rows.append(waiting.pop())
    return rows


def _row_request(name: int, row: _Row) -> RowRequest:
    return RowRequest(
        row=name,
        prompt=row.prompt,
        temperature=row.request.temperature,
        seed=row.request.seed,
        top_p=row.request.top_p,
    )


def load_in_process(checkpoint: Path, tokenizer: Path) -> InProcess:
    """The answerer of a checkpoint folder with its tokenizer.

    Raises: RecipeError or ArtifactError when one of them cannot be read.
    """
    from frontload.megatron_ext.inference.language_model import LanguageModel

    loaded = TextTokenizer.load(tokenizer)
    model = LanguageModel.load(checkpoint)
    files = [path for path in (checkpoint / "weights").rglob("*") if path.is_file()]
    return InProcess(model, loaded, identity=model_identity(files, loaded))


def load_stranger(folder: Path, tokenizer: Path) -> InProcess:
    """The answerer of a Hugging Face folder, by transformers' own classes.

    Raises: RecipeError or ArtifactError when it cannot be read, or does not fit.
    """
    from frontload.megatron_ext.hf.transformers_decoder import load_transformers

    loaded = TextTokenizer.load(tokenizer)
    model = load_transformers(folder)
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin"), folder / "config.json"]
    identity = model_identity(files, loaded)
    return InProcess(model, loaded, identity=identity, has_positions=True)
