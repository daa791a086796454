"""YAML to typed recipes: one `extends` parent, conversion by declared type, errors with places.

No environment reading. The grammar of values is stated in `frontload.recipes.grammar.scalars`.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.overrides import read_overrides, set_override
from frontload.recipes.grammar.scalars import convert_scalar, describe
from frontload.recipes.grammar.tree import COMMAND_LINE, Tree, compose

RECIPES = Path(__file__).resolve().parents[1]
"""The recipes that ship with the project: models, placements, studies."""

PARENT_FOLDERS = (
    "studies",
    "allocations",
    "training",
    "placements",
    "curations",
    "blends",
    "suites",
)
"""Where a parent is looked for that is not beside its child."""

SHOWN_NAMES = 12  # of a list of valid names in a message


@dataclass(frozen=True, kw_only=True)
class Loaded[T]:
    """A recipe and where each of its values was written."""

    value: T
    places: Mapping[str, str]

    def refuse(self, path: str, *, found: str, rule: str, do: str) -> RecipeError:
        """The error about the value at `path`, naming the file and line that set it."""
        return RecipeError(f"{self._place(path)}: {path}", found=found, rule=rule, do=do)

    def section[S](self, path: str, value: S) -> "Loaded[S]":
        """A part of the recipe by itself, for a check that knows no more."""
        below = {
            place.removeprefix(path).removeprefix("."): where
            for place, where in self.places.items()
            if place == path or place.startswith(f"{path}.")
        }
        return Section(value=value, places=below or {"": self._place(path)}, path=path)

    def refuse_at(self, path: str, error: RecipeError) -> RecipeError:
        """An error of who knew no file, said of the value at `path`."""
        return self.refuse(path, found=error.found, rule=error.rule, do=error.do)

    def _place(self, path: str) -> str:
        below = (place for name, place in self.places.items() if name.startswith(f"{path}."))
        if COMMAND_LINE in below:
            return COMMAND_LINE
        parts = path.split(".")
        for length in range(len(parts), 0, -1):
            place = self.places.get(".".join(parts[:length]))
            if place is not None:
                return place
        return self.places[""]


@dataclass(frozen=True, kw_only=True)
class Section[T](Loaded[T]):
    """A part of a recipe; its messages name the whole path."""

    path: str

    def refuse(self, path: str, *, found: str, rule: str, do: str) -> RecipeError:
        """As of the whole recipe."""
        full = f"{self.path}.{path}" if path else self.path
        return RecipeError(f"{self._place(path)}: {full}", found=found, rule=rule, do=do)


def nearest(name: str, names: Sequence[str]) -> str:
    """The closest of `names` in quotes, else the first of them: the last part of a message."""
    close = get_close_matches(name, names, n=1)  # at least 0.6 of the letters alike
    if close:
        return f"write '{close[0]}'"
    if not names:
        return "remove it"
    listed = sorted(names)[:SHOWN_NAMES]
    more = f" or another of {len(names)}" if len(names) > SHOWN_NAMES else ""
    return "write one of " + ", ".join(listed) + more


def load_recipe[T](path: Path, kind: type[T], *, overrides: Sequence[str] = ()) -> Loaded[T]:
    """Reads one YAML file, its parent and the command line's overrides into `kind`.

    Raises: RecipeError in four parts for anything that is not exactly what `kind` declares.
    """
    tree = read_tree(path, kind, seen=())
    for override in read_overrides(overrides):
        tree = _expand(set_override(tree, override), kind, path)
    places: dict[str, str] = {}
    value = _convert(tree, kind, "", places=places)
    return Loaded(value=value, places=places)


def read_tree(path: Path, kind: Any, *, seen: tuple[Path, ...]) -> Tree:
    """Reads `path` and merges it over its `extends` parent."""
    tree = compose(path)
    if not isinstance(tree.value, dict):
        raise RecipeError(
            tree.place,
            found=f"{describe(tree.value, tree.is_quoted)} at the top",
            rule="a recipe is a mapping of keys to values",
            do="write `key: value` lines",
        )
    entries = dict(tree.value)
    parent = entries.pop("extends", None)
    tree = _with_parents(Tree(value=entries, place=tree.place), kind, path)
    tree = _expand(tree, kind, path)
    if parent is None:
        return tree
    above = _find_parent(path, parent, kind)
    if above in (*seen, path.resolve()):
        raise RecipeError(
            f"{parent.place}: extends",
            found=f"{above.name} leads back to itself",
            rule="a chain of parents must end",
            do="remove one `extends`",
        )
    return _merge(read_tree(above, kind, seen=(*seen, path.resolve())), tree, kind)


def find_recipe(folder: str, name: str, *, beside: Path | None = None) -> Path | None:
    """`name` in `folder` of the recipes beside a user's file, else of those that ship."""
    roots = [RECIPES] if beside is None else [beside, RECIPES]
    for root in roots:
        path = root / folder / f"{name}.yaml"
        if path.is_file():
            return path
    return None


