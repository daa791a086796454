"""Rows of files to the messages of one conversation, or the reason why a row is none.

What a row says of training is read, never passed over: `weight`, `train` and `loss` of a row and of
its turns, and `tools`. A message has the fields that chat templates read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from frontload.data_tools.raw.parse import RejectReason
from frontload.data_tools.text.example import THINK, THINK_END, split_think

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
DEVELOPER, TOOL = "developer", "tool"
ROLES = (SYSTEM, DEVELOPER, USER, ASSISTANT, TOOL)
OPENING_ROLES = (SYSTEM, DEVELOPER)  # in this order, each at most once, before the user
MAY_FOLLOW = {USER: (ASSISTANT,), ASSISTANT: (USER, TOOL), TOOL: (ASSISTANT, TOOL)}
UNCLOSED = "unclosed <think>"
REASONING = ("reasoning_content", "reasoning", "thinking")
"""The names under which data sets and templates know the trace of a turn; the first is ours."""
LOSS_FIELDS = ("weight", "train", "loss")
"""Whether there is loss on a turn, or on a row: 0 and false say no, 1 and true say yes."""

Message = dict[str, Any]
"""`role`, `content` (text, parts, or None beside `tool_calls`), and what else a template reads."""


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """One conversation. `untrained` are the numbers of the assistant's turns without loss."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    untrained: frozenset[int] = frozenset()

    def part(self, numbers: Sequence[int]) -> "Dialogue":
        """The conversation of some of its turns."""
        untrained = (at for at, number in enumerate(numbers) if number in self.untrained)
        return Dialogue(
            messages=tuple(self.messages[number] for number in numbers),
            tools=self.tools,
            untrained=frozenset(untrained),
        )

    def strings(self) -> Iterator[str]:
        """All text of it, of tools and their calls too."""
        for value in (*self.messages, *self.tools):
            yield from _strings(value)


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """Why a row is no conversation to pack: a reason that is counted, and where and what it is."""

    reason: str
    detail: str = ""


