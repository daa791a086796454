"""A chat template, with the tokens that it may name: conversations as models read them."""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import frontload.recipes.schema
from frontload.data_tools.text.messages import (
    ASSISTANT,
    REASONING,
    USER,
    Dialogue,
    Message,
    called_name,
    message_text,
)
from frontload.data_tools.text.template import FAULTS, CompiledTemplate, MarkedText
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError

NAMED_TOKENS = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
ARGUMENTS = {"of": "it"}
ANY_DAY = date(2026, 1, 1)
"""For who counts tokens, or shows a row: a day as long as others."""
_QUESTION: Message = {"role": USER, "content": "question"}
_TEXT_AND_PARTS = ("what is asked", [{"type": "text", "text": "what is asked"}])


class ChatTemplate:
    """A compiled template, with the tokens that it may name, and what it makes of messages."""

    def __init__(
        self, source: str, *, named_tokens: dict[str, str], name: str, day: date | None = None
    ) -> None:
        self.name = name
        self.source = source
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        self._template = CompiledTemplate(source, name=name, day=day)
        self._named_tokens = named_tokens
        self.reasoning_field = self._field_of_reasoning()
        self._takes_text, self._takes_parts = map(self._shows, _TEXT_AND_PARTS)
        self._writes_text = not any(self._shows_call(said, ARGUMENTS) for said in (None, ""))
        self._takes_null = self._shows_call(None, "{}" if self._writes_text else ARGUMENTS)

    @property
    def has_reasoning(self) -> bool:
        """Whether it has a field for reasoning; else that is written as <think>."""
        return bool(self.reasoning_field)

    def text(self, dialogue: Dialogue) -> str | None:
        """The whole conversation; None where the template refuses it, or leaves a turn out."""
        turns = [self.prepared(turn) for turn in dialogue.messages]
        try:
            whole = self.rendered(turns, tools=dialogue.tools).text
        except FAULTS:
            return None
        is_whole = names_all(whole, dialogue.tools) and all(
            holds_answer(whole, turn) and holds_reasoning(whole, turn) for turn in dialogue.messages
        )
        return whole if is_whole else None

    def prompt(self, messages: Sequence[tuple[str, str]]) -> str | None:
        """What a model is given before it answers (role, text) messages; None if that is not all.

        The template may refuse them, or leave a message out.
        """
        turns: list[Message] = [{"role": role, "content": text} for role, text in messages]
        try:
            text = self.render([self.prepared(turn) for turn in turns], is_prompt=True)
        except FAULTS:
            return None
        return text if all(holds_answer(text, turn) for turn in turns) else None

    def render(self, messages: Sequence[Message], *, is_prompt: bool = False) -> str:
        """The text of messages as the template writes it, for an answer to follow or not."""
        return self.rendered(messages, is_prompt=is_prompt).text

    def rendered(
        self,
        messages: Sequence[Message],
        *,
        is_prompt: bool = False,
        tools: Sequence[dict[str, Any]] = (),
        **switches: object,
    ) -> MarkedText:
        """The same with tools and switches of the template, and what it marks as generated."""
        variables = {**self._named_tokens, **switches}
        return self._template.render(
            messages, tools=tools, is_prompt=is_prompt, variables=variables
        )

    @property
    def has_generation(self) -> bool:
        """Whether it marks what is generated."""
        return self._template.has_generation

    def prepared(self, turn: Message, *, is_inline: bool = False) -> Message:
        """A turn in the form that this template reads: names of fields, parts or text."""
        turn = dict(turn)
        reasoning = turn.pop("reasoning_content", "")
        if reasoning and (is_inline or not self.reasoning_field):
            turn["content"] = f"<think>\n{reasoning.strip()}\n</think>\n\n{message_text(turn)}"
        elif reasoning:
            turn[self.reasoning_field] = reasoning
        if calls := turn.get("tool_calls"):
            turn["tool_calls"] = [
                _with_arguments(call, as_text=self._writes_text) for call in calls
            ]
        content = turn["content"]
        if content is None and not self._takes_null:
            content = ""
        if isinstance(content, list) and not self._takes_parts:
            content = message_text(turn)
        elif isinstance(content, str) and self._takes_parts and not self._takes_text:
            content = [{"type": "text", "text": content}] if content else []
        turn["content"] = content
        return turn

    def _field_of_reasoning(self) -> str:
        for name in REASONING:
            answer = {"role": ASSISTANT, "content": "answer", name: "reasoning of it"}
            if "reasoning of it" in self._tried([_QUESTION, answer]):
                return name
        return ""

    def _shows(self, content: object) -> bool:
        shown = self._tried([{"role": USER, "content": content}])
        return "what is asked" in shown and "'type'" not in shown

    def _shows_call(self, content: str | None, arguments: object) -> bool:
        call = {"type": "function", "function": {"name": "look_up", "arguments": arguments}}
        turn = {"role": ASSISTANT, "content": content, "tool_calls": [call]}
        shown = self._tried([_QUESTION, turn])
        return "look_up" in shown and "None" not in shown

    def _tried(self, messages: list[Message]) -> str:
        try:
            return self.render(messages)
        except FAULTS:
            return ""


