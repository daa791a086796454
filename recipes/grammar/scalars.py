"""What one written value may mean, by the type the recipe declares. Stricter than YAML 1.1.

YAML 1.1 reads 3e-4 as text, 1:30 as 90, 0777 as 511 and `on` as true; none of that happens here.
"""

import re
from fractions import Fraction
from math import isfinite
from typing import Any

MOST = 2**63 - 1  # what arrays of tokens, their files and seeds can count to
LONGEST = 20  # digits of it, and a sign

_INTEGER = re.compile(r"[+-]?(0|[1-9](_?[0-9])*)")
_DECIMAL = re.compile(r"[+-]?(0|[1-9](_?[0-9])*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_EXACT = re.compile(r"(0|[1-9](_?[0-9])*)(\.[0-9]+|/[1-9](_?[0-9])*)?")

Refusal = tuple[str, str, str]
"""Found, rule, do: the last three parts of the message."""


def describe(value: Any, is_quoted: bool = False) -> str:
    """A value in words, for messages."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"the text '{value}'" if is_quoted else f"`{value}`"


def convert_scalar(text: str, kind: type, *, tag: str, is_quoted: bool) -> Any:
    """The value of `text` as `kind`, or a Refusal: never a guess."""
    found = f"is {describe(text, is_quoted)}"
    if kind is str:
        if is_quoted or tag == "str":
            return text
        return found, f"it must be text, and YAML reads this as {tag}", f'write "{text}" in quotes'
    if is_quoted:
        return found, f"it must be a {_NAMES[kind]}, not text in quotes", "remove the quotes"
    return _CONVERT[kind](text, found)


def _to_bool(text: str, found: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return found, "a yes/no value is written true or false, nothing else", "write true or false"


def _to_int(text: str, found: str) -> Any:
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        if len(digits) > LONGEST or abs(int(digits)) > MOST:
            return found, f"a whole number has 64 bits: at most {MOST:_}", "write a smaller one"
        return int(digits)
    do = "write digits, with _ between groups if you like"
    if _DECIMAL.fullmatch(text) and float(text.replace("_", "")).is_integer():
        do = f"write {int(float(text.replace('_', ''))):_}"
    return found, "it must be a whole number in plain digits", do


def _to_float(text: str, found: str) -> Any:
    if _DECIMAL.fullmatch(text) and isfinite(number := float(text.replace("_", ""))):
        return number
    return found, "it must be a finite decimal number", "write e.g. 0.05 or 3.0e-4"


def _to_fraction(text: str, found: str) -> Any:
    if _EXACT.fullmatch(text):
        return Fraction(text.replace("_", ""))
    return found, "it must be an exact number, a decimal or a ratio", "write e.g. 4/5 or 0.8"


_NAMES = {bool: "true/false value", int: "whole number", float: "number", Fraction: "exact number"}
_CONVERT = {bool: _to_bool, int: _to_int, float: _to_float, Fraction: _to_fraction}
