"""Token budgets to windows: who gets how many samples of each phase, in exact integers.

A phase reads the whole batches that come nearest to its budget. Names share its samples by their
exact shares, members of a mix share the mix's, both by largest remainder: every part is within one
sample of exact, and the parts add up. A phase's window begins where the phases before it ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import inf, nextafter

from frontload.data_tools.blending.division import (
    Portion,
    Size,
    divide,
    named_shares,
    nearest_batches,
)
from frontload.data_tools.blending.proposal import most_tokens, what_would_pass
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.blend import BlendRecipe, members
from frontload.recipes.schema import Blend, Window


@dataclass(frozen=True, kw_only=True)
class PhasePart:
    """What one phase reads of one source."""

    source: str
    name: str  # under which the phase reads it: the source's, or a mix's
    target_tokens: int  # of the phase's budget; the parts' targets add up to it
    num_samples: int
    sequence_tokens: int
    start_tokens: int  # of the window
    one_epoch: int

    @property
    def tokens(self) -> int:
        return self.num_samples * self.sequence_tokens

    @property
    def end_tokens(self) -> int:
        return self.start_tokens + self.tokens

    @property
    def epochs(self) -> Fraction:
        return Fraction(self.tokens, self.one_epoch)

    @property
    def repeated_tokens(self) -> int:
        """Tokens behind the first pass: read before, in this phase or an earlier one."""
        return max(0, self.end_tokens - max(self.start_tokens, self.one_epoch))

    @property
    def unique_share(self) -> Fraction:
        """Share of the part that is read for the first time."""
        return 1 - Fraction(self.repeated_tokens, self.tokens)


@dataclass(frozen=True, kw_only=True)
class PhaseBudget:
    """One phase: what was asked, and what is read."""

    name: str
    target_tokens: int
    parts: tuple[PhasePart, ...]

    @cached_property
    def num_samples(self) -> int:
        return sum(part.num_samples for part in self.parts)

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def mix_of(self) -> dict[str, str]:
        """Source -> the mix that it is read in, for those that are in one."""
        return {part.source: part.name for part in self.parts if part.name != part.source}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """All phases of a blend over sources of known or declared size."""

    recipe: BlendRecipe
    sizes: Mapping[str, Size]
    phases: tuple[PhaseBudget, ...]

    def parts_of(self, source: str) -> list[PhasePart]:
        return self._by_source.get(source, [])

    @cached_property
    def _by_source(self) -> dict[str, list[PhasePart]]:
        found: dict[str, list[PhasePart]] = {}
        for phase in self.phases:
            for part in phase.parts:
                found.setdefault(part.source, []).append(part)
        return found

    def blends(self) -> list[Blend]:
        """The phases as recipes of the stage `blend`."""
        return [
            Blend(
                phase=phase.name,
                windows=tuple(
                    Window(source=part.source, start_tokens=part.start_tokens, tokens=part.tokens)
                    for part in phase.parts
                ),
                sequence_tokens=self.recipe.sequence_tokens,
                max_epochs={
                    part.source: _float_above(self.recipe.sources[part.source].max_epochs)
                    for part in phase.parts
                },
                seed=self.recipe.seed,
            )
            for phase in self.phases
        ]


def sources_read(recipe: BlendRecipe) -> list[str]:
    """The sources that some phase reads, in the order of the recipe."""
    named = {name for phase in recipe.phases.values() for name in named_shares(phase)}
    read = {source for name in named for source in members(recipe, name)}
    return [source for source in recipe.sources if source in read]


def plan_budget(loaded: Loaded[BlendRecipe], sizes: Mapping[str, Size]) -> Budget:
    """Divides every phase's budget among its sources.

    Raises: RecipeError for a source of unknown size, a part of no whole sequence, or repeats
            beyond a cap, with the number that would fit.
    """
    recipe = loaded.value
    batches = {
        name: nearest_batches(phase.tokens, recipe.batch_tokens)
        for name, phase in recipe.phases.items()
    }
    divisions = divide(loaded, sizes, batches=batches)
    for name, division in divisions.items():
        _refuse_none(loaded, name, division, batches=batches[name])
    used = dict.fromkeys(recipe.sources, 0)
    phases = []
    for name, division in divisions.items():
        parts = []
        for source, portion in division.items():
            part = PhasePart(
                source=source,
                name=portion.name,
                target_tokens=portion.target_tokens,
                num_samples=portion.num_samples,
                sequence_tokens=recipe.sequence_tokens,
                start_tokens=used[source],
                one_epoch=sizes[source].tokens,
            )
            if part.end_tokens > most_tokens(recipe, source, sizes[source]):
                raise _too_long(loaded, name, part, sizes=sizes)
            parts.append(part)
        used |= {part.source: part.end_tokens for part in parts}
        target = recipe.phases[name].tokens
        phases.append(PhaseBudget(name=name, target_tokens=target, parts=tuple(parts)))
    return Budget(recipe=recipe, sizes=sizes, phases=tuple(phases))


def _refuse_none(
    loaded: Loaded[BlendRecipe],
    phase_name: str,
    division: Mapping[str, Portion],
    *,
    batches: int,
) -> None:
    """Every source of a phase gets a sample or more."""
    for source, portion in division.items():
        if not portion.num_samples:
            raise loaded.refuse(
                f"phases.{phase_name}",
                found=f"source {source} gets {float(portion.share):.2g} of"
                f" {batches * loaded.value.global_batch_sequences} samples, which is none",
                rule="every source of a phase gets a whole sequence or more",
                do=f"raise the phase's tokens, or take {source} out",
            )


def _too_long(
    loaded: Loaded[BlendRecipe], phase_name: str, part: PhasePart, *, sizes: Mapping[str, Size]
) -> RecipeError:
    """The refusal of a window behind its source's cap, with changes that mend the whole plan."""
    recipe = loaded.value
    allowed = most_tokens(recipe, part.source, sizes[part.source])
    left = max(allowed - part.start_tokens, 0)
    needed = Fraction(part.end_tokens, part.one_epoch)
    return loaded.refuse(
        f"phases.{phase_name}",
        found=f"{part.tokens:_} tokens of {part.source} from {part.start_tokens:_} end at epoch"
        f" {float(needed):.3f} of {part.one_epoch:_} tokens",
        rule=f"sources.{part.source}.max_epochs is {recipe.sources[part.source].max_epochs}:"
        f" {allowed:_} tokens in all phases,"
        f" {left // recipe.sequence_tokens * recipe.sequence_tokens:_} of them left here",
        do=what_would_pass(loaded, sizes, refused=phase_name),
    )


def _float_above(cap: Fraction) -> float:
    """The nearest float that does not forbid what the exact cap allows."""
    near = float(cap)
    return near if Fraction(near) >= cap else nextafter(near, inf)
