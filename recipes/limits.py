"""The rules that most values have: a least number, a choice of names, nothing twice in a list."""

from collections.abc import Mapping, Sequence
from typing import Any

from frontload.recipes.load import Loaded, nearest


def at_least(loaded: Loaded[Any], path: str, *, value: float, least: float) -> None:
    """Refuses a number below `least`, naming its place."""
    if value < least:
        raise loaded.refuse(
            path, found=f"is {value:g}", rule=f"it is {least:g} or more", do="change it"
        )


def all_at_least(loaded: Loaded[Any], path: str, *, of: Any, least: Mapping[str, float]) -> None:
    """Refuses the first number of the section `of` that is below its own least."""
    for knob, lowest in least.items():
        at_least(loaded, f"{path}.{knob}", value=getattr(of, knob), least=lowest)


def choice(loaded: Loaded[Any], path: str, *, value: str, names: Sequence[str]) -> None:
    """Refuses a name that is none of `names`, and says the nearest."""
    if value not in names:
        raise loaded.refuse(
            path,
            found=f"'{value}' is not known",
            rule="it is one of " + ", ".join(names) if names else "there is none to name here",
            do=nearest(value, tuple(names)),
        )


def distinct(loaded: Loaded[Any], path: str, *, names: Sequence[Any]) -> None:
    """Refuses a list that says a thing twice."""
    for place, one in enumerate(names):
        if one in names[:place]:
            raise loaded.refuse(
                f"{path}.{place}",
                found=f"{one} stands there twice" if isinstance(one, str) else "stands there twice",
                rule="a list of what to make says each once",
                do="remove one of the two",
            )
