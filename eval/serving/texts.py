"""Texts of requests to token ids and back: prompts, chats, stop texts, special tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from frontload.data_tools.text.chat import ChatTemplate
from frontload.data_tools.text.messages import Message
from frontload.data_tools.text.render import has_special_token
from frontload.data_tools.text.tokenizer import ANSWER, TextTokenizer
from frontload.recipes.errors import RecipeError

BEFORE = 6  # tokens that are decoded before one, so that its own text is as in the whole
BROKEN = "\N{REPLACEMENT CHARACTER}"  # what a part of a letter decodes to


@dataclass(frozen=True, kw_only=True)
class TokenText:
    """One token's part of a text."""

    added: str  # all of them joined are the text; "" until a letter of several tokens is whole
    shown: str  # in tables of log-probabilities: no two tokens of one place look alike


@dataclass(frozen=True, kw_only=True)
class ServedTexts:
    """The tokenizer and the chat template of a served model."""

    tokenizer: TextTokenizer
    template: ChatTemplate | None
    end_tokens: tuple[int, ...]  # end a response; the first stands before a text without context

    @property
    def skipped(self) -> frozenset[int]:
        """Ids without text under `skip_special_tokens`. The mark before our answers is kept."""
        special = set(self.tokenizer.special_tokens.values())
        return frozenset(special - {ANSWER} if self.tokenizer.is_ours else special)

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        """A prompt as ids; an empty one is the start of a text."""
        return tuple(self.tokenizer.encode(text)) or self.end_tokens[:1]

    def chat_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """A conversation as ids, ready for the assistant's next turn.

        Raises: RecipeError where the template does not write a message, or refuses them.
        """
        if self.template is None:
            raise _chat_error("the model has no chat template", "name one with --template")
        for number, message in enumerate(messages):
            if self.tokenizer.is_ours and has_special_token("".join(message.values())):
                text = f"messages[{number}] spells a special token of the model"
                raise _chat_error(text, "leave it out, or send the text as a completion's prompt")
        try:
            text = self.template.render(messages, is_prompt=True)
        except (jinja2.TemplateError, TypeError) as error:
            raise _chat_error(f"the template refuses them ({error})", "change them") from error
        for number, message in enumerate(messages):
            for part, value in message.items():
                if part != "role" and value.strip() not in text:
                    found = f"the template does not write {part} of messages[{number}]"
                    raise _chat_error(f"{found} (role {message['role']})", "leave it out")
        return tuple(self.tokenizer.encode(text))

    def text(self, tokens: Sequence[int], *, skips_special: bool) -> str:
        """Text of ids."""
        kept = [one for one in tokens if not (skips_special and one in self.skipped)]
        return self.tokenizer.decode(kept)

    def response(
        self, tokens: Sequence[int], *, stop: Sequence[str], skips_special: bool
    ) -> tuple[str, str | None]:
        """What was written, cut before the first stop text, and that text if there was one.

        The ending token is no part of it, as in vLLM.
        """
        if tokens and tokens[-1] in self.end_tokens:
            tokens = tokens[:-1]
        text = self.text(tokens, skips_special=skips_special)
        found = [(text.find(mark), mark) for mark in stop if mark in text]
        if not found:
            return text, None
        place, mark = min(found)
        return text[:place], mark

    def is_end(self, tokens: list[int], *, stop: Sequence[str], skips_special: bool) -> bool:
        """Whether the last token is the ending one, or completes a stop text."""
        if tokens[-1] in self.end_tokens:
            return True
        if not stop:
            return False
        most = max(len(mark.encode()) for mark in stop) + BEFORE
        tail = self.text(tokens[-most:], skips_special=skips_special)
        return any(mark in tail for mark in stop)

    def piece(self, before: Sequence[int], token: int) -> TokenText:
        """The text that a token adds to the text before it."""
        near = list(before[-BEFORE:])
        start = self.tokenizer.decode(near) if near else ""
        whole = self.tokenizer.decode([*near, token])
        added = whole.removeprefix(start.rstrip(BROKEN)).rstrip(BROKEN)
        is_whole = added and not start.endswith(BROKEN) and not whole.endswith(BROKEN)
        return TokenText(added=added, shown=added if is_whole else f"token_id:{token}")


def _chat_error(found: str, do: str) -> RecipeError:
    return RecipeError(
        "messages",
        found=found,
        rule="every message is part of what the model reads, as its chat template writes it",
        do=do,
    )
