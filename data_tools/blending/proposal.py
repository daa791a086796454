"""What a plan that passes a cap could be instead: changes of which each makes all of it pass."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from frontload.data_tools.blending.division import (
    Portion,
    Size,
    divide,
    named_shares,
    nearest_batches,
)
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.blend import BlendRecipe, members

ROUNDED_BATCHES = 16  # ours: a mix's rounding moves 2 samples, so for 1 sample in 8 batches or more
Batches = Mapping[str, int]
"""Phase -> how many whole batches it reads."""


def most_tokens(recipe: BlendRecipe, source: str, size: Size) -> int:
    """Tokens of a source that all phases together may read."""
    return int(recipe.sources[source].max_epochs * size.tokens)


def what_would_pass(loaded: Loaded[BlendRecipe], sizes: Mapping[str, Size], *, refused: str) -> str:
    """The changes, as they are typed behind the recipe: a smaller budget, or more epochs.

    The budget is that of the refused phase, where it alone can mend the plan, else another one's,
    else of all phases that read what does not suffice, by one factor.
    """
    recipe = loaded.value
    plan = _Plan(loaded, sizes)
    short = plan.short()
    smaller = next(filter(None, map(plan.typed, _smaller_plans(plan, refused))), "")
    larger = f"make {' and '.join(short)} larger"
    epochs = " ".join(
        _more_epochs(recipe, source, tokens=short[source], one_epoch=sizes[source].tokens)
        for source in short
    )
    return (
        f"write {smaller}, or {epochs}, or {larger}" if smaller else f"write {epochs}, or {larger}"
    )


class _Plan:
    """All phases of a recipe, at any number of batches."""

    def __init__(self, loaded: Loaded[BlendRecipe], sizes: Mapping[str, Size]) -> None:
        recipe = loaded.value
        self._loaded, self._sizes = loaded, sizes
        self.asked = {
            name: nearest_batches(phase.tokens, recipe.batch_tokens)
            for name, phase in recipe.phases.items()
        }

    def short(self) -> dict[str, int]:
        """The sources of which the plan reads more than it may, and how many tokens."""
        read = self._read(self.asked)
        return {source: read[source] for source in read if not self._is_within(source, read)}

    def readers(self) -> list[str]:
        """The phases that read a source which does not suffice."""
        short, recipe = self.short(), self._loaded.value
        read = {
            phase: {source for name in named_shares(knobs) for source in members(recipe, name)}
            for phase, knobs in recipe.phases.items()
        }
        return [name for name in self.asked if short.keys() & read[name]]

    def has_room(self, batches: Batches) -> bool:
        """Whether no source passes its cap."""
        read = self._read(batches)
        return all(self._is_within(source, read) for source in read)

    def typed(self, batches: Batches) -> str:
        """The overrides that make these the numbers of batches; nothing when that does not pass."""
        divisions = self._divide(batches)
        portions = [portion for each in divisions.values() for portion in each.values()]
        if not all(portion.num_samples for portion in portions) or not self.has_room(batches):
            return ""
        changed = [name for name, count in batches.items() if count != self.asked[name]]
        return " ".join(word for name in changed for word in self._words(name, divisions[name]))

    def _words(self, name: str, division: Mapping[str, Portion]) -> Iterator[str]:
        recipe = self._loaded.value
        phase, size = recipe.phases[name], recipe.sequence_tokens
        tokens = {source: one.num_samples * size for source, one in division.items()}
        yield f"phases.{name}.tokens={sum(tokens.values())}"
        if phase.parts is not None:
            for one in named_shares(phase):
                part = sum(tokens[source] for source in members(recipe, one))
                yield f"phases.{name}.parts.{one}={part}"

    def _divide(self, batches: Batches) -> dict[str, dict[str, Portion]]:
        return divide(self._loaded, self._sizes, batches=batches)

    def _read(self, batches: Batches) -> Counter[str]:
        read: Counter[str] = Counter()
        for division in self._divide(batches).values():
            for source, portion in division.items():
                read[source] += portion.num_samples * self._loaded.value.sequence_tokens
        return read

    def _is_within(self, source: str, read: Mapping[str, int]) -> bool:
        return read[source] <= most_tokens(self._loaded.value, source, self._sizes[source])


def _smaller_plans(plan: _Plan, refused: str) -> Iterator[Batches]:
    """Candidates as large as there is room: one phase smaller, then all that are short."""
    readers = plan.readers()
    for name in sorted(readers, key=lambda one: one != refused):
        alone = partial(_with_one, plan, name)
        yield alone(_largest(plan.asked[name], lambda count, of=alone: plan.has_room(of(count))))
    most = max(plan.asked[name] for name in readers)

    def scaled(count: int) -> Batches:
        return plan.asked | {name: max(1, plan.asked[name] * count // most) for name in readers}

    yield scaled(_largest(most, lambda count: plan.has_room(scaled(count))))


def _with_one(plan: _Plan, name: str, count: int) -> Batches:
    return plan.asked | {name: count}


def _largest(below: int, has_room: Callable[[int], bool]) -> int:
    """The largest number that has room, or 0; exact up to `ROUNDED_BATCHES` above one that has.

    Largest remainder may give a source a sample less of one batch more, so room may come again.
    """
    fits, beyond = 0, below
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        fits, beyond = (middle, beyond) if has_room(middle) else (fits, middle)
    again = range(min(beyond + ROUNDED_BATCHES, below) - 1, fits, -1)
    return next(filter(has_room, again), fits)


def _more_epochs(recipe: BlendRecipe, source: str, *, tokens: int, one_epoch: int) -> str:
    """The overrides that let a source be read so far."""
    hundredths = -(-tokens * 100 // one_epoch)
    is_read_again = hundredths > 100 and recipe.sources[source].reading == "one_pass"
    epochs = f"{hundredths // 100}.{hundredths % 100:02}".rstrip("0").rstrip(".")
    reading = f"sources.{source}.reading=repeatable " if is_read_again else ""
    return f"{reading}sources.{source}.max_epochs={epochs}"
