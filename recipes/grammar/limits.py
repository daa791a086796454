"""The rules that most values have: ends of a range, shares, names, nothing twice in a list."""

from collections.abc import Mapping, Sequence
from typing import Any

from frontload.recipes.grammar.load import Loaded, nearest

TOLERANCE = 1e-9  # of a sum of shares written in decimals
LEAST_TEMPERATURE = 0.01  # vllm/sampling_params.py _MAX_TEMP: it samples with 0.01 below that
SCHEDULES = ("cosine", "wsd", "constant")


def require_at_least(loaded: Loaded[Any], path: str, *, value: float, least: float) -> None:
    """Refuses a number below `least`, naming its place."""
    if value < least:
        raise loaded.refuse(
            path,
            found=f"is {_number(value)}",
            rule=f"it is {_number(least)} or more",
            do=f"write e.g. {_number(least)}",
        )


def require_all_at_least(
    loaded: Loaded[Any], path: str, *, of: Any, least: Mapping[str, float]
) -> None:
    """Refuses the first number of the section `of` that is below its own least."""
    for knob, lowest in least.items():
        require_at_least(loaded, f"{path}.{knob}", value=getattr(of, knob), least=lowest)


def require_at_most(loaded: Loaded[Any], path: str, *, value: float, most: float) -> None:
    """Refuses a number above `most`, naming its place."""
    if value > most:
        raise loaded.refuse(
            path,
            found=f"is {_number(value)}",
            rule=f"it is {_number(most)} or less",
            do=f"write e.g. {_number(most)}",
        )


def _number(value: float) -> str:
    """Whole numbers in full, others in six digits."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def require_share(loaded: Loaded[Any], path: str, *, value: float, is_needed: bool = False) -> None:
    """Refuses what is no share; one of nothing too where something `is_needed`."""
    if not 0.0 <= value <= 1.0 or (is_needed and value == 0.0):
        rule = "lies above 0 and at most at 1" if is_needed else "lies between 0 and 1"
        raise loaded.refuse(
            path, found=f"is {value:g}", rule=f"a share {rule}", do="write e.g. 0.5"
        )


def require_shares(loaded: Loaded[Any], path: str, *, of: Mapping[str, float], what: str) -> None:
    """Refuses shares of a whole that are below 0 or do not sum to 1; `what` is what one is of."""
    for name, value in of.items():
        require_at_least(loaded, f"{path}.{name}", value=value, least=0)
    total = sum(of.values())
    if abs(total - 1.0) > TOLERANCE:
        raise loaded.refuse(
            path,
            found=f"sums to {total:.6g}" if of else "is empty",
            rule="shares must sum to 1",
            do=f"scale them or add the missing {what}",
        )


def require_levels(loaded: Loaded[Any], path: str, *, low: float, high: float) -> None:
    """Refuses levels that do not lie in a family's range, from the lowest to the highest."""
    for knob, value in (("level_low", low), ("level_high", high)):
        require_share(loaded, f"{path}.{knob}", value=value)
    if low > high:
        raise loaded.refuse(
            f"{path}.level_low",
            found=f"{low} is above level_high {high}",
            rule="the lowest difficulty is not above the highest",
            do="swap them",
        )


def require_schedule(
    loaded: Loaded[Any], *, kind_path: str, under: str, kind: str, warmup: float, decay: float
) -> None:
    """Refuses a schedule that is none: `under` stands before warmup_share and decay_share."""
    require_choice(loaded, kind_path, value=kind, names=SCHEDULES)
    require_share(loaded, f"{under}warmup_share", value=warmup)
    require_share(loaded, f"{under}decay_share", value=decay)
    if kind != "wsd" and decay:
        raise loaded.refuse(
            f"{under}decay_share",
            found=f"is {decay:g} with {kind}",
            rule="only wsd has a decay of its own",
            do=f"write 0.0, or {kind_path.rpartition('.')[2]}: wsd",
        )
    if warmup + decay > 1.0:
        raise loaded.refuse(
            f"{under}decay_share",
            found=f"warmup_share + decay_share is {warmup + decay:g}",
            rule="together they are at most 1",
            do="lower one of them",
        )


def require_choice(loaded: Loaded[Any], path: str, *, value: str, names: Sequence[str]) -> None:
    """Refuses a name that is none of `names`, and says the nearest."""
    if value not in names:
        raise loaded.refuse(
            path,
            found=f"'{value}' is not known",
            rule="it is one of " + ", ".join(names) if names else "there is none to name here",
            do=nearest(value, tuple(names)),
        )


def require_distinct(loaded: Loaded[Any], path: str, *, names: Sequence[Any]) -> None:
    """Refuses a list that says a thing twice."""
    for place, one in enumerate(names):
        if one in names[:place]:
            raise loaded.refuse(
                f"{path}.{place}",
                found=f"{one} stands there twice" if isinstance(one, str) else "stands there twice",
                rule="a list of what to make says each once",
                do="remove one of the two",
            )