class _Refused(Exception):
    """What is wrong with a row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.misfit = Misfit(reason=reason, detail=detail)


def read_dialogue(row: Mapping[str, Any]) -> Dialogue | Misfit:
    """The conversation of a row: `messages`, or `question` with `trace` and `answer`.

    What an assistant's text holds in a leading <think> becomes its `reasoning_content`.
    """
    try:
        messages, untrained = _checked(_turns(row))
        answers = {n for n, message in enumerate(messages) if message["role"] == ASSISTANT}
        if not _is_trained(row, "") or not answers - untrained:
            raise _Refused("no turn to train on", "by weight, train or loss")
        tools = _tools(row.get("tools"))
    except _Refused as refused:
        return refused.misfit
    return Dialogue(messages=messages, tools=tools, untrained=frozenset(untrained))


def message_text(message: Message) -> str:
    """What a message says: its text, its parts end to end, or "" beside calls of tools."""
    content = message["content"]
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""


def _turns(row: Mapping[str, Any]) -> object:
    if row.get("messages") is not None:  # null in a table whose other rows are dialogues
        return row["messages"]
    if row.get("question") is not None:
        texts = {name: row.get(name) for name in ("question", "trace", "answer")}
        texts["trace"] = texts["trace"] or ""
        for name, text in texts.items():
            if not isinstance(text, str):
                raise _Refused(RejectReason.WRONG_TYPE, f"{name}: {_shown(text)}")
        answer = {"role": ASSISTANT, "content": texts["answer"]}
        if texts["trace"].strip():
            answer["reasoning_content"] = texts["trace"]
        return [{"role": USER, "content": texts["question"]}, answer]
    if row.get("text") is not None:
        raise _Refused("plain text, no conversation")
    if {"messages", "question"} & set(row):
        raise _Refused(RejectReason.NULL_VALUE, "messages or question")
    fields = ", ".join(sorted(map(str, row))[:8]) or "none"
    raise _Refused(RejectReason.MISSING_KEY, f"messages, or question; fields: {fields}")


def _checked(found: object) -> tuple[tuple[Message, ...], set[int]]:
    if not isinstance(found, list):
        raise _Refused(RejectReason.WRONG_TYPE, f"messages: {_shown(found)}")
    if not found:
        raise _Refused(RejectReason.EMPTY, "messages: []")
    messages: list[Message] = []
    untrained: set[int] = set()
    for number, turn in enumerate(found):
        message = _message(turn, f"messages[{number}]")
        if not _is_trained(turn, f"messages[{number}].", role=message["role"]):
            untrained.add(number)
        messages.append(message)
    _check_roles([message["role"] for message in messages])
    return tuple(messages), untrained


def _check_roles(roles: list[str]) -> None:
    spoken = list(roles)
    for role in OPENING_ROLES:
        if spoken[:1] == [role]:
            del spoken[0]
    for role in OPENING_ROLES:
        if role in spoken:
            raise _Refused(f"a {role} turn behind the first turn")
    if not spoken or spoken[0] != USER:
        raise _Refused("it does not begin with the user")
    if spoken[-1] != ASSISTANT:
        raise _Refused("it does not end with the assistant")
    for number, (one, other) in enumerate(zip(spoken, spoken[1:], strict=False)):
        if other not in MAY_FOLLOW[one]:
            at = number + 1 + len(roles) - len(spoken)
            reason = "two turns of one role behind each other" if one == other else ""
            raise _Refused(
                reason or f"a turn of role {other} behind one of {one}", f"messages[{at}]"
            )


def _message(turn: object, where: str) -> Message:
    if not isinstance(turn, dict):
        raise _Refused(RejectReason.WRONG_TYPE, f"{where}: {_shown(turn)}")
    role = turn.get("role")
    if role not in ROLES:
        raise _Refused(f"a turn of role {str(role)[:20]}", where)
    content, reasoning = _content(turn.get("content"), where), _reasoning(turn, where)
    if role == ASSISTANT and not reasoning and isinstance(content, str) and THINK in content:
        if THINK_END not in content:
            raise _Refused(UNCLOSED, where)
        reasoning, content = split_think(content)
    message: Message = {"role": str(role), "content": content}
    if reasoning.strip():
        message["reasoning_content"] = reasoning
    if calls := _tool_calls(turn.get("tool_calls"), where):
        message["tool_calls"] = calls
    elif content is None:
        raise _Refused(RejectReason.NULL_VALUE, f"{where}.content")
    elif role != TOOL and not message_text(message).strip():  # a tool may find nothing
        raise _Refused(RejectReason.EMPTY, f"{where}.content")
    for name in ("name", "tool_call_id"):
        if isinstance(turn.get(name), str):
            message[name] = turn[name]
    return message


def _content(content: object, where: str) -> object:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _Refused(RejectReason.WRONG_TYPE, f"{where}.content: {_shown(content)}")
    parts = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            reason = f"a part of type {str(kind)[:20]}" if kind else RejectReason.WRONG_TYPE
            raise _Refused(reason, f"{where}.content[{number}]: {_shown(part)}")
        if not isinstance(part.get("text"), str):
            raise _Refused(RejectReason.WRONG_TYPE, f"{where}.content[{number}].text")
        parts.append({"type": "text", "text": part["text"]})
    return parts


def _reasoning(turn: Mapping[str, Any], where: str) -> str:
    for name in REASONING:
        if (found := turn.get(name)) is None or found == "":
            continue
        if not isinstance(found, str):
            raise _Refused(RejectReason.WRONG_TYPE, f"{where}.{name}: {_shown(found)}")
        return found
    return ""


def _tool_calls(calls: object, where: str) -> list[dict[str, Any]]:
    if calls is None or calls == []:
        return []
    if not isinstance(calls, list):
        raise _Refused(RejectReason.WRONG_TYPE, f"{where}.tool_calls: {_shown(calls)}")
    for number, call in enumerate(calls):
        if not called_name(call):
            told = f"{where}.tool_calls[{number}]: {_shown(call)}"
            raise _Refused("a call of a tool without a name", told)
    return calls


def called_name(described: object) -> str:
    """The name of a tool, or of the tool that is called, "" if there is none."""
    function = described.get("function", described) if isinstance(described, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def _tools(found: object) -> tuple[dict[str, Any], ...]:
    """The tools of a row: a list of schemas, or one as JSON text, as tables hold it."""
    if found is None or found in ("", "[]", []):
        return ()
    if isinstance(found, str):
        try:
            found = orjson.loads(found)
        except ValueError:
            raise _Refused(RejectReason.WRONG_TYPE, f"tools: {_shown(found)}") from None
    if not isinstance(found, list) or not all(map(called_name, found)):
        raise _Refused(RejectReason.WRONG_TYPE, f"tools: {_shown(found)}")
    return tuple(found)


def _is_trained(fields: Mapping[str, Any], where: str, *, role: str = ASSISTANT) -> bool:
    """Whether a turn, or a row, says that it is to be trained on; yes where it says nothing."""
    answers: set[bool] = set()
    for name in LOSS_FIELDS:
        if (value := fields.get(name)) is None:
            continue
        if value not in (0, 1):
            raise _Refused(f"a {name} that is neither 0 nor 1", f"{where}{name}: {_shown(value)}")
        answers.add(bool(value))
    if len(answers) > 1:
        raise _Refused("weight, train and loss contradict each other", where.rstrip("."))
    if role != ASSISTANT and True in answers:
        raise _Refused(f"loss is asked for on a turn of role {role}", where.rstrip("."))
    return answers != {False}


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _shown(value: object) -> str:
    return "null" if value is None else repr(value)[:60]
