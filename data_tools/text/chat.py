"""A chat template as pieces of text: what a model is given, and what it is trained to say.

A piece is found by rendering the conversation up to a turn, so it holds for any template that
renders earlier turns the same whether or not later ones follow; any other is told, not repaired.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox

import frontload.recipes.schema
from frontload.data_tools.text.messages import ASSISTANT, USER, Message
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError

REWRITES = "the template renders a turn in another way when more turns follow"


@dataclass(frozen=True, kw_only=True)
class ChatPiece:
    """Text of a conversation; a target is what the assistant says, to the end of its turn."""

    text: str
    is_target: bool


class ChatTemplate:
    """A compiled template, with the tokens that it may name."""

    def __init__(self, source: str, *, named_tokens: dict[str, str], name: str) -> None:
        self.name = name
        self.source = source
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )  # as transformers compiles a tokenizer's template, which templates are written for
        environment.globals["raise_exception"] = _raise
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise RecipeError(
                f"chat template {name}",
                found=f"no jinja template ({error})",
                rule="a chat template renders `messages` and `add_generation_prompt`",
                do="mend it, or name another with --template",
            ) from error
        self._named_tokens = named_tokens
        self.has_reasoning = self._renders_reasoning()

    def pieces(self, messages: Sequence[Message]) -> list[ChatPiece] | str:
        """The conversation piece by piece, or the reason why this template cannot say it."""
        turns = messages if self.has_reasoning else [_with_think(turn) for turn in messages]
        try:
            whole = self.render(turns, is_prompt=False)
            return self._cut(whole, turns)
        except jinja2.TemplateError as error:
            return f"the template refuses it: {str(error)[:80]}"

    def text(self, messages: Sequence[Message]) -> str | None:
        """The whole conversation; None where the template refuses it, or leaves a turn out."""
        turns = messages if self.has_reasoning else [_with_think(turn) for turn in messages]
        try:
            whole = self.render(turns, is_prompt=False)
        except jinja2.TemplateError:
            return None
        return whole if all(_holds(whole, turn) for turn in turns) else None

    def prompt(self, messages: Sequence[tuple[str, str]]) -> str | None:
        """What a model is given before it answers (role, text) messages; None if that is not all.

        The template may refuse them, or leave a message out.
        """
        turns: list[Message] = [{"role": role, "content": text} for role, text in messages]
        try:
            text = self.render(turns, is_prompt=True)
        except jinja2.TemplateError:
            return None
        return text if all(_holds(text, turn) for turn in turns) else None

    def _cut(self, whole: str, turns: Sequence[Message]) -> list[ChatPiece] | str:
        pieces: list[ChatPiece] = []
        at = 0
        for number, turn in enumerate(turns):
            if not _holds(whole, turn):
                return f"the template leaves out a turn of role {turn['role']}, or alters it"
            if turn["role"] != ASSISTANT:
                continue
            before = self.render(turns[:number], is_prompt=True)
            is_last = number + 1 == len(turns)
            after = whole if is_last else self.render(turns[: number + 1], is_prompt=False)
            if not whole.startswith(after) or not after.startswith(before):
                return REWRITES
            end = len(after.rstrip()) if after[len(before) :].strip() else len(after)
            pieces.append(ChatPiece(text=whole[at : len(before)], is_target=False))
            pieces.append(ChatPiece(text=whole[len(before) : end], is_target=True))
            at = end
        if at < len(whole):
            pieces.append(ChatPiece(text=whole[at:], is_target=False))
        return pieces

    def render(self, messages: Sequence[Message], *, is_prompt: bool = False) -> str:
        """The text of messages as the template writes it, for an answer to follow or not."""
        return self._template.render(
            messages=messages, add_generation_prompt=is_prompt, **self._named_tokens
        )

    def _renders_reasoning(self) -> bool:
        """Whether `reasoning_content` is part of the text, or has to be written as <think>."""
        turns = [
            {"role": USER, "content": "question"},
            {"role": ASSISTANT, "content": "answer", "reasoning_content": "reasoning of it"},
        ]
        try:
            return "reasoning of it" in self.render(turns, is_prompt=False)
        except jinja2.TemplateError:
            return False


@lru_cache(maxsize=1)
def our_template() -> ChatTemplate:
    """This project's template, which lies in the recipes room."""
    file = Path(frontload.recipes.schema.__file__).with_name("chat.jinja")
    return ChatTemplate(_text(file), named_tokens={}, name=file.name)


def load_template(file: Path | None, tokenizer: TextTokenizer) -> ChatTemplate:
    """The template of --template, else this project's for its tokenizers, else the tokenizer's own.

    Raises: RecipeError when there is none, or it is no template.
    """
    folder = tokenizer.file.parent
    config: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").is_file():
        config = _read_config(folder / "tokenizer_config.json")
    tokens = {
        name: value["content"] if isinstance(value, dict) else value
        for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        if (value := config.get(name)) is not None
    }
    if file is not None:
        if not file.is_file():
            raise RecipeError(
                f"--template {file}",
                found="there is no such file",
                rule="it is a jinja file that renders `messages`",
                do="correct the path, or leave the option out",
            )
        return ChatTemplate(_text(file), named_tokens=tokens, name=file.name)
    if tokenizer.is_ours:
        return our_template()
    if (folder / "chat_template.jinja").is_file():
        source = _text(folder / "chat_template.jinja")
        return ChatTemplate(source, named_tokens=tokens, name="chat_template.jinja")
    if isinstance(config.get("chat_template"), str):
        source = config["chat_template"]
        return ChatTemplate(source, named_tokens=tokens, name="tokenizer_config.json")
    raise RecipeError(
        f"--tokenizer {tokenizer.file}",
        found="neither this project's special tokens nor a chat template beside it",
        rule="conversations are rendered by a chat template",
        do="name one with --template FILE.jinja",
    )


def _with_think(turn: Message) -> Message:
    if "reasoning_content" not in turn:
        return turn
    content = f"<think>\n{turn['reasoning_content'].strip()}\n</think>\n\n{turn['content']}"
    return {"role": turn["role"], "content": content}


def _holds(whole: str, turn: Message) -> bool:
    return all(turn.get(part, "").strip() in whole for part in ("content", "reasoning_content"))


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return json.loads(_text(file))
    except ValueError as error:
        raise RecipeError(
            f"reading {file}",
            found=f"not JSON ({error})",
            rule="it is the configuration that a tokenizer was saved with",
            do="save the tokenizer again, or name its tokenizer.json in a folder of its own",
        ) from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"reading {file}",
            found=f"no UTF-8 at byte {error.start}",
            rule="templates and configurations are text",
            do="save it as UTF-8",
        ) from error