def recipe_path(name: str, *, folder: str, what: str) -> Path:
    """The file of a recipe that is named by its name in `folder`, or by its path.

    Raises: RecipeError for a name that no file has.
    """
    if Path(name).suffix == ".yaml":
        return Path(name)
    found = find_recipe(folder, name)
    if found is None:
        names = recipe_names(folder)
        raise RecipeError(
            f"{what} '{name}'",
            found=f"no such file in recipes/{folder}",
            rule="it is one of " + ", ".join(names) + ", or the path of a .yaml file",
            do=nearest(name, names),
        )
    return found


def recipe_names(folder: str) -> list[str]:
    return sorted(path.stem for path in (RECIPES / folder).glob("*.yaml"))


# ---------------------------------------------------------------- reading


def _find_parent(path: Path, parent: Tree, kind: Any) -> Path:
    name = parent.value if isinstance(parent.value, str) else ""
    described = f"'{name}'" if name else describe(parent.value, parent.is_quoted)
    places = [
        path.parent / name if name.endswith(".yaml") else path.parent / f"{name}.yaml",
        RECIPES / path.parent.name / f"{name}.yaml",
        *(RECIPES / folder / f"{name}.yaml" for folder in PARENT_FOLDERS),
    ]
    there = [
        place.resolve()
        for place in places
        if name and place.is_file() and place.resolve() != path.resolve()
    ]
    if there:
        beside = there[0].parent == path.parent.resolve()
        return there[0] if beside else next((f for f in there if _is_of(f, kind)), there[0])
    names = {found.stem for found in path.parent.glob("*.yaml") if found.is_file()} - {path.stem}
    shipped = (found for folder in PARENT_FOLDERS for found in (RECIPES / folder).glob("*.yaml"))
    names.update(found.stem for found in shipped if _is_of(found, kind))
    raise RecipeError(
        f"{parent.place}: extends",
        found=f"{described} is not a recipe beside {path.name}, and none that ships",
        rule="`extends` names one parent, without .yaml",
        do=nearest(name.removesuffix(".yaml"), sorted(names)),
    )


def _is_of(path: Path, kind: Any) -> bool:
    """Whether a file has keys of `kind` only: a curation and a blend may share a name."""
    entries = compose(path).value
    return isinstance(entries, dict) and entries.keys() <= {"extends", *_fields(kind)}


# ---------------------------------------------------------------- merging


def _fields(kind: Any) -> dict[str, Any]:
    """Declared type of each field; empty for what is not a dataclass."""
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return {}
    return typing.get_type_hints(kind)


def _strip_optional(kind: Any) -> Any:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(arm for arm in typing.get_args(kind) if arm is not type(None))
    return kind


def _merge(parent: Tree, child: Tree, kind: Any) -> Tree:
    """Child over parent: recipes merge key by key; lists, free mappings and named files replace."""
    kind = _strip_optional(kind)
    if child.is_file or not (isinstance(parent.value, dict) and isinstance(child.value, dict)):
        return child
    kinds = _fields(kind)
    member: Any = None
    if typing.get_origin(kind) is dict:
        member = typing.get_args(kind)[1]
        if not _fields(_strip_optional(member)):
            return child
    elif not kinds:
        return child
    merged = dict(parent.value)
    for key, value in child.value.items():
        above = merged.get(key)
        merged[key] = value if above is None else _merge(above, value, kinds.get(key, member))
    return Tree(value=merged, place=child.place)


def _expand(tree: Tree, kind: Any, path: Path) -> Tree:
    """Replaces the name of a recipe file (fields with `folder` metadata) by its content."""
    if not isinstance(tree.value, dict) or not _fields(kind):
        return tree
    kinds = _fields(kind)
    entries = dict(tree.value)
    for item in dataclasses.fields(kind):
        folder, value = item.metadata.get("folder"), entries.get(item.name)
        plain = _strip_optional(kinds[item.name])
        if value is None or value.tag == "null":
            continue
        if folder is None:
            entries[item.name] = _expand(value, plain, path)
        elif isinstance(value.value, str):
            entries[item.name] = _named_file(value, plain, path=path, folder=folder, key=item.name)
        elif typing.get_origin(plain) is dict and isinstance(value.value, dict):
            member = typing.get_args(plain)[1]
            named = {
                key: _named_file(one, member, path=path, folder=folder, key=f"{item.name}.{key}")
                if isinstance(one.value, str)
                else one
                for key, one in value.value.items()
            }
            entries[item.name] = dataclasses.replace(value, value=named)
        else:  # stated in place of a name: what it names lies below
            entries[item.name] = _expand(value, plain, path)
    return dataclasses.replace(tree, value=entries)


