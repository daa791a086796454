"""Conversations as pieces of text: what a model is given, and what it is trained to say.

A turn's target is what follows the generation prompt in the text that ends with this turn: what the
model would have had to write. Where a template writes earlier turns in another way once more turns
follow (it strips their reasoning, or closes the last turn only), `History` says what is packed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from os.path import commonprefix
from typing import Any

from frontload.data_tools.text.chat import (
    ChatTemplate,
    holds_answer,
    holds_reasoning,
    names_all,
)
from frontload.data_tools.text.messages import ASSISTANT, Dialogue, Message, Misfit, message_text
from frontload.data_tools.text.template import BEGIN, END, FAULTS

REWRITES = "the template renders a turn in another way when more turns follow"
OTHER_PROMPT = "a turn does not begin as the template's generation prompt does"
CUT_SHORT = "the template leaves out a call of a tool, or a part of a turn"
KEEPS_HISTORY: Mapping[str, Any] = {
    "truncate_history_thinking": False,  # Nemotron 3
    "preserve_thinking": True,  # Qwen 3.6
    "keep_thinking": True,  # LFM 2.5
    "clear_thinking": False,  # GLM 4.6
}
"""What templates call the switch that keeps the reasoning of earlier turns."""
THINKING: tuple[Mapping[str, Any], ...] = (
    {},
    *({"enable_thinking": False}, {"thinking": False}),
    *({"enable_thinking": True}, {"thinking": True}),
)
"""And the switch for a prompt after which the model thinks or does not; first as usual."""
OPENED = re.compile(r"<[^<>/\s]+>\s*\Z")
CLOSING = re.compile(r"\s*(?:<[^<>\s]+>\s*)*")  # what a template writes behind the last turn only
UNENDED = re.compile(r"<[^<>]*\Z")
THINK_CLOSED = re.compile(r"\s*(?:</think>\s*)?")


class History(StrEnum):
    """What becomes of earlier turns where the template writes them in another way.

    `EACH_TURN`: a row more for each, which ends with it, as it stood when it was the last.
    `TEMPLATE`: one row, as the template writes it; there is loss on turns that stand as they would
    be generated. `INLINE`: one row, in which earlier turns keep their reasoning.
    """

    EACH_TURN = "each_turn"
    TEMPLATE = "template"
    INLINE = "inline"


@dataclass(frozen=True, kw_only=True)
class TargetRules:
    """What there is loss on."""

    history: History = History.EACH_TURN
    last_turn_only: bool = False
    masks_thinking: bool = False


USUAL = TargetRules()


@dataclass(frozen=True, kw_only=True)
class ChatPiece:
    """Text of a conversation; a target is what the assistant says, to the end of its turn."""

    text: str
    is_target: bool


@dataclass(frozen=True, kw_only=True)
class ChatRow:
    """One row of a conversation.

    `left_out` turns were to have loss, and no row has loss on them. `unopened` targets begin before
    the block of thought that the generation prompt opens, since their turns have none.
    """

    pieces: tuple[ChatPiece, ...]
    left_out: int = 0
    unopened: int = 0

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


class _Unfit(Exception):
    """Why a template does not write a conversation."""


def cut_rows(
    template: ChatTemplate, dialogue: Dialogue, *, rules: TargetRules = USUAL
) -> list[ChatRow] | Misfit:
    """The rows of a conversation piece by piece, or why this template cannot say it."""
    try:
        if any(BEGIN in text or END in text for text in dialogue.strings()):
            raise _Unfit("the noncharacter U+FDD0 or U+FDD1 in the text")
        return _Cut(template, dialogue, rules=rules).rows()
    except _Unfit as unfit:
        return Misfit(reason=str(unfit))
    except FAULTS as fault:
        told = " ".join(f"{type(fault).__name__}: {fault}".split())
        return Misfit(reason="the template refuses it", detail=told[:120])


@dataclass(frozen=True)
class _Span:
    """Where a turn's target lies in a text."""

    begin: int
    end: int


