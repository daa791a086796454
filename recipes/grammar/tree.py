"""YAML text to trees: every value with the place it was written, nothing converted yet."""

import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from frontload.recipes.errors import RecipeError

COMMAND_LINE = "command line"
MOST_LEVELS = 30  # ours: values inside values; a recipe has 6
MOST_VALUES = 100_000  # ours: with what aliases repeat; the longest recipe has some hundreds
STANDARD_TAG = "tag:yaml.org,2002:"  # what `!!` stands for


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A YAML value before conversion, with the place it was written."""

    value: "str | list[Tree] | dict[str, Tree]"
    place: str  # "file:line" or "command line"
    tag: str = ""  # what YAML 1.1 would make of a scalar: "str", "int", "float", "bool", "null"
    is_quoted: bool = False
    is_file: bool = False  # the content of a file that was named: whole, so nothing is below it


class _Tagged(Exception):
    """A value with a YAML tag, and where."""

    def __init__(self, tag: str, mark: yaml.Mark) -> None:
        super().__init__(tag)
        self.tag = tag
        self.mark = mark


class _TooDeep(Exception):
    """A value inside too many others, and where."""

    def __init__(self, mark: yaml.Mark) -> None:
        super().__init__(mark)
        self.mark = mark


class _UntaggedLoader(yaml.SafeLoader):
    """Composes a text without tags: none would be obeyed, since the recipe declares the types."""

    levels = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node.

        Raises: _Tagged for one with a tag of its own, _TooDeep for one below too many others.
        """
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _Tagged(tag, event.start_mark)
        if self.levels > MOST_LEVELS:
            raise _TooDeep(event.start_mark)
        self.levels += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.levels -= 1


def shown(path: Path) -> str:
    """A path as people write it: relative to the current folder where that is shorter."""
    path = path.resolve()
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def compose(path: Path) -> Tree:
    """Reads one YAML file.

    Raises: RecipeError with the line for what is not YAML, or says a key twice.
    """
    file = shown(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise RecipeError(
            file,
            found=f"cannot be read ({reason})",
            rule="a recipe is a UTF-8 YAML file",
            do="check the path",
        ) from error
    return parse(text, lambda mark: f"{file}:{mark.line + 1}", whole=f"{file}:1")


def parse(text: str, place_of: Any, *, whole: str, asked: str = "") -> Tree:
    """The tree of a YAML text; `asked` is the path of an override, which a message names."""
    try:
        node = yaml.compose(text, Loader=_UntaggedLoader)
    except _Tagged as error:
        place = place_of(error.mark)
        raise RecipeError(
            f"{place}: {asked}" if asked else place,
            found=f"the tag {error.tag.replace(STANDARD_TAG, '!!')}",
            rule="the recipe declares the type of every value, so a tag would be ignored",
            do="remove the tag; write text in quotes",
        ) from error
    except _TooDeep as error:
        place = place_of(error.mark)
        raise RecipeError(
            f"{place}: {asked}" if asked else place,
            found=f"a value inside {MOST_LEVELS} others",
            rule=f"values lie at most {MOST_LEVELS} levels deep",
            do="write it flat: no key of a recipe is that deep",
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = place_of(mark) if mark else whole
        raise RecipeError(
            f"{place}: {asked}" if asked else place,
            found=str(getattr(error, "problem", None) or getattr(error, "reason", error)),
            rule="the text must be YAML",
            do="check indentation, quotes and colons near this line",
        ) from error
    if node is None:
        return Tree(value={}, place=whole)
    _check_size(node, place_of)
    return _tree(node, place_of(node.start_mark), place_of)


def _check_size(node: yaml.Node, place_of: Any) -> None:
    """Refuses a text of few lines whose aliases stand for more values than can be read."""
    sizes: dict[yaml.Node, int] = {}
    if _size(node, sizes) <= MOST_VALUES:
        return
    while larger := [child for child in _below(node) if sizes.get(child, 0) > MOST_VALUES]:
        node = larger[0]
    raise RecipeError(
        place_of(node.start_mark),
        found=f"aliases that stand for {sizes[node]:,} values",
        rule=f"a recipe has at most {MOST_VALUES:,} values, with all that its aliases repeat",
        do="write the values out instead of `*name`",
    )


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Values of a node, counted as often as they are named; a loop, refused elsewhere, counts 0."""
    if node not in sizes:
        sizes[node] = 0
        sizes[node] = 1 + sum(_size(child, sizes) for child in _below(node))
    return sizes[node]


def _below(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return []


def _tree(node: yaml.Node, place: str, place_of: Any, *, above: tuple[yaml.Node, ...] = ()) -> Tree:
    if node in above:
        raise RecipeError(
            place,
            found="an alias of a value that holds this one",
            rule="a value does not hold itself",
            do="write the value out instead of `*name`",
        )
    above = (*above, node)
    if isinstance(node, yaml.ScalarNode):
        tag = node.tag.rsplit(":", 1)[-1]
        return Tree(
            value=node.value, place=place, tag=tag, is_quoted=node.style in ("'", '"', "|", ">")
        )
    if isinstance(node, yaml.SequenceNode):
        items = [
            _tree(item, place_of(item.start_mark), place_of, above=above) for item in node.value
        ]
        return Tree(value=items, place=place)
    entries: dict[str, Tree] = {}
    for key_node, value_node in typing.cast(yaml.MappingNode, node).value:
        where, key = place_of(key_node.start_mark), key_node.value
        if not isinstance(key, str):
            raise RecipeError(
                where,
                found="a key that is a list or a mapping",
                rule="a key is one word",
                do="write `key: value` lines",
            )
        if key in entries:
            raise RecipeError(
                f"{where}: {key}",
                found=f"set twice, first at {entries[key].place}",
                rule="a key is set once in a mapping",
                do="remove one of the two lines",
            )
        entries[key] = _tree(value_node, where, place_of, above=above)
    return Tree(value=entries, place=place)
