"""How a phase's samples are divided among its sources: exact shares, by largest remainder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.blend import BlendMix, BlendRecipe, PhaseKnobs, members


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large one pass over a source is. 0 documents: unknown."""

    tokens: int
    documents: int
    is_declared: bool  # by the recipe; else counted in an index


@dataclass(frozen=True, kw_only=True)
class Portion:
    """What one source gets of a phase."""

    name: str  # under which the phase reads it: the source's, or a mix's
    share: Fraction
    num_samples: int
    target_tokens: int


def apportion(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Whole parts of `total` by shares that sum to 1, by largest remainder; ties to the first."""
    exact = [total * share for share in shares]
    parts = [int(one) for one in exact]
    by_remainder = sorted(range(len(shares)), key=lambda place: parts[place] - exact[place])
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts


def named_shares(phase: PhaseKnobs) -> dict[str, Fraction]:
    """What each name gets of a phase, as shares that sum to 1."""
    if phase.shares is not None:
        return phase.shares
    assert phase.parts is not None
    return {name: Fraction(tokens, phase.tokens) for name, tokens in phase.parts.items()}


def divide(
    loaded: Loaded[BlendRecipe], phase: PhaseKnobs, sizes: Mapping[str, Size], *, batches: int
) -> dict[str, Portion]:
    """What each source gets of so many batches of a phase.

    Raises: RecipeError for a source of unknown size.
    """
    recipe, given = loaded.value, named_shares(phase)
    samples = apportion(batches * recipe.global_batch_sequences, list(given.values()))
    targets = apportion(phase.tokens, list(given.values()))
    found: dict[str, Portion] = {}
    for (name, share), own, target in zip(given.items(), samples, targets, strict=True):
        inside = _weights(loaded, name, sizes)
        for source, weight, one, goal in zip(
            members(recipe, name),
            inside,
            apportion(own, inside),
            apportion(target, inside),
            strict=True,
        ):
            found[source] = Portion(
                name=name, share=share * weight, num_samples=one, target_tokens=goal
            )
    return found


def nearest_batches(tokens: int, batch_tokens: int) -> int:
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
    total = sum(counts)
    return [Fraction(count, total) for count in counts]


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
