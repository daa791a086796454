"""Messages: the last part says what to write, never only that something is to be changed."""

import ast
from pathlib import Path

import pytest

from tests.house.test_limits import MODULES, ROOT, parsed

VACUOUS = {"change it", "change the command", "fix it", "correct it", "check it"}


def last_parts(source: str) -> list[tuple[int, str]]:
    """Line and text of each `do=` that is one plain string."""
    return [
        (keyword.value.lineno, keyword.value.value)
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "do"
        if isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_message_says_what_to_do(path: Path) -> None:
    parts = last_parts(path.read_text())
    assert not [(line, text) for line, text in parts if text.split(",")[0] in VACUOUS]


def test_a_vacuous_one_is_seen() -> None:
    source = 'raise RecipeError("a", found="is 0", rule="it is 1", do="change it")'
    assert last_parts(source) == [(1, "change it")]
