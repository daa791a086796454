"""What a raw row is, good or bad, and how a JSONL line becomes one."""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from frontload.data_tools.raw.lines import HEAD_BYTES

MAX_ROW_BYTES = 16 << 20  # ours: a long book is 5 MB; bounds what a worker holds
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class RejectReason(StrEnum):
    """Why a row is not used."""

    BROKEN_JSON = "broken JSON"
    NOT_AN_OBJECT = "not an object"
    MISSING_KEY = "missing key"
    NULL_VALUE = "null value"
    WRONG_TYPE = "wrong type"
    INVALID_UTF8 = "invalid UTF-8"
    LONE_SURROGATE = "lone surrogate"
    OVER_SIZE = "over size"
    EMPTY = "empty text"
    SPECIAL_TOKEN = "spells a special token"
    NO_TOKEN = "gives no token"
    NO_CONVERSATION = "no conversation that the chat template writes"


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row: its number in the file, from 1 (line number or row of the table), and fields."""

    file: Path
    number: int
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used; `raw` is its bytes, of an over-size one only the beginning."""

    file: Path
    number: int
    reason: RejectReason
    raw: bytes
    num_bytes: int


def parse_line(line: bytes, *, is_first: bool = False) -> dict[str, Any] | RejectReason | None:
    """The object of one JSONL line, the reason why it is none, or None for a blank line.

    NaN and Infinity, which Python's json writes, are read; a byte order mark before the first line
    is left out.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _parse_slowly(line, is_first=is_first)
    return value if isinstance(value, dict) else RejectReason.NOT_AN_OBJECT


def _parse_slowly(line: bytes, *, is_first: bool) -> dict[str, Any] | RejectReason | None:
    """What orjson refuses: looked at again, to name the reason or to read what Python reads."""
    if is_first:
        line = line.removeprefix(BYTE_ORDER_MARK)
    if not line.strip():  # of bytes: what text calls blank besides, such as 0x1c, is no JSON
        return None
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return RejectReason.INVALID_UTF8
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return RejectReason.BROKEN_JSON
    if not isinstance(value, dict):
        return RejectReason.NOT_AN_OBJECT
    return RejectReason.LONE_SURROGATE if has_lone_surrogate(value) else value


def has_lone_surrogate(value: object) -> bool:
    """Whether a string anywhere in a JSON value is no text, half of a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def take_text(row: dict[str, Any], key: str) -> str | RejectReason:
    """The text in one field of a row, or why there is none."""
    text = text_or_reason(row[key]) if key in row else RejectReason.MISSING_KEY
    if isinstance(text, RejectReason):
        return text
    return RejectReason.EMPTY if not text or text.isspace() else text


def text_or_reason(value: object) -> str | RejectReason:
    """A value that is text, or why it is none; a table's bytes are text where they are UTF-8."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return RejectReason.INVALID_UTF8
    return RejectReason.NULL_VALUE if value is None else RejectReason.WRONG_TYPE


def lines_hint(first: str) -> str:
    """What to do where the first bad row shows JSON that is no row a line; else nothing."""
    line = first.lstrip("\ufeff").strip()
    if line == "[" or (line[:1] == "[" and line[1:].lstrip()[:1] == "{"):
        return "; the file is one JSON array: write a row a line, for example with jq -c '.[]'"
    if line == "{":
        return "; its objects take several lines: write a row a line, for example with jq -c ."
    return ""


def nearest_name(name: str, names: Iterable[str]) -> str:
    """' (nearest: X)' when one of `names` looks like `name`, else ''."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f" (nearest: {close[0]!r})" if close else ""


def shown_bytes(value: object) -> bytes:
    """Bytes to show of a table's row that cannot be used."""
    if isinstance(value, bytes):
        return value
    return repr(value).encode("utf-8", "backslashreplace")[:HEAD_BYTES]
