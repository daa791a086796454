"""`--index NAME=PREFIX` of every command that reads the sources of a blend: one grammar."""

from collections.abc import Collection, Sequence
from pathlib import Path

from frontload.recipes.artifact import index_prefix
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import nearest

SUFFIXES = (".manifest.json", ".bin", ".idx")
HELP = "a source's pair PREFIX.bin, PREFIX.idx, or the folder of an index"


def named_prefixes(
    given: Sequence[str], sources: Collection[str], *, keys: Collection[str] = ()
) -> dict[str, Path]:
    """Source -> prefix of its pair, as the command line names them.

    `keys` are those of a recipe: the words behind --index that override it are told apart.

    Raises: RecipeError for no NAME=PREFIX, a name of no source, and two indexes of one name or two
            names of one index.
    """
    found: dict[str, Path] = {}
    names: dict[Path, str] = {}
    for one in given:
        name, equals, prefix = one.partition("=")
        if not equals or not prefix:
            written = "PREFIX" if equals else one
            raise RecipeError(
                f"--index {one}",
                found="no NAME=PREFIX",
                rule="an index is given with the name of its source",
                do=f"write e.g. --index {next(iter(sources), 'base')}={written}",
            )
        if name not in sources:
            raise _no_source(one, name, sources=sources, keys=keys)
        if name in found:
            raise RecipeError(
                f"--index {one}",
                found=f"{name} has an index already: {found[name]}",
                rule="a source is one index",
                do="give each source once; several indexes are members of a mix",
            )
        path = pair_prefix(Path(prefix))
        other = names.setdefault(path.resolve(), name)
        if other != name:
            raise RecipeError(
                f"--index {one}",
                found=f"the index of {other}",
                rule="two names of one index would read its tokens twice, uncounted",
                do="name another index, or leave one of the sources out of the recipe",
            )
        found[name] = path
    return found


def pair_prefix(path: Path) -> Path:
    """The prefix that a path names: by one of its three files, by an index's folder, or itself."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            path = path.with_name(path.name.removesuffix(suffix))
    return index_prefix(path) if path.is_dir() else path


def _no_source(
    one: str, name: str, *, sources: Collection[str], keys: Collection[str]
) -> RecipeError:
    if keys and (name in keys or "." in name):
        return RecipeError(
            f"--index {one}",
            found=f"'{name}', a key of the recipe, among the indexes",
            rule="what follows --index is NAME=PREFIX, up to the next flag",
            do="write overrides before --index",
        )
    return RecipeError(
        f"--index {one}",
        found=f"no source '{name}'",
        rule=f"NAME is one of the {len(sources):_} sources of the blend",
        do=nearest(name, tuple(sources)),
    )