def _with_parents(tree: Tree, kind: Any, path: Path) -> Tree:
    """Merges the sections that name a recipe as their parent over what it states for them.

    Such a field names the folder of its parents, and which of their keys are stated elsewhere.
    """
    if not isinstance(tree.value, dict) or not _fields(kind):
        return tree
    kinds, entries = _fields(kind), dict(tree.value)
    for item in dataclasses.fields(kind):
        folder, section = item.metadata.get("parents"), entries.get(item.name)
        if folder is None or section is None or not isinstance(section.value, dict):
            continue
        own = dict(section.value)
        parent = own.pop("extends", None)
        if parent is None:
            continue
        plain = _strip_optional(kinds[item.name])
        key = f"{item.name}.extends"
        above = _named_file(parent, plain, path=path, folder=folder, key=key)
        left_out = item.metadata["stated_elsewhere"]
        assert isinstance(above.value, dict), "read_tree refuses any other file"
        shared = {name: one for name, one in above.value.items() if name not in left_out}
        section = dataclasses.replace(section, value=own)
        entries[item.name] = _merge(dataclasses.replace(above, value=shared), section, plain)
    return dataclasses.replace(tree, value=entries)


def _named_file(value: Tree, kind: Any, *, path: Path, folder: str, key: str) -> Tree:
    """The content of a recipe file that a field names."""
    name = str(value.value)
    found = find_recipe(folder, name, beside=path.resolve().parent.parent)
    if found is None:
        raise RecipeError(
            f"{value.place}: {key}",
            found=f"'{name}' is not a file of recipes/{folder}",
            rule=f"`{key}` names one of recipes/{folder}/*.yaml",
            do=nearest(name, recipe_names(folder)),
        )
    return dataclasses.replace(read_tree(found, kind, seen=()), is_file=True)


# ---------------------------------------------------------------- conversion


def _convert(tree: Tree, kind: Any, path: str, *, places: dict[str, str]) -> Any:
    places[path] = tree.place
    plain = _strip_optional(kind)
    if plain is not kind and tree.tag == "null":
        return None
    kind = plain
    if _fields(kind):
        return _convert_recipe(tree, kind, path, places=places)
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(tree.value, list):
            raise _wrong_type(tree, path, "a list like [a, b]")
        return tuple(
            _convert(item, members[0], f"{path}.{place}", places=places)
            for place, item in enumerate(tree.value)
        )
    if origin is dict:
        if not isinstance(tree.value, dict):
            raise _wrong_type(tree, path, "a mapping of names to values")
        return {
            key: _convert(item, members[1], f"{path}.{key}" if path else key, places=places)
            for key, item in tree.value.items()
        }
    if not isinstance(tree.value, str):
        raise _wrong_type(tree, path, f"one {kind.__name__}")
    found = convert_scalar(tree.value, kind, tag=tree.tag, is_quoted=tree.is_quoted)
    if isinstance(found, tuple):
        was, rule, do = found
        raise RecipeError(f"{tree.place}: {path}", found=was, rule=rule, do=do)
    return found


def _wrong_type(tree: Tree, path: str, wanted: str) -> RecipeError:
    return RecipeError(
        f"{tree.place}: {path or 'recipe'}",
        found=f"is {describe(tree.value, tree.is_quoted)}",
        rule=f"it must be {wanted}",
        do="change the value",
    )


def _convert_recipe(tree: Tree, kind: Any, path: str, *, places: dict[str, str]) -> Any:
    if not isinstance(tree.value, dict):
        raise _wrong_type(tree, path, f"a mapping with the keys of {kind.__name__}")
    kinds = _fields(kind)
    prefix = f"{path}." if path else ""
    names = [item.name for item in dataclasses.fields(kind)]
    for key, value in tree.value.items():
        if key not in names:
            raise RecipeError(
                f"{value.place}: {prefix}{key}",
                found=f"'{key}' is not a key of {path or 'this recipe'}",
                rule="unknown keys are refused, since they would be ignored",
                do=nearest(key, names),
            )
    values: dict[str, Any] = {}
    for item in dataclasses.fields(kind):
        if item.name in tree.value:
            below = tree.value[item.name]
            values[item.name] = _convert(below, kinds[item.name], prefix + item.name, places=places)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise RecipeError(
                f"{tree.place}: {prefix}{item.name}",
                found="missing",
                rule=f"every key of {path or 'the recipe'} must be stated, here or in its parent",
                do=f"add a line `{item.name}: ...`",
            )
    return kind(**values)
