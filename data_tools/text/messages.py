"""Rows of files to the messages of one conversation, or the reason why a row is none."""

from collections.abc import Mapping
from typing import Any

from frontload.data_tools.raw.parse import RejectReason
from frontload.data_tools.text.example import THINK, THINK_END, split_think

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
UNCLOSED = "unclosed <think>"
Message = dict[str, str]
"""`role`, `content`, and of an assistant who thinks first `reasoning_content`."""


def read_messages(row: Mapping[str, Any]) -> list[Message] | str:
    """The messages of a row: `messages`, or `question` with `trace` and `answer`.

    What an assistant's text holds in a leading <think> becomes its `reasoning_content`.
    """
    if row.get("messages") is not None:  # null in a table whose other rows are dialogues
        return _checked(row["messages"])
    if row.get("question") is not None:
        texts = {name: row.get(name) for name in ("question", "trace", "answer")}
        texts["trace"] = texts["trace"] or ""
        if not all(isinstance(text, str) for text in texts.values()):
            return str(RejectReason.WRONG_TYPE)
        answer = {"role": ASSISTANT, "content": texts["answer"]}
        if texts["trace"].strip():
            answer["reasoning_content"] = texts["trace"]
        return _checked([{"role": USER, "content": texts["question"]}, answer])
    if row.get("text") is not None:
        return "plain text, no conversation"
    return str(
        RejectReason.NULL_VALUE if {"messages", "question"} & set(row) else RejectReason.MISSING_KEY
    )


def _checked(found: object) -> list[Message] | str:
    if not isinstance(found, list) or not found:
        return str(RejectReason.WRONG_TYPE if found else RejectReason.EMPTY)
    messages: list[Message] = []
    for number, turn in enumerate(found):
        message = _message(turn)
        if isinstance(message, str):
            return message
        if message["role"] == SYSTEM and number:
            return "a system turn behind the first turn"
        messages.append(message)
    roles = [message["role"] for message in messages if message["role"] != SYSTEM]
    if not roles or roles[0] != USER:
        return "it does not begin with the user"
    if roles[-1] != ASSISTANT:
        return "it does not end with the assistant"
    if any(one == other for one, other in zip(roles, roles[1:], strict=False)):
        return "two turns of one role behind each other"
    return messages


def _message(turn: object) -> Message | str:
    if not isinstance(turn, dict):
        return str(RejectReason.WRONG_TYPE)
    role, content = turn.get("role"), turn.get("content")
    reasoning = turn.get("reasoning_content") or ""
    if not isinstance(content, str) or not isinstance(reasoning, str):
        return str(RejectReason.WRONG_TYPE)
    if role not in (SYSTEM, USER, ASSISTANT):
        return f"a turn of role {str(role)[:20]}"
    if role == ASSISTANT and not reasoning and THINK in content:
        if THINK_END not in content:
            return UNCLOSED
        reasoning, content = split_think(content)
    if not content.strip():
        return str(RejectReason.EMPTY)
    message = {"role": str(role), "content": content}
    if reasoning.strip():
        message["reasoning_content"] = reasoning
    return message
