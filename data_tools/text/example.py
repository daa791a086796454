"""One row between its adapter and its set: turns or plain text, where it came from, its JSON line.

A line is a row of `frontload.data_tools.text.document`, with more fields: `source`, `file` and
`row` say where it was read, `flags` what a reader should know. A question with one answer has
`question`, `trace` and `answer`; a dialogue, or a conversation with a system turn, has `messages`;
plain text has `text`.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from frontload.data_tools.text.document import json_line

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
UNCLOSED_THINK = "unclosed_think"
UNSPLIT = "unsplit"

THINK, THINK_END = "<think>", "</think>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What one role says."""

    role: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A row as every filter sees it: `turns`, or else `text`."""

    turns: tuple[Turn, ...] = ()
    text: str = ""
    name: str = ""  # the row's own id, "" where it has none
    domain: str
    family: str
    flags: tuple[str, ...] = ()
    as_read: dict[str, Any] | None = None  # a row in the form that is written: it stays as it is

    @property
    def question(self) -> str:
        """What the user says, all turns of it; "" for plain text."""
        return "\n\n".join(turn.text for turn in self.turns if turn.role == USER)

    @property
    def document(self) -> str:
        """All of the row's text."""
        return "\n\n".join(turn.text for turn in self.turns) if self.turns else self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """A row that is left out: the rule, and what broke it where that is not plain."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a row was read."""

    source: str
    file: str
    row: int  # line of the file, or row of the table, from 1


def split_think(text: str) -> tuple[str, str]:
    """(trace, answer) of what an assistant says: a trace is what a leading <think> holds.

    An unclosed <think> holds the rest of the text, so the answer is empty.
    """
    body = text.lstrip()
    if not body.startswith(THINK):
        return "", text
    trace, _, answer = body.removeprefix(THINK).partition(THINK_END)
    return trace.strip(), answer.strip()


def has_unclosed_think(example: Example) -> bool:
    """Whether an answer opens <think> and never closes it: it was cut while it was written."""
    return any(
        turn.role == ASSISTANT and THINK in turn.text and THINK_END not in turn.text
        for turn in example.turns
    )


def row_object(example: Example, origin: Origin) -> dict[str, Any]:
    """The row as it is written."""
    if example.as_read is not None:
        return example.as_read
    row: dict[str, Any] = {
        "id": example.name or f"{origin.source}:{origin.file}:{origin.row}",
        **_content(example),
        "family": example.family,
        "domain": example.domain,
        "source": origin.source,
        "file": origin.file,
        "row": origin.row,
    }
    if example.flags:
        row["flags"] = list(example.flags)
    return row


def row_line(example: Example, origin: Origin) -> bytes:
    """The row's line of JSON, with its line break."""
    if example.as_read is not None:
        return json_line(example.as_read).encode()
    return orjson.dumps(row_object(example, origin), option=orjson.OPT_APPEND_NEWLINE)


def text_line(example: Example, origin: Origin) -> bytes:
    """The row as base text: the turns one below the other, as pretraining reads them."""
    plain = Example(
        text=example.document,
        name=example.name,
        domain=example.domain,
        family=example.family,
        flags=example.flags,
    )
    return row_line(plain, origin)


def _content(example: Example) -> dict[str, Any]:
    if not example.turns:
        return {"text": example.text}
    if tuple(turn.role for turn in example.turns) == (USER, ASSISTANT):
        trace, answer = split_think(example.turns[1].text)
        return {"question": example.turns[0].text, "trace": trace, "answer": answer}
    return {"messages": [_message(turn) for turn in example.turns]}


def _message(turn: Turn) -> dict[str, str]:
    if turn.role != ASSISTANT:
        return {"role": turn.role, "content": turn.text}
    trace, answer = split_think(turn.text)
    message = {"role": turn.role, "content": answer}
    return message | {"reasoning_content": trace} if trace else message