@lru_cache(maxsize=1)
def our_template() -> ChatTemplate:
    """This project's template, which lies in the recipes room."""
    file = Path(frontload.recipes.schema.__file__).with_name("chat.jinja")
    return ChatTemplate(_text(file), named_tokens={}, name=file.name)


def load_template(
    file: Path | None, tokenizer: TextTokenizer, *, day: date | None = None
) -> ChatTemplate:
    """The template of --template, else this project's for its tokenizers, else the tokenizer's own.

    Raises: RecipeError when there is none, or it is no template.
    """
    folder = tokenizer.file.parent
    config: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").is_file():
        config = _read_config(folder / "tokenizer_config.json")
    tokens = {
        name: value["content"] if isinstance(value, dict) else value
        for name in (f"{kind}_token" for kind in NAMED_TOKENS)
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
        return ChatTemplate(_text(file), named_tokens=tokens, day=day, name=file.name)
    if tokenizer.is_ours:
        return our_template()
    if (folder / "chat_template.jinja").is_file():
        source = _text(folder / "chat_template.jinja")
        return ChatTemplate(source, named_tokens=tokens, day=day, name="chat_template.jinja")
    if source := _default_of(config.get("chat_template")):
        return ChatTemplate(source, named_tokens=tokens, day=day, name="tokenizer_config.json")
    raise RecipeError(
        f"--tokenizer {tokenizer.file}",
        found="neither this project's special tokens nor a chat template beside it",
        rule="conversations are rendered by a chat template",
        do="name one with --template FILE.jinja",
    )


def holds_answer(whole: str, message: Message) -> bool:
    """Whether a text holds what a message says, and the names of the tools that it calls."""
    content = message["content"]
    texts = [part["text"] for part in content] if isinstance(content, list) else [content or ""]
    is_said = all(text.strip() in whole for text in texts)
    return is_said and names_all(whole, message.get("tool_calls", ()))


def holds_reasoning(whole: str, message: Message) -> bool:
    """Whether a text holds the reasoning of a message, where it has some."""
    return message.get("reasoning_content", "").strip() in whole


def names_all(whole: str, tools: Sequence[dict[str, Any]]) -> bool:
    """Whether a text holds the name of each tool, or of each that is called."""
    return all(called_name(tool) in whole for tool in tools)


def _with_arguments(call: dict[str, Any], *, as_text: bool) -> dict[str, Any]:
    """A call whose arguments are an object, as servers hand them to templates, or JSON text."""
    function = call.get("function", call)
    found = function.get("arguments")
    try:
        if as_text and isinstance(found, dict):
            found = json.dumps(found, ensure_ascii=False)
        elif isinstance(found, str) and not as_text and isinstance(read := json.loads(found), dict):
            found = read
    except ValueError:
        pass  # no JSON: the template has what there is
    changed = {**function, "arguments": found}
    return {**call, "function": changed} if "function" in call else changed


def _default_of(templates: object) -> str:
    """The template of a configuration: one text, or of several by name the default."""
    if isinstance(templates, list):
        named = (one for one in templates if isinstance(one, dict) and one.get("name") == "default")
        templates = next(named, {}).get("template")
    return templates if isinstance(templates, str) else ""


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
