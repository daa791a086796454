"""Token budgets to windows: who gets how many samples of each phase, in exact integers.

A phase reads the whole batches that come nearest to its budget. Names share its samples by their
exact shares, members of a mix share the mix's, both by largest remainder: every part is within one
sample of exact, and the parts add up. A phase's window begins where the phases before it ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf, nextafter

from frontload.recipes.blend_schema import BlendMix, BlendRecipe, PhaseKnobs, members
from frontload.recipes.errors import RecipeError
from frontload.recipes.load import Loaded
from frontload.recipes.schema import Blend, Window


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large one pass over a source is. 0 documents: unknown."""

    tokens: int
    documents: int
    is_declared: bool  # by the recipe; else counted in an index


@dataclass(frozen=True, kw_only=True)
class Part:
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
    parts: tuple[Part, ...]

    @property
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

    def parts_of(self, source: str) -> list[Part]:
        return [part for phase in self.phases for part in phase.parts if part.source == source]

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
    named = {name for phase in recipe.phases.values() for name in _given(phase)}
    read = {source for name in named for source in members(recipe, name)}
    return [source for source in recipe.sources if source in read]


def plan_budget(loaded: Loaded[BlendRecipe], sizes: Mapping[str, Size]) -> Budget:
    """Divides every phase's budget among its sources.

    Raises: RecipeError for a source of unknown size, a part of no whole sequence, or repeats
            beyond a cap, with the number that would fit.
    """
    recipe = loaded.value
    used = dict.fromkeys(recipe.sources, 0)
    phases = []
    for name, phase in recipe.phases.items():
        division = _divide(loaded, name, phase, sizes)
        parts = []
        for source, (under, share, num_samples, target) in division.items():
            part = Part(
                source=source,
                name=under,
                target_tokens=target,
                num_samples=num_samples,
                sequence_tokens=recipe.sequence_tokens,
                start_tokens=used[source],
                one_epoch=sizes[source].tokens,
            )
            _check_part(loaded, name, part, share=share)
            used[source] = part.end_tokens
            parts.append(part)
        phases.append(PhaseBudget(name=name, target_tokens=phase.tokens, parts=tuple(parts)))
    return Budget(recipe=recipe, sizes=sizes, phases=tuple(phases))


def apportion(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Whole parts of `total` by shares that sum to 1, by largest remainder; ties to the first."""
    exact = [total * share for share in shares]
    parts = [int(one) for one in exact]
    by_remainder = sorted(range(len(shares)), key=lambda place: parts[place] - exact[place])
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts


def _given(phase: PhaseKnobs) -> dict[str, Fraction]:
    """What each name gets of a phase, as shares that sum to 1."""
    if phase.shares is not None:
        return phase.shares
    assert phase.parts is not None
    return {name: Fraction(tokens, phase.tokens) for name, tokens in phase.parts.items()}


def _divide(
    loaded: Loaded[BlendRecipe], phase_name: str, phase: PhaseKnobs, sizes: Mapping[str, Size]
) -> dict[str, tuple[str, Fraction, int, int]]:
    """Source -> (name it is read under, exact share, samples, target tokens)."""
    recipe, given = loaded.value, _given(phase)
    batch = recipe.global_batch_sequences
    num_samples = _nearest(phase.tokens, recipe.sequence_tokens * batch) * batch
    samples = apportion(num_samples, list(given.values()))
    targets = apportion(phase.tokens, list(given.values()))
    found: dict[str, tuple[str, Fraction, int, int]] = {}
    for (name, share), own, target in zip(given.items(), samples, targets, strict=True):
        inside = _weights(loaded, name, sizes)
        for source, weight, one, goal in zip(
            members(recipe, name),
            inside,
            apportion(own, inside),
            apportion(target, inside),
            strict=True,
        ):
            if one == 0:
                raise loaded.refuse(
                    f"phases.{phase_name}",
                    found=f"source {source} gets {float(share * weight):.2g} of"
                    f" {num_samples} samples, which is none",
                    rule="every source of a phase gets a whole sequence or more",
                    do=f"raise the phase's tokens, or take {source} out",
                )
            found[source] = (name, share * weight, one, goal)
    return found


def _nearest(tokens: int, batch_tokens: int) -> int:
    """Whole batches nearest to a budget; the fewer of two that are as near."""
    return -((batch_tokens - 2 * tokens) // (2 * batch_tokens))


def _weights(loaded: Loaded[BlendRecipe], name: str, sizes: Mapping[str, Size]) -> list[Fraction]:
    """Exact weights of the sources behind a name; they sum to 1."""
    recipe = loaded.value
    for source in members(recipe, name):
        if sizes[source].tokens == 0:
            raise _unknown(loaded, source, "tokens", sizes[source])
    mix = recipe.mixes.get(name)
    if mix is None:
        return [Fraction(1)]
    if mix.weighting == "equal":
        return [Fraction(1, len(mix.members))] * len(mix.members)
    counts = [_count(loaded, mix, source, sizes[source]) for source in mix.members]
    return [Fraction(count, sum(counts)) for count in counts]


def _count(loaded: Loaded[BlendRecipe], mix: BlendMix, source: str, size: Size) -> int:
    if mix.weighting == "token":
        return size.tokens
    if size.documents == 0:
        raise _unknown(loaded, source, "samples", size)
    return size.documents


def _unknown(loaded: Loaded[BlendRecipe], source: str, what: str, size: Size) -> RecipeError:
    if not size.is_declared:
        return loaded.refuse(
            f"sources.{source}",
            found="an index without tokens",
            rule="a source that is read holds at least one token",
            do="name another index, or take the source out",
        )
    return loaded.refuse(
        f"sources.{source}.declared_{what}",
        found="is 0, which says unknown, and no index was given",
        rule=f"a plan needs the {what} of every source that it divides by",
        do=f"write the number of {what}, or give --index {source}=PREFIX",
    )


def _check_part(
    loaded: Loaded[BlendRecipe], phase_name: str, part: Part, *, share: Fraction
) -> None:
    """Refuses a window behind the source's cap, with the phase's budget that would fit."""
    recipe, cap = loaded.value, loaded.value.sources[part.source].max_epochs
    allowed = int(cap * part.one_epoch)
    if part.end_tokens <= allowed:
        return
    left = max(allowed - part.start_tokens, 0)
    fits = left // recipe.sequence_tokens * recipe.sequence_tokens
    batch = recipe.sequence_tokens * recipe.global_batch_sequences
    budget = max(0, int((fits - recipe.sequence_tokens) / share) // batch * batch)
    needed = Fraction(part.end_tokens, part.one_epoch)
    is_once = recipe.sources[part.source].reading == "one_pass"
    more = "make it repeatable" if is_once else f"raise max_epochs to {_up(needed)}"
    raise loaded.refuse(
        f"phases.{phase_name}",
        found=f"{part.tokens:_} tokens of {part.source} from {part.start_tokens:_} end at epoch"
        f" {float(needed):.3f} of {part.one_epoch:_} tokens",
        rule=f"sources.{part.source}.max_epochs is {cap}: {allowed:_} tokens in all phases,"
        f" {fits:_} of them left here",
        do=(f"write phases.{phase_name}.tokens={budget}" if budget else "lower the share of it")
        + f", {more}, or make the source larger",
    )


def _float_above(cap: Fraction) -> float:
    """The nearest float that does not forbid what the exact cap allows."""
    near = float(cap)
    return near if Fraction(near) >= cap else nextafter(near, inf)


def _up(epochs: Fraction) -> str:
    hundredths = -(-epochs.numerator * 100 // epochs.denominator)
    return f"{hundredths / 100:g}"
