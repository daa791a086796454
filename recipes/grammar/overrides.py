"""Overrides of the command line: dotted paths into a recipe, each set once."""

from collections.abc import Sequence
from dataclasses import dataclass

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.scalars import describe
from frontload.recipes.grammar.tree import COMMAND_LINE, Tree, parse


@dataclass(frozen=True, kw_only=True)
class Override:
    """`a.b.c=value`, read."""

    path: str
    value: Tree


def read_overrides(texts: Sequence[str]) -> list[Override]:
    """Reads the overrides in the order they were written.

    Raises: RecipeError for what is no override, and for one that would undo another.
    """
    found: list[Override] = []
    for text in texts:
        one = _read(text)
        for earlier in found:
            if earlier.path == one.path or earlier.path.startswith(f"{one.path}."):
                raise RecipeError(
                    f"{COMMAND_LINE}: {text}",
                    found="set twice" if earlier.path == one.path else f"undoes {earlier.path}",
                    rule="an override sets what no earlier one has set",
                    do="leave one of the two out"
                    if earlier.path == one.path
                    else f"write it before {earlier.path}, or leave one of the two out",
                )
        found.append(one)
    return found


def set_override(tree: Tree, override: Override) -> Tree:
    """Sets one value of a recipe; unknown paths are found by the conversion."""
    return _set(tree, override.path.split("."), override.value, asked=override.path)


def _read(text: str) -> Override:
    path, equals, raw = text.partition("=")
    if not equals or not path or not all(path.split(".")):
        raise RecipeError(
            f"{COMMAND_LINE}: {text}",
            found="no `path=value`",
            rule="an override is a dotted path into the study, an equals sign and a value",
            do="write e.g. `sft.learning_rate=1.0e-5`",
        )
    if not raw.strip():
        raise RecipeError(
            f"{COMMAND_LINE}: {path}",
            found="no value after the equals sign",
            rule="an override sets one value",
            do=f"write it, e.g. {path}=null or {path}=[]",
        )
    value = parse(raw, lambda _mark: COMMAND_LINE, whole=COMMAND_LINE, asked=path)
    return Override(path=path, value=value)


def _set(tree: Tree, parts: list[str], value: Tree, *, asked: str) -> Tree:
    if not isinstance(tree.value, dict):
        raise RecipeError(
            f"{COMMAND_LINE}: {asked}",
            found=f"'{parts[0]}' is asked of {describe(tree.value, tree.is_quoted)} ({tree.place})",
            rule="a dotted path goes through mappings",
            do="set the whole value instead",
        )
    entries = dict(tree.value)
    if len(parts) == 1:
        entries[parts[0]] = value
    else:
        below = entries.get(parts[0], Tree(value={}, place=COMMAND_LINE))
        entries[parts[0]] = _set(below, parts[1:], value, asked=asked)
    return Tree(value=entries, place=tree.place)
