"""Requests to jobs of the engine, and what the engine wrote to the objects of the protocol."""

import asyncio
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frontload.eval.serving.bodies import Body, ChatBody, CompletionBody, RequestError
from frontload.eval.serving.engine import ScoreJob, ServingEngine, WriteJob, Written
from frontload.eval.serving.texts import ServedTexts
from frontload.megatron_ext.inference.running import Ranked

Object = dict[str, Any]
"""A JSON object of the protocol."""


@dataclass(frozen=True, kw_only=True)
class _Prompt:
    ids: tuple[int, ...]
    shown: str  # with `echo`


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """Tokens with their log-probabilities; None for a first token, which nothing predicts."""

    tokens: tuple[int, ...]
    ranked: tuple[Ranked | None, ...]


class Answers:
    """Answers the bodies of one served model."""

    def __init__(self, engine: ServingEngine, texts: ServedTexts, *, name: str) -> None:
        self.engine = engine
        self.texts = texts
        self.name = name
        self.began = int(time.time())
        self.num_answered = 0

    def models(self) -> Object:
        """`/v1/models`: the one model, with its context as vLLM names it."""
        length = self.engine.model.max_sequence_tokens
        model = {"id": self.name, "object": "model", "created": self.began,
                 "owned_by": "frontload", "max_model_len": length}  # fmt: skip
        return {"object": "list", "data": [model]}

    async def complete(self, body: CompletionBody) -> Object:
        """`/v1/completions`."""
        body.check(served=self.name)
        prompts = [self._prompt(one, body) for one in body.prompts]
        for prompt in prompts:
            self._check_length(len(prompt.ids), body.max_tokens, field="prompt")
        found = await asyncio.gather(*(self._complete_one(prompt, body) for prompt in prompts))
        choices = [choice for group, _ in found for choice in group]
        for index, choice in enumerate(choices):
            choice["index"] = index
        written = sum(count for _, count in found)
        return self._answer("text_completion", choices, usage=_usage(prompts, written))

    async def chat(self, body: ChatBody) -> Object:
        """`/v1/chat/completions`."""
        body.check(served=self.name)
        prompt = _Prompt(ids=self.texts.chat_ids(body.turns), shown="")
        room = self.engine.model.max_sequence_tokens - len(prompt.ids)
        new_tokens = body.max_completion_tokens or body.max_tokens or max(1, room)
        self._check_length(len(prompt.ids), new_tokens, field="messages")
        num_top = body.top_logprobs if body.logprobs else None
        written = await self._write(prompt, body, max_new_tokens=new_tokens, num_top=num_top)
        choices = [self._chat_choice(index, one, body=body) for index, one in enumerate(written)]
        count = sum(len(one.tokens) for one in written)
        return self._answer("chat.completion", choices, usage=_usage([prompt], count))

    def _prompt(self, given: str | list[int], body: CompletionBody) -> _Prompt:
        if isinstance(given, str):
            return _Prompt(ids=self.texts.prompt_ids(given), shown=given)
        wrong = [one for one in given if not 0 <= one < self.engine.model.vocab_size]
        if wrong or not given:
            raise RequestError(
                "prompt",
                found=f"token id {wrong[0]}" if wrong else "a list of no ids",
                rule=f"ids are 0 to {self.engine.model.vocab_size - 1}, one or more",
                do="encode with the tokenizer of the model",
            )
        shown = self.texts.text(given, skips_special=body.skip_special_tokens)
        return _Prompt(ids=tuple(given), shown=shown)

    def _check_length(self, num_tokens: int, num_new: int, *, field: str) -> None:
        most = self.engine.model.max_sequence_tokens
        if num_tokens + num_new > most:
            raise RequestError(
                field,
                found=f"{num_tokens} tokens, and {num_new} to be written",
                rule=f"the context of the model is {most} tokens (maximum context length)",
                do="shorten it, or lower max_tokens",
            )

    async def _complete_one(
        self, prompt: _Prompt, body: CompletionBody
    ) -> tuple[list[Object], int]:
        """The choices of one prompt, and how many tokens were written."""
        before: tuple[Ranked, ...] = ()
        if body.echo and body.logprobs is not None:
            job = ScoreJob(tokens=prompt.ids, num_top=body.logprobs)
            before = tuple(await asyncio.wrap_future(self.engine.score(job)))
        if body.max_tokens == 0:
            written = [Written(tokens=[], ranked=[], is_ended=False)] * body.n
        elif before and body.max_tokens == 1 and body.temperature == 0:
            # what lm-eval sends for a log-likelihood: the next token is known already
            next_one = before[-1]
            is_end = next_one.token in self.texts.end_tokens
            one = Written(tokens=[next_one.token], ranked=[next_one], is_ended=is_end)
            written = [one] * body.n
        else:
            written = await self._write(
                prompt, body, max_new_tokens=body.max_tokens, num_top=body.logprobs
            )
        choices = [self._text_choice(prompt, one, body=body, before=before[:-1]) for one in written]
        return choices, sum(len(one.tokens) for one in written)

    async def _write(
        self, prompt: _Prompt, body: Body, *, max_new_tokens: int, num_top: int | None
    ) -> list[Written]:
        stop, skips = body.stop_texts, body.skip_special_tokens
        is_end = functools.partial(self.texts.is_end, stop=stop, skips_special=skips)
        jobs = [
            WriteJob(
                prompt=prompt.ids,
                max_new_tokens=max_new_tokens,
                temperature=body.temperature,
                top_p=body.top_p,
                seed=body.seed or 0,
                sample=sample,
                num_top=num_top,
                is_end=is_end,
            )
            for sample in range(body.n)
        ]
        futures = [asyncio.wrap_future(self.engine.write(job)) for job in jobs]
        return list(await asyncio.gather(*futures))

    def _text_choice(
        self, prompt: _Prompt, one: Written, *, body: CompletionBody, before: Sequence[Ranked]
    ) -> Object:
        text, stop = self.texts.response(
            one.tokens, stop=body.stop_texts, skips_special=body.skip_special_tokens
        )
        logprobs = None
        if body.logprobs is not None:
            start = prompt.ids if body.echo else ()
            ranked = (None, *before) if body.echo else ()
            scored = _Scored(tokens=(*start, *one.tokens), ranked=(*ranked, *one.ranked))
            context = () if body.echo else prompt.ids
            logprobs = self._logprobs(scored, context, num_top=body.logprobs)
        return {
            "index": 0,
            "text": prompt.shown + text if body.echo else text,
            "logprobs": logprobs,
            "finish_reason": "stop" if one.is_ended else "length",
            "stop_reason": stop,
        }

    def _logprobs(self, scored: _Scored, context: Sequence[int], *, num_top: int) -> Object:
        """The four lists of a completion, each token with its text behind the tokens before."""
        tokens: list[str] = []
        offsets: list[int] = []
        tops: list[Object | None] = []
        place = 0
        whole = [*context, *scored.tokens]
        for number, ranked in enumerate(scored.ranked, start=len(context)):
            before = whole[max(0, number - 8) : number]
            piece = self.texts.piece(before, whole[number])
            tokens.append(piece.shown)
            offsets.append(place)
            place += len(piece.added)
            top = None if ranked is None else self._top(before, ranked, num_top=num_top)
            tops.append(top)
        sizes = [None if one is None else one.log_probability for one in scored.ranked]
        return {"tokens": tokens, "token_logprobs": sizes, "top_logprobs": tops,
                "text_offset": offsets}  # fmt: skip

    def _top(self, before: Sequence[int], ranked: Ranked, *, num_top: int) -> dict[str, float]:
        """The likeliest tokens of a place by their text, one that looks like another by its id."""
        found: dict[str, float] = {}
        own = self.texts.piece(before, ranked.token).shown
        for token, size in ranked.top[:num_top]:
            shown = self.texts.piece(before, token).shown
            is_double = shown in found or (shown == own and token != ranked.token)
            found[f"token_id:{token}" if is_double else shown] = size
        return found

    def _chat_choice(self, index: int, one: Written, *, body: ChatBody) -> Object:
        text, stop = self.texts.response(
            one.tokens, stop=body.stop_texts, skips_special=body.skip_special_tokens
        )
        content = None
        if body.logprobs:
            content = [
                self._chat_token(one.tokens[:place], ranked, num_top=body.top_logprobs)
                for place, ranked in enumerate(one.ranked)
            ]
        return {
            "index": index,
            "message": {"role": "assistant", "content": text},
            "logprobs": None if content is None else {"content": content},
            "finish_reason": "stop" if one.is_ended else "length",
            "stop_reason": stop,
        }

    def _chat_token(self, before: Sequence[int], ranked: Ranked, *, num_top: int) -> Object:
        top = self._top(before, ranked, num_top=num_top).items()
        own = _chat_logprob(self.texts.piece(before, ranked.token).shown, ranked.log_probability)
        return own | {"top_logprobs": [_chat_logprob(text, size) for text, size in top]}

    def _answer(self, kind: str, choices: list[Object], *, usage: Object) -> Object:
        self.num_answered += 1
        prefix = "cmpl" if kind == "text_completion" else "chatcmpl"
        return {
            "id": f"{prefix}-{self.began}-{self.num_answered}",
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
            "choices": choices,
            "usage": usage,
        }


def _chat_logprob(text: str, size: float) -> Object:
    return {"token": text, "logprob": size, "bytes": list(text.encode())}


def _usage(prompts: Sequence[_Prompt], written: int) -> Object:
    read = sum(len(prompt.ids) for prompt in prompts)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
