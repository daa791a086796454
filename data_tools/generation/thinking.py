"""Thinking-augmented documents: a document, then what an expert thinks while reading it.

Source: Thinking Augmented Pre-training, arXiv 2509.20186, section 2: x = [document; thinking], all
tokens are trained on. The wording of the request is ours.
"""

from dataclasses import dataclass
from enum import StrEnum

from frontload.data_tools.generation.overlap import copied_share, repeated_share
from frontload.data_tools.text.messages import Message
from frontload.data_tools.text.render import has_special_token

DOCUMENT = "{document}"
REQUEST = (
    DOCUMENT
    + "\n\nThe text ends here. Think aloud about it as an expert who wants to understand it fully: "
    "work through what is hard or rich in it, explain each step in plain words, check what it "
    "claims, and pass over what is trivial."
)
THINK_OPEN, THINK_END = "<think>", "</think>"
BETWEEN = "\n\n"  # document and thinking
MOST_COPIED = 0.5  # ours: more than half of it is the document again
MOST_REPEATED = 0.5  # ours: more than half of it was said before


class RejectedThinking(StrEnum):
    """Why a reply is not used."""

    EMPTY = "an empty reply"
    CUT = "a reply cut at the most tokens"
    SPECIAL_TOKEN = "a reply that spells a special token"
    CONTROL = "a reply with control characters"
    COPY = "a reply that copies the document"
    LOOP = "a reply that repeats itself"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model wrote, and whether the limit of tokens ended it."""

    text: str
    is_cut: bool


def thinking_messages(document: str, request: str = REQUEST) -> tuple[Message, ...]:
    """The conversation that asks for thinking; `request` holds {document} once."""
    before, _, after = request.partition(DOCUMENT)
    return ({"role": "user", "content": before + document + after},)


def read_thinking(
    reply: Reply, *, document: str, keeps_cut: bool = False
) -> str | RejectedThinking:
    """The thinking in a reply, or why it is not used.

    A reply that reasons in marks is used up to the end mark: an answer follows, not thought.
    """
    text = reply.text.strip().removeprefix(THINK_OPEN)
    thought, end, _ = text.partition(THINK_END)
    thought = thought.strip()
    if not thought:
        return RejectedThinking.EMPTY
    if reply.is_cut and not end and not keeps_cut:
        return RejectedThinking.CUT
    if has_special_token(thought):
        return RejectedThinking.SPECIAL_TOKEN
    if has_control(thought):
        return RejectedThinking.CONTROL
    if copied_share(thought, document) > MOST_COPIED:
        return RejectedThinking.COPY
    if repeated_share(thought) > MOST_REPEATED:
        return RejectedThinking.LOOP
    return thought


def has_control(text: str) -> bool:
    """Whether a text holds what no writer types: control characters, or half of a character."""
    return any(
        (ord(char) < 0x20 and char not in "\t\n\r") or 0xD800 <= ord(char) <= 0xDFFF
        for char in text
    )


def joined(document: str, thinking: str) -> str:
    """The training text."""
    return document.rstrip() + BETWEEN + thinking
