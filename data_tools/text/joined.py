"""The text of several fields of a row, or of one below others, by a template of their names."""

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from frontload.data_tools.raw.parse import RejectReason, lines_hint, nearest_name, text_or_reason
from frontload.recipes.errors import RecipeError

ESCAPES = {r"\n": "\n", r"\t": "\t"}  # as a shell leaves them


@dataclass(frozen=True, slots=True)
class TemplatePiece:
    """Words of a template, and the field behind them; `between` joins a list of texts."""

    words: str
    field: str
    between: str


def is_joined(key: str) -> bool:
    """Whether a --json-key is more than the name of one field."""
    return "{" in key or "." in key


def fields_hint(row: str, key: str) -> str:
    """What the beginning of a bad row shows of its fields, where the key may be misspelt."""
    names = [part for part in row.split('"')[1::2] if part.isidentifier()]
    if is_joined(key):
        return f" (fields of it: {', '.join(names[:8]) or 'none'})"
    return "" if key in names else nearest_name(key, names)


def way_out(reasons: Iterable[str], examples: Sequence[str]) -> str:
    """What else to do about rows dropped for these reasons; `examples` are their bytes in hex."""
    if RejectReason.WRONG_TYPE in reasons:
        return "; --json-key '{FIELD: }' joins a list of texts"
    return lines_hint(bytes.fromhex(examples[0]).decode("utf-8", "replace")) if examples else ""


def parse_key(key: str) -> tuple[TemplatePiece, ...]:
    """The pieces of `a.b`, or of a template such as `{question}\\n{meta.answer}` or `{texts: }`.

    Raises: RecipeError when it is none.
    """
    if "{" not in key:
        return (TemplatePiece("", key, ""),)
    try:
        found = list(string.Formatter().parse(key))
    except ValueError as error:
        raise _refusal(key, str(error)) from error
    pieces = []
    for words, field, between, conversion in found:
        if conversion or (field is not None and (not field or "[" in field)):
            raise _refusal(key, f"{{{field}}}" if field else "a field without a name")
        pieces.append(TemplatePiece(_unescaped(words), field or "", _unescaped(between or "")))
    if not any(piece.field for piece in pieces):
        raise _refusal(key, "no field")
    return tuple(pieces)


def _unescaped(words: str) -> str:
    for written, meant in ESCAPES.items():
        words = words.replace(written, meant)
    return words


def _refusal(key: str, found: str) -> RecipeError:
    return RecipeError(
        f"--json-key {key}",
        found=found,
        rule="a template has fields in braces: {a} or {a.b}, {a: } for a list joined by a space",
        do="write for example '{question}\\n{answer}'",
    )


class JoinedText:
    """What `parse_key` says of rows. A field whose whole name has a dot is taken by that name."""

    def __init__(self, key: str) -> None:
        self._pieces = parse_key(key)
        names = [piece.field for piece in self._pieces if piece.field]
        has_dots = any("." in name for name in names)
        self.columns = None if has_dots else tuple(dict.fromkeys(names))

    def look_again(self, row: dict[str, Any]) -> str | RejectReason:
        """The text, or why there is none."""
        parts: list[str] = []
        for piece in self._pieces:
            parts.append(piece.words)
            if not piece.field:
                continue
            text = _text(_value(row, piece.field), between=piece.between)
            if isinstance(text, RejectReason):
                return text
            parts.append(text)
        joined = "".join(parts)
        return RejectReason.EMPTY if not joined or joined.isspace() else joined

    take = look_again

    def cell(self, row: dict[str, Any]) -> object:
        """What is shown of a table's row that has no text."""
        return row


def _value(row: dict[str, Any], name: str) -> object:
    """What a field holds, by its whole name or through the fields above it."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return RejectReason.MISSING_KEY
        value = value[part]
    return value


def _text(value: object, *, between: str) -> str | RejectReason:
    if isinstance(value, list) and between:
        texts = [text_or_reason(one) for one in value]
        wrong = next((one for one in texts if isinstance(one, RejectReason)), None)
        return between.join(texts) if wrong is None else wrong
    return value if isinstance(value, RejectReason) else text_or_reason(value)
