"""What is encoded of a row: one field, or a conversation as a chat template writes it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from frontload.data_tools.raw.parse import RejectReason, take_text
from frontload.data_tools.text.chat import ChatTemplate, load_template
from frontload.data_tools.text.joined import JoinedText, is_joined
from frontload.data_tools.text.messages import Misfit, read_dialogue
from frontload.data_tools.text.tokenizer import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class TextRule:
    """Where the text of a row is: plain values, which a worker process is handed."""

    key: str  # the field that holds it, or a template of several
    chat: Path | None = None  # instead: the tokenizer whose chat template writes conversations
    day: date | None = None  # that the template writes
    end: str = ""  # the token that ends a document, where documents are given one


class FieldText:
    """The text of one field. `take` is the quick way: no text, or an error, is looked at again."""

    def __init__(self, name: str) -> None:
        self.take: Callable[[Any], Any] = itemgetter(name)
        self.columns: tuple[str, ...] | None = (name,)
        self._name = name

    def look_again(self, row: dict[str, Any]) -> str | RejectReason:
        """The text, or why there is none."""
        return take_text(row, self._name)

    def cell(self, row: dict[str, Any]) -> object:
        """What is shown of a table's row that has no text."""
        return row[self._name]


class ChatText:
    """A conversation as its template writes it, or the text of a row that is none.

    The end of its last turn is left out where documents are given an end, as every end takes the
    space before it.
    """

    def __init__(self, template: ChatTemplate, special: tuple[str, ...], *, end: str) -> None:
        self.columns = None  # all of them: a row is a conversation by what fields it has
        self.template, self._end = template, end
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")

    def take(self, row: dict[str, Any]) -> str | RejectReason:
        """The text, or why there is none."""
        if row.get("text") is not None and row.get("messages") is None:
            text = take_text(row, "text")
            if isinstance(text, RejectReason):
                return text
            if self._special.search(text):
                return RejectReason.SPECIAL_TOKEN
            return text.rstrip() if self._end else text
        dialogue = read_dialogue(row)
        if isinstance(dialogue, Misfit):
            return RejectReason.NO_CONVERSATION
        if any(map(self._special.search, dialogue.strings())):
            return RejectReason.SPECIAL_TOKEN
        text = self.template.text(dialogue)
        if text is None:
            return RejectReason.NO_CONVERSATION
        return text.rstrip().removesuffix(self._end).rstrip() if self._end else text

    look_again = take

    def cell(self, row: dict[str, Any]) -> object:
        """What is shown of a table's row that has no text."""
        return row


RowText = FieldText | JoinedText | ChatText


@lru_cache(maxsize=2)
def row_text(rule: TextRule) -> RowText:
    """What a rule takes of rows; made once a process.

    Raises: RecipeError when the tokenizer has no chat template, or the key is no template.
    """
    if rule.chat is None:
        return JoinedText(rule.key) if is_joined(rule.key) else FieldText(rule.key)
    loaded = TextTokenizer.load(rule.chat)
    return ChatText(
        load_template(None, loaded, day=rule.day), tuple(loaded.special_tokens), end=rule.end
    )
