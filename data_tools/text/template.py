"""Chat templates as `transformers` compiles them: its tags, filters and functions, in a sandbox.

The day that a template writes is stated, never today's: the same rows give the same bytes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from frontload.recipes.errors import RecipeError

BEGIN, END = "\ufdd0", "\ufdd1"  # noncharacters, which no text holds
FAULTS = (
    *(jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError),
    *(ArithmeticError, RecursionError),
)
"""What the code of a template may raise about a conversation."""


@dataclass(frozen=True, kw_only=True)
class MarkedText:
    """The text of a conversation; `spans` are what its template marks with `generation`."""

    text: str
    spans: tuple[tuple[int, int], ...]


class CompiledTemplate:
    """One template; `render` is all that is done with it."""

    def __init__(self, source: str, *, name: str, day: date | None) -> None:
        self._name, self._day = name, day
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = self._written_day
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise RecipeError(
                f"chat template {name}",
                found=f"no jinja template ({error})",
                rule="a chat template renders `messages` and `add_generation_prompt`",
                do="mend it, or name another with --template",
            ) from error
        self.has_generation = re.search(r"\{%-?\s*generation\s*-?%\}", source) is not None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[dict[str, Any]] = (),
        is_prompt: bool = False,
        variables: Mapping[str, Any],
    ) -> MarkedText:
        """The text of messages, for an answer to follow or not.

        Raises: one of FAULTS for what the template refuses; RecipeError for a day not stated.
        """
        text = self._template.render(
            messages=list(messages),
            tools=list(tools) or None,
            documents=None,
            add_generation_prompt=is_prompt,
            **variables,
        )
        if BEGIN not in text and END not in text:
            return MarkedText(text=text, spans=())
        return _without_marks(text)

    def _written_day(self, form: str) -> str:
        if self._day is None:
            raise RecipeError(
                f"chat template {self._name}",
                found="it writes the day, and none is stated",
                rule="the same rows give the same bytes, on whatever day they are packed",
                do="state the day that the text is to name, for example --date 2026-01-31",
            )
        return datetime.combine(self._day, time()).strftime(form)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`: what the model says. Its text is marked, and the marks are taken out."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{BEGIN}{caller()}{END}"


def parse_day(text: str) -> date:
    """The day that a template is to write.

    Raises: RecipeError.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise RecipeError(
            f"--date {text}",
            found="no day",
            rule="it is year, month and day",
            do="write for example 2026-01-31",
        ) from error


def _without_marks(text: str) -> MarkedText:
    spans: list[tuple[int, int]] = []
    plain, size = [], 0
    for number, piece in enumerate(re.split(f"[{BEGIN}{END}]", text)):
        plain.append(piece)
        if number % 2:
            spans.append((size, size + len(piece)))
        size += len(piece)
    if re.sub(f"[^{BEGIN}{END}]", "", text) != (BEGIN + END) * len(spans):
        raise jinja2.TemplateError("generation blocks inside each other, or U+FDD0 in the text")
    return MarkedText(text="".join(plain), spans=tuple(spans))


def _to_json(value: object, ensure_ascii: bool = False, **options: Any) -> str:
    """As transformers': letters as they are, no escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