class _Cut:
    """One conversation, cut into rows by one template."""

    def __init__(self, template: ChatTemplate, dialogue: Dialogue, *, rules: TargetRules) -> None:
        self._template, self._dialogue, self._rules = template, dialogue, rules
        self._turns = [template.prepared(turn) for turn in dialogue.messages]
        self._answers = [n for n, turn in enumerate(self._turns) if turn["role"] == ASSISTANT]
        wanted = self._answers[-1:] if rules.last_turn_only else self._answers
        self._wanted = [number for number in wanted if number not in dialogue.untrained]
        self._switches: Mapping[str, object] = {}
        self._afters: dict[int, str] = {}
        self._unopened: set[int] = set()

    def rows(self) -> list[ChatRow]:
        if not self._wanted:
            raise _Unfit("no turn to train on")
        if self._template.has_generation:
            marked = self._template.rendered(self._turns, tools=self._dialogue.tools)
            return [self._marked_row(marked.text, marked.spans)]
        if self._rules.history is History.INLINE:
            self._keep_reasoning()
        last = self._answers[-1]
        found: list[ChatRow] = []
        left = set(self._wanted)
        for number in reversed(self._answers):
            if number != last and number not in left:
                continue
            row, turns = self._row_to(number, left)
            left -= turns
            if turns:
                found.append(row)
            if self._rules.history is not History.EACH_TURN:
                break
        if self._rules.history is History.INLINE and left:
            raise _Unfit(REWRITES)
        if not found:
            raise _Unfit(REWRITES)
        found[0] = replace(found[0], left_out=len(left))
        return found[::-1]

    def _row_to(self, number: int, wanted: Iterable[int]) -> tuple[ChatRow, set[int]]:
        """The row that ends with a turn, and those of the wanted turns that are targets in it."""
        text = self._after(number)
        self._check_held(text, number)
        spans = {one: self._span(one, text) for one in sorted(wanted) if one <= number}
        if number in spans and spans[number] is None:
            raise _Unfit(OTHER_PROMPT)
        there = {one: span for one, span in spans.items() if span is not None}
        for one, span in there.items():
            self._check_said(one, text[span.begin : span.end])
        return self._as_row(text, there), set(there)

    def _after(self, number: int) -> str:
        if number not in self._afters:
            turns = self._turns[: number + 1]
            self._afters[number] = self._rendered(turns, **self._switches)
        return self._afters[number]

    def _rendered(self, turns: Sequence[Message], **how: Any) -> str:
        return self._template.rendered(turns, tools=self._dialogue.tools, **how).text

    def _check_held(self, text: str, last: int) -> None:
        """Refuses a text that leaves out what is said, but for the reasoning of earlier turns."""
        for number, message in enumerate(self._dialogue.messages[: last + 1]):
            role = message["role"]
            if not holds_answer(text, message):
                raise _Unfit(f"the template leaves out a turn of role {role}, or alters it")
            if number == last and not holds_reasoning(text, message):
                raise _Unfit(f"the template leaves out the reasoning of a turn of role {role}")
        if not names_all(text, self._dialogue.tools):
            raise _Unfit("the template leaves out the tools")

    def _check_said(self, number: int, said: str) -> None:
        """Refuses a target without all of its turn: a tool's name may stand elsewhere in a text."""
        message = self._dialogue.messages[number]
        if not (holds_answer(said, message) and holds_reasoning(said, message)):
            raise _Unfit(CUT_SHORT)

    def _span(self, number: int, text: str) -> _Span | None:
        """Where a turn's target lies in a text; None if the turn stands there otherwise."""
        after = self._after(number)
        begin = self._begin(number, after)
        if begin is None:
            return None
        if text.startswith(after):
            said = after
        else:  # only what closes the last turn may be missing
            said = commonprefix([after, text])
            said = said[: said.rfind("<")] if UNENDED.search(said) else said
            is_closed = CLOSING.fullmatch(after[len(said) :]) is not None
            if len(said) <= begin or not is_closed or not self._is_said(number, said[begin:]):
                return None
        end = len(said.rstrip()) if said[begin:].strip() else len(said)
        return _Span(begin, end)

    def _is_said(self, number: int, said: str) -> bool:
        """Whether a turn is said to its end, and closed by a token that is there."""
        message = self._dialogue.messages[number]
        text = message_text(message).strip()
        behind = said[said.rfind(text) + len(text) :].rstrip()
        is_whole = holds_answer(said, message) and holds_reasoning(said, message)
        return is_whole and behind.endswith(">")

    def _begin(self, number: int, after: str) -> int | None:
        """Where a turn's target begins: behind the prompt, thinking or not, that it goes on from.

        A prompt may open a block of thought that the turn does not have; then before that block.
        """
        prompt = ""
        for switches in THINKING:
            asked = {**self._switches, **switches}
            found = self._rendered(self._turns[:number], is_prompt=True, **asked)
            if after.startswith(found):
                return len(found)
            prompt = prompt or found
        opened = OPENED.search(prompt)
        if opened and after.startswith(prompt[: opened.start()]):
            self._unopened.add(number)
            return opened.start()
        return None

    def _keep_reasoning(self) -> None:
        """Finds a way in which the reasoning of all turns stays: the template's, or in its text."""
        self._switches = KEEPS_HISTORY
        if self._keeps_all():
            return
        self._afters.clear()
        messages = self._dialogue.messages
        self._turns = [self._template.prepared(turn, is_inline=True) for turn in messages]
        if not self._keeps_all():
            raise _Unfit("the template leaves out the reasoning of earlier turns, however written")

    def _keeps_all(self) -> bool:
        whole = self._after(self._answers[-1])
        return all(holds_reasoning(whole, message) for message in self._dialogue.messages)

    def _marked_row(self, text: str, spans: Sequence[tuple[int, int]]) -> ChatRow:
        """The row of a template that marks what is generated: those marks are the targets."""
        self._check_held(text, self._answers[-1])
        found = {number: _Span(*span) for number, span in enumerate(spans) if span[0] < span[1]}
        if self._wanted != self._answers:
            if len(spans) != len(self._answers):
                raise _Unfit("the template does not mark each turn as generated by itself")
            wanted = {self._answers.index(number) for number in self._wanted}
            found = {number: span for number, span in found.items() if number in wanted}
        if not found:
            raise _Unfit("the template marks nothing as generated")
        if len(spans) == len(self._answers):
            found = {self._answers[number]: span for number, span in found.items()}
            for number, span in found.items():
                if not holds_answer(text[span.begin : span.end], self._dialogue.messages[number]):
                    raise _Unfit(CUT_SHORT)
        elif self._rules.masks_thinking:
            raise _Unfit("the template does not mark each turn as generated by itself")
        return self._as_row(text, found)

    def _as_row(self, text: str, spans: Mapping[int, _Span]) -> ChatRow:
        pieces: list[ChatPiece] = []
        at = 0
        for number, span in sorted(spans.items(), key=lambda item: item[1].begin):
            begin = (
                self._behind_thought(number, text, span=span) if self._rules.masks_thinking else 0
            )
            begin = max(begin, span.begin)
            pieces.append(ChatPiece(text=text[at:begin], is_target=False))
            pieces.append(ChatPiece(text=text[begin : span.end], is_target=True))
            at = span.end
        if at < len(text):
            pieces.append(ChatPiece(text=text[at:], is_target=False))
        return ChatRow(pieces=tuple(pieces), unopened=len(self._unopened & spans.keys()))

    def _behind_thought(self, number: int, text: str, *, span: _Span) -> int:
        """Where the answer of a turn begins, behind its reasoning and what closes that."""
        reasoning = self._dialogue.messages[number].get("reasoning_content", "").strip()
        at = text.find(reasoning, span.begin, span.end) if reasoning else -1
        if at < 0:
            return span.begin
        closed = THINK_CLOSED.match(text, at + len(reasoning), span.end)
        return closed.end() if closed else at + len(reasoning)
