"""How a phase's samples are divided among its sources: exact shares, by largest remainder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from frontload.data_tools.blending.weights import as_shares, tempered, unimax
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.blend import BlendRecipe, PhaseKnobs, members


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
    loaded: Loaded[BlendRecipe], sizes: Mapping[str, Size], *, batches: Mapping[str, int]
) -> dict[str, dict[str, Portion]]:
    """Phase -> what each source gets of so many batches of it.

    Raises: RecipeError for a source of unknown size.
    """
    recipe = loaded.value
    own = {name: _named_samples(recipe, name, count) for name, count in batches.items()}
    read: dict[str, list[int]] = {}
    for samples in own.values():
        for name, count in samples.items():
            read.setdefault(name, []).append(count)
    inside = {name: _weights(loaded, name, sizes, read=counts) for name, counts in read.items()}
    return {
        phase: _division(recipe, recipe.phases[phase], samples=samples, inside=inside)
        for phase, samples in own.items()
    }


def _named_samples(recipe: BlendRecipe, phase: str, batches: int) -> dict[str, int]:
    shares = named_shares(recipe.phases[phase])
    samples = apportion(batches * recipe.global_batch_sequences, list(shares.values()))
    return dict(zip(shares, samples, strict=True))


def _division(
    recipe: BlendRecipe,
    phase: PhaseKnobs,
    *,
    samples: Mapping[str, int],
    inside: Mapping[str, Sequence[Fraction]],
) -> dict[str, Portion]:
    """The samples of each name, divided among the sources behind it."""
    given = named_shares(phase)
    targets = apportion(phase.tokens, list(given.values()))
    found: dict[str, Portion] = {}
    for (name, share), target in zip(given.items(), targets, strict=True):
        weights = inside[name]
        for source, weight, one, goal in zip(
            members(recipe, name),
            weights,
            apportion(samples[name], weights),
            apportion(target, weights),
            strict=True,
        ):
            found[source] = Portion(
                name=name, share=share * weight, num_samples=one, target_tokens=goal
            )
    return found


def nearest_batches(tokens: int, batch_tokens: int) -> int:
    """Whole batches nearest to a budget; the fewer of two that are as near."""
    return -((batch_tokens - 2 * tokens) // (2 * batch_tokens))


def _weights(
    loaded: Loaded[BlendRecipe], name: str, sizes: Mapping[str, Size], *, read: Sequence[int]
) -> list[Fraction]:
    """Exact weights of the sources behind a name; they sum to 1.

    `read` has the samples that each phase reads under the name: UniMax asks for their sum.
    """
    recipe = loaded.value
    for source in members(recipe, name):
        if sizes[source].tokens == 0:
            raise _unknown(loaded, source, "tokens", sizes[source])
    mix = recipe.mixes.get(name)
    if mix is None:
        return [Fraction(1)]
    if mix.weighting == "equal":
        return [Fraction(1, len(mix.members))] * len(mix.members)
    tokens = [sizes[source].tokens for source in mix.members]
    if mix.weighting == "temperature":
        assert mix.temperature is not None, "checked with the recipe"
        return as_shares(tempered(tokens, mix.temperature))
    if mix.weighting == "unimax":
        most = [recipe.sources[source].max_epochs * sizes[source].tokens for source in mix.members]
        sequences = [int(one / recipe.sequence_tokens) for one in most]
        # largest remainder gives a source less than one sample more than its share of a phase
        return as_shares(unimax(sum(read), [max(0, one - len(read)) for one in sequences]))
    if mix.weighting == "token":
        return as_shares(tokens)
    documents = [sizes[source].documents for source in mix.members]
    if 0 in documents:
        source = mix.members[documents.index(0)]
        raise _unknown(loaded, source, "samples", sizes[source])
    return as_shares(documents)


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
