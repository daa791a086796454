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
        batches = _nearest(phase.tokens, recipe.batch_tokens)
        division = _divide(loaded, phase, sizes, batches=batches)
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
            if not num_samples:
                raise _no_sample(loaded, name, source, share=share)
            allowed = _allowed(recipe, source, sizes[source])
            if part.end_tokens > allowed:
                fits = _largest(loaded, phase, sizes, used=used, below=batches)
                raise _too_long(loaded, name, part, allowed=allowed, fits=fits)
            parts.append(part)
        used |= {part.source: part.end_tokens for part in parts}
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
    loaded: Loaded[BlendRecipe], phase: PhaseKnobs, sizes: Mapping[str, Size], *, batches: int
) -> dict[str, tuple[str, Fraction, int, int]]:
    """Source -> (name it is read under, exact share, samples of so many batches, target tokens)."""
    recipe, given = loaded.value, _given(phase)
    samples = apportion(batches * recipe.global_batch_sequences, list(given.values()))
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
            found[source] = (name, share * weight, one, goal)
    return found


def _no_sample(
    loaded: Loaded[BlendRecipe], phase_name: str, source: str, *, share: Fraction
) -> RecipeError:
    recipe = loaded.value
    batches = _nearest(recipe.phases[phase_name].tokens, recipe.batch_tokens)
    return loaded.refuse(
        f"phases.{phase_name}",
        found=f"source {source} gets {float(share):.2g} of"
        f" {batches * recipe.global_batch_sequences} samples, which is none",
        rule="every source of a phase gets a whole sequence or more",
        do=f"raise the phase's tokens, or take {source} out",
    )


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


def _allowed(recipe: BlendRecipe, source: str, size: Size) -> int:
    """Tokens of a source that all phases together may read."""
    return int(recipe.sources[source].max_epochs * size.tokens)


def _largest(
    loaded: Loaded[BlendRecipe],
    phase: PhaseKnobs,
    sizes: Mapping[str, Size],
    *,
    used: Mapping[str, int],
    below: int,
) -> dict[str, int]:
    """Tokens a name of the most whole batches that fit: with one more, some source's cap is passed.

    Nothing when a source would be left without a sample.
    """
    recipe = loaded.value

    def read(batches: int) -> dict[str, int]:
        division = _divide(loaded, phase, sizes, batches=batches)
        return {source: one * recipe.sequence_tokens for source, (_, _, one, _) in division.items()}

    fits, beyond = 0, below
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        is_within = all(
            used[source] + tokens <= _allowed(recipe, source, sizes[source])
            for source, tokens in read(middle).items()
        )
        fits, beyond = (middle, beyond) if is_within else (fits, middle)
    found = read(fits)
    if not all(found.values()):
        return {}
    return {name: sum(found[one] for one in members(recipe, name)) for name in _given(phase)}


def _too_long(
    loaded: Loaded[BlendRecipe],
    phase_name: str,
    part: Part,
    *,
    allowed: int,
    fits: Mapping[str, int],
) -> RecipeError:
    """The refusal of a window behind its source's cap, with the phase's budget that would fit."""
    recipe = loaded.value
    source = recipe.sources[part.source]
    left = max(allowed - part.start_tokens, 0)
    needed = Fraction(part.end_tokens, part.one_epoch)
    more = f"raise max_epochs to {_up(needed)}"
    smaller = f"write phases.{phase_name}.tokens={sum(fits.values())}"
    if recipe.phases[phase_name].parts is not None:
        smaller += "".join(f" phases.{phase_name}.parts.{one}={n}" for one, n in fits.items())
    return loaded.refuse(
        f"phases.{phase_name}",
        found=f"{part.tokens:_} tokens of {part.source} from {part.start_tokens:_} end at epoch"
        f" {float(needed):.3f} of {part.one_epoch:_} tokens",
        rule=f"sources.{part.source}.max_epochs is {source.max_epochs}: {allowed:_} tokens in all"
        f" phases, {left // recipe.sequence_tokens * recipe.sequence_tokens:_} of them left here",
        do=(smaller if fits else "lower the share of it")
        + f", {'make it repeatable' if source.reading == 'one_pass' else more},"
        " or make the source larger",
    )


def _float_above(cap: Fraction) -> float:
    """The nearest float that does not forbid what the exact cap allows."""
    near = float(cap)
    return near if Fraction(near) >= cap else nextafter(near, inf)


def _up(epochs: Fraction) -> str:
    hundredths = -(-epochs.numerator * 100 // epochs.denominator)
    return f"{hundredths / 100:g}"
