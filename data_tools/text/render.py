"""Rows to text and token ids through recipes/chat.jinja. The only place that renders."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np

from frontload.data_tools.text.chat import our_template
from frontload.data_tools.text.document import Conversation, Row
from frontload.data_tools.text.tokenizer import SPECIAL_TOKENS, TextTokenizer
from frontload.recipes.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One document as tokens, with the tokens that SFT predicts with loss marked.

    Shapes: tokens_S int64, loss_mask_S uint8; loss_mask_S[i] = 1 when token i is a target.
    """

    tokens_S: np.ndarray
    loss_mask_S: np.ndarray


def has_special_token(text: str) -> bool:
    """Whether the text spells one of the special tokens, which would be read as structure."""
    return "<|" in text and any(token in text for token in SPECIAL_TOKENS)


@lru_cache(maxsize=4)
def _fixed_parts(role: str, *, has_trace: bool = False) -> list[str]:
    """What the template writes around the contents of one message: rendering costs 20 us a row."""
    slot = "\0"
    message = {"role": role, "content": slot, "reasoning_content": slot if has_trace else ""}
    return our_template().render([message]).split(slot)


def base_text(text: str, *, append_eod: bool = True) -> str:
    """Base text as the model reads it: `TEXT <|end|>`."""
    before, after = _fixed_parts("text")
    return before + _plain(text) + (after if append_eod else "")


def generation_prompt(question: str) -> str:
    """The text after which the model answers: `<|user|> QUESTION <|assistant|>`."""
    before, after = _fixed_parts("user")
    return before + _plain(question) + after


def response(trace: str, answer: str) -> str:
    """What the model answers, with the space before it: ` TRACE <|answer|> FINAL <|end|>`."""
    if not trace:
        before, after = _fixed_parts("assistant")
        return before + _plain(answer) + after
    before, between, after = _fixed_parts("assistant", has_trace=True)
    return before + _plain(trace) + between + _plain(answer) + after


def encode_prompts(tokenizer: TextTokenizer, questions: Sequence[str]) -> list[list[int]]:
    """Token ids of the generation prompt of each question."""
    return tokenizer.encode_batch([generation_prompt(question) for question in questions])


def encode_few_shot_prompt(
    tokenizer: TextTokenizer, exemplars: Sequence[Conversation], *, question: str
) -> list[int]:
    """Token ids of the exemplars as whole documents, then the generation prompt of `question`."""
    documents = encode_documents(tokenizer, exemplars, append_eod=True)
    return [*chain.from_iterable(documents), *tokenizer.encode(generation_prompt(question))]


def encode_rows(tokenizer: TextTokenizer, rows: Sequence[Row]) -> list[Rendered]:
    """Renders and encodes rows; a conversation's prompt and response are encoded apart.

    The loss mask is 1 on the response's positions. It never looks at ids, so a text that holds the
    id of a marker cannot move it. In base text every token is a target.
    """
    return [_join(prompt, body) for prompt, body in _encode_pieces(tokenizer, rows)]


def encode_documents(
    tokenizer: TextTokenizer, rows: Sequence[Row], *, append_eod: bool
) -> list[list[int]]:
    """Token ids of whole rows, as pretraining reads them.

    Without `append_eod` base text has no <|end|>; a conversation keeps its own, its last turn's.
    """
    pieces = _encode_pieces(tokenizer, rows, append_eod=append_eod)
    return [prompt + body for prompt, body in pieces]


def _encode_pieces(
    tokenizer: TextTokenizer, rows: Sequence[Row], *, append_eod: bool = True
) -> list[tuple[list[int], list[int]]]:
    """(prompt, body) of each row; base text is a body without a prompt."""
    prompts = [
        generation_prompt(row.question) if isinstance(row, Conversation) else "" for row in rows
    ]
    bodies = [
        response(row.trace, row.answer)
        if isinstance(row, Conversation)
        else base_text(row.text, append_eod=append_eod)
        for row in rows
    ]
    encoded = tokenizer.encode_batch([*prompts, *bodies])
    return list(zip(encoded[: len(rows)], encoded[len(rows) :], strict=True))


def _join(prompt: list[int], body: list[int]) -> Rendered:
    loss_mask_S = np.zeros(len(prompt) + len(body), dtype=np.uint8)
    loss_mask_S[len(prompt) :] = 1
    return Rendered(tokens_S=np.array([*prompt, *body], dtype=np.int64), loss_mask_S=loss_mask_S)


def _plain(text: str) -> str:
    if has_special_token(text):
        raise RecipeError(
            "rendering a text",
            found=f"a special token inside it: {text[:80]!r}",
            rule=f"content never spells one of {', '.join(SPECIAL_TOKENS)}",
            do="drop the row, or write the token differently",
        )
    return text
