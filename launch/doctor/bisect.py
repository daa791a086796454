"""Which members make a group fail: halves, then the smallest sets that fail. Pure."""

from collections.abc import Callable, Sequence

Works = Callable[[Sequence[str]], bool]
"""Whether a group works, e.g. finishes an all-reduce in time."""


def find_culprits(group: Sequence[str], works: Works) -> list[tuple[str, ...]]:
    """The smallest failing sets of a failing group, disjoint; what is left of the group works.

    A set of one is a bad member, also if it fails in company alone; a set of two is a link that
    fails though each end works with others. Asks about 2 log2(n) times for one bad member among n.
    """
    left, found = list(group), []
    while left and not works(left):
        culprit = _smallest(left, works)
        found.append(culprit)
        left = [one for one in left if one not in culprit]
    return [part for culprit in found for part in _blame(culprit, left, works)]


def _blame(culprit: tuple[str, ...], good: Sequence[str], works: Works) -> list[tuple[str, ...]]:
    """A set that fails together, told apart with the help of a member of a group that works."""
    if len(culprit) == 1 or not good:
        return [culprit]
    bad = [one for one in culprit if not works([one, good[0]])]
    return [(one,) for one in bad] or [culprit]


def _smallest(group: list[str], works: Works) -> tuple[str, ...]:
    """One smallest failing set of a failing group."""
    kept: list[str] = []  # members that every failing set found so far needs
    rest = group
    while True:
        needed = _shortest_failing_prefix(kept, rest, works)
        if needed == 0:
            return tuple(one for one in group if one in kept)
        kept.append(rest[needed - 1])
        rest = rest[: needed - 1]


def _shortest_failing_prefix(kept: list[str], rest: list[str], works: Works) -> int:
    """The least n for which `kept` with the first n of `rest` fails; all of them together do."""
    if kept and not works(kept):
        return 0
    low, high = 0, len(rest)  # low works (or is empty), high fails
    while high - low > 1:
        middle = (low + high) // 2
        if works([*kept, *rest[:middle]]):
            low = middle
        else:
            high = middle
    return high
