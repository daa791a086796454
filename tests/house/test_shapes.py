"""Shape letters: each letter that a public signature uses stands in the legend."""

import ast
import re
from pathlib import Path

import pytest

from tests.house.test_limits import MODULES, ROOT, parsed

LEGEND = ROOT / "recipes/facts/shapes.md"
SUFFIX = re.compile(r"[a-z]\w*_([A-Z][A-Za-z0-9]*)|[A-Z]_([A-Z][A-Za-z0-9]*)")
ROW = re.compile(r"\| `(\w)` \| ([^|]+) \| ([^|]+) \|")


def legend() -> dict[str, set[str]]:
    """Folder or file -> its letters; the letters of the folder "" are known everywhere."""
    letters: dict[str, set[str]] = {}
    for letter, _, places in ROW.findall(LEGEND.read_text()):
        for place in places.split(","):
            name = place.strip().strip("`")
            letters.setdefault("" if name == "all files" else name, set()).add(letter)
    return letters


def letters_of(source: str) -> set[str]:
    """The shape letters of public signatures and of the fields of public classes."""
    names: set[str] = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            fields = (one for one in node.body if isinstance(one, ast.AnnAssign))
            names |= {ast.unparse(field.target) for field in fields}
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = node.args
            names |= {
                one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            }
    matches = (SUFFIX.fullmatch(name) for name in names)
    return {one for match in matches if match for one in match[1] or match[2] if one.isalpha()}


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if letters_of(path.read_text())],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_letters_of_a_module_stand_in_the_legend(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    known = {
        one for place, letters in legend().items() if name.startswith(place) for one in letters
    }
    assert letters_of(path.read_text()) <= known, letters_of(path.read_text()) - known


def test_the_legend_names_places_that_exist_and_that_use_the_letter() -> None:
    for place, letters in legend().items():
        assert (ROOT / place).exists(), place
        under = [path for path in MODULES if path.relative_to(ROOT).as_posix().startswith(place)]
        words = {word for path in under for word in re.findall(r"\w+", path.read_text())}
        matches = (SUFFIX.fullmatch(word) for word in words)
        used = {one for match in matches if match for one in match[1] or match[2]}
        assert letters <= used, f"{place}: no name has {letters - used}"


@pytest.mark.parametrize(
    ("source", "letters"),
    [
        ("def f(hidden_BSD: T, *, ids_WQ: T) -> T: ...", set("BSDWQ")),
        ("class C:\n    A_H: T\n    size: int", {"H"}),
        ("def f(owners_G1: T) -> T: ...", {"G"}),
        ("def _f(hidden_BSD: T) -> T: ...", set()),
        ("def f(value: T, path_of: T) -> T: ...", set()),
    ],
)
def test_letters_are_those_of_public_names(source: str, letters: set[str]) -> None:
    assert letters_of(source) == letters
