"""Built folders of a store by what people call them: folder, key or label, with or without a kind.

lmq-seed1    pretrain/lmq-seed1    pretrain/lmq    cc22ae075026    lmq-seed1-cc22ae075026
"""

from collections.abc import Sequence
from pathlib import Path

from frontload.launch.store import Store
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import SHOWN_NAMES, nearest

FIRST_PHASE = "trunk-seed1"  # the blend that all arms of a study share


def name_parts(folder: Path) -> tuple[str, str, str]:
    """Kind, label and key of a built folder."""
    label, _, key = folder.name.rpartition("-")
    return folder.parent.name, label, key


def find_named(store: Store, what: str, *, kinds: Sequence[str] = ("*",)) -> Path | None:
    """The one folder called `what`; None if there is none.

    Raises: RecipeError if several are called so: a label says neither kind nor key.
    """
    kind, _, name = what.rpartition("/")
    if Path(kind).name != kind:  # a path, and no kind
        return None
    folders = _folders(store, (kind,) if kind else kinds)
    exact = [one for one in folders if name in (one.name, *name_parts(one)[1:])]
    found = exact or [one for one in folders if name_parts(one)[1] == f"{name}-seed1"]
    if len(found) > 1:
        names = [f"{one.parent.name}/{one.name}" for one in found]
        raise ambiguous(what, names)
    return found[0] if found else None


def ambiguous(what: str, names: Sequence[str]) -> RecipeError:
    """The error about a name that several are called."""
    return RecipeError(
        what,
        found=f"{len(names)} are called so: " + listed(names),
        rule="a name is that of one stage",
        do=f"write kind, label and key of one, e.g. {names[0]}",
    )


def built_names(store: Store, *, kinds: Sequence[str] = ("*",)) -> list[str]:
    """Every built folder as `kind/label-key`."""
    return [f"{one.parent.name}/{one.name}" for one in _folders(store, kinds)]


def suggest(what: str, names: Sequence[str]) -> str:
    """What to write instead of `what`, of `names` as `kind/label-key`; "" without names.

    Those that it begins, with their kind, without it or from the key on; else the nearest.
    """
    begun = [name for name in names if what and _is_begun(name, what)]
    if begun:
        return "write one of " + listed(begun)
    return nearest(what, names) if names else ""


def listed(names: Sequence[str]) -> str:
    """The first of a list of names, and how many there are."""
    more = f" or another of {len(names)}" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def _folders(store: Store, kinds: Sequence[str]) -> list[Path]:
    manifests = [path for kind in kinds for path in store.root.glob(f"{kind}/*/manifest.json")]
    return sorted(path.parent for path in manifests)


def _is_begun(name: str, what: str) -> bool:
    kind, _, folder = name.partition("/")
    key = folder.rpartition("-")[2]
    return any(one.startswith(what) for one in (name, folder, key, f"{kind}/{key}"))
