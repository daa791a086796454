"""What a server replied, read field by field: a reply that is none of the protocol is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from frontload.eval.protocol.answers import GarbledReply, Generated


@dataclass(frozen=True, kw_only=True)
class ScoredToken:
    """A token of a scored text."""

    log_probability: float | None  # None of the first one: nothing predicts it
    is_likeliest: bool
    offset: int | None  # of its first letter


class _Reply:
    """One JSON object, with the key of the request for messages."""

    def __init__(self, found: object, key: str, *, path: str = "") -> None:
        self._found, self._key, self._path = found, key, path

    def get(self, name: str, kind: type, *, may_lack: bool = False) -> Any:
        """A field of this type.

        Raises: GarbledReply for another, or none.
        """
        value = self._found.get(name) if isinstance(self._found, Mapping) else None
        if value is None and may_lack:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.refused(
                f"{self._path}{name} is {_short(value)}, not of type {kind.__name__}"
            )
        return value

    def part(self, name: str) -> "_Reply":
        """An object inside."""
        return _Reply(self.get(name, dict), self._key, path=f"{self._path}{name}.")

    def first(self, name: str) -> "_Reply":
        """The one object of a list of one."""
        found = self.get(name, list)
        if len(found) != 1:
            raise self.refused(f"{self._path}{name} has {len(found)} entries, not 1")
        return _Reply(found[0], self._key, path=f"{self._path}{name}[0].")

    def refused(self, found: str) -> GarbledReply:
        """A reply that cannot be read."""
        return GarbledReply(
            f"request {self._key}",
            found=f"the server's reply: {found}",
            rule="a server answers as the OpenAI protocol says",
            do="see to the server, then run the same command again; what was answered is kept",
        )


def read_text(found: object, *, key: str, is_chat: bool) -> Generated:
    """The text of a completion or a chat. What a server cut off as reasoning is put back.

    Raises: GarbledReply.
    """
    reply = _Reply(found, key)
    choice = reply.first("choices")
    finish = choice.get("finish_reason", str)
    if finish not in ("stop", "length"):
        raise reply.refused(f"finish_reason is '{finish}', neither stop nor length")
    if is_chat:
        message = choice.part("message")
        reasoning = message.get("reasoning_content", str, may_lack=True)
        text = message.get("content", str, may_lack=bool(reasoning)) or ""
        text = f"<think>\n{reasoning}\n</think>\n\n{text}" if reasoning else text
    else:
        text = choice.get("text", str)
    num_tokens = reply.part("usage").get("completion_tokens", int)
    if num_tokens < 0 or (text and num_tokens == 0):
        raise reply.refused(f"usage.completion_tokens is {num_tokens} for {len(text)} letters")
    return Generated(text=text, num_tokens=num_tokens, finish=finish)


def read_places(body: object, *, key: str) -> list[ScoredToken]:
    """The scored tokens of the prompt of a completion with `echo`, without those written after it.

    Raises: GarbledReply, also for scores that no model gives.
    """
    reply = _Reply(body, key)
    logprobs = reply.first("choices").part("logprobs")
    sizes = logprobs.get("token_logprobs", list)
    tops = logprobs.get("top_logprobs", list)
    tokens = logprobs.get("tokens", list)
    offsets = logprobs.get("text_offset", list, may_lack=True) or [None] * len(sizes)
    if not len(sizes) == len(tops) == len(tokens) == len(offsets):
        raise reply.refused("lists of unlike lengths in logprobs")
    wrong = [one for one in sizes[1:] if not isinstance(one, (int, float)) or not one <= 1e-6]
    if wrong:
        raise reply.refused(f"a log-probability of {_short(wrong[0])}")
    num_read = reply.part("usage").get("prompt_tokens", int)
    if not 1 < num_read <= len(sizes):
        found = f"{len(sizes)} scored tokens of a prompt of {num_read}: it does not echo it"
        raise reply.refused(found)
    places = [
        ScoredToken(log_probability=size, is_likeliest=_is_likeliest(size, top), offset=offset)
        for size, top, offset in zip(sizes, tops, offsets, strict=True)
    ]
    return places[:num_read]


def _is_likeliest(size: float | None, top: object) -> bool:
    """Whether nothing is likelier; by size, as texts of tokens may look alike."""
    if size is None or not isinstance(top, Mapping) or not top:
        return False
    return size >= max(value for value in top.values() if isinstance(value, (int, float)))


def _short(value: object) -> str:
    return repr(value)[:60]
