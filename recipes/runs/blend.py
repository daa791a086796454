"""What the recipe of a blend may say: sources, mixes and phases, in tokens and exact shares.

Units: tokens. A phase's budget is a target; what is read is the nearest number of whole batches.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from frontload.recipes.grammar.limits import require_at_least, require_choice
from frontload.recipes.grammar.load import (
    Loaded,
    load_recipe,
    recipe_path,
)

READINGS = ("one_pass", "repeatable")
WEIGHTINGS = ("token", "sample", "equal", "temperature", "unimax")
MOST_DENOMINATOR = 100  # ours: of 1 / temperature, so that weights are found in exact integers
MAX_SOURCES = 32_766  # megatron-core 0.19.2, core/datasets/blended_dataset.py: __init__
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")  # of sources and phases: they are file names


@dataclass(frozen=True, kw_only=True)
class SourceKnobs:
    """One indexed data set. Declared sizes price a plan before the index exists."""

    reading: str  # one_pass: nothing is read twice; repeatable: up to max_epochs
    max_epochs: Fraction  # most passes, all phases together; one_pass: at most 1
    declared_tokens: int  # of one pass; 0 = unknown
    declared_samples: int  # documents; 0 = unknown


@dataclass(frozen=True, kw_only=True)
class BlendMix:
    """Several sources under one name."""

    members: tuple[str, ...]
    weighting: str
    """Members share by `token`, by `sample` (document) or `equal`; by tokens to the power of
    1 / `temperature`; or as `unimax`: equally, but none of them beyond its max_epochs."""
    temperature: Fraction | None = field(default=None, metadata={"neutral": None})


@dataclass(frozen=True, kw_only=True)
class PhaseKnobs:
    """One phase: a budget, and what part of it each source or mix gets."""

    tokens: int
    shares: dict[str, Fraction] | None = None  # name -> exact share: 4/5 or 0.8; sums to 1
    parts: dict[str, int] | None = None  # name -> tokens, instead of shares; sums to `tokens`


@dataclass(frozen=True, kw_only=True)
class BlendRecipe:
    """Phases of one pretraining, read one after the other from the same streams."""

    seed: int
    sequence_tokens: int
    global_batch_sequences: int  # a phase is whole batches; 1 = to the sample
    sources: dict[str, SourceKnobs] = field(metadata={"folder": "blend_sources"})
    mixes: dict[str, BlendMix]
    phases: dict[str, PhaseKnobs]  # in the order of reading

    @property
    def batch_tokens(self) -> int:
        return self.sequence_tokens * self.global_batch_sequences


def load_blend(recipe: str, *, overrides: Sequence[str] = ()) -> Loaded[BlendRecipe]:
    """Loads the recipe of a blend by name (recipes/blends) or path, and checks it.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    path = recipe_path(recipe, folder="blends", what="blend")
    loaded = load_recipe(path, BlendRecipe, overrides=overrides)
    check_recipe(loaded)
    return loaded


def check_recipe(loaded: Loaded[BlendRecipe]) -> None:
    """Refuses what no index could mend: wrong names, shares that do not sum to 1, empty phases."""
    recipe = loaded.value
    for path, value, least in (
        ("seed", recipe.seed, 0),
        ("sequence_tokens", recipe.sequence_tokens, 1),
        ("global_batch_sequences", recipe.global_batch_sequences, 1),
    ):
        require_at_least(loaded, path, value=value, least=least)
    for name, source in recipe.sources.items():
        _check_source(loaded, name, source)
    for name, mix in recipe.mixes.items():
        _check_mix(loaded, name, mix)
    if not recipe.phases:
        raise loaded.refuse(
            "phases", found="empty", rule="a blend has one phase or more", do="add a phase"
        )
    for name, phase in recipe.phases.items():
        _check_phase(loaded, name, phase)


def members(recipe: BlendRecipe, name: str) -> tuple[str, ...]:
    """The sources behind a name of a phase: a mix's members, or the source itself."""
    return recipe.mixes[name].members if name in recipe.mixes else (name,)


def _check_source(loaded: Loaded[BlendRecipe], name: str, source: SourceKnobs) -> None:
    path = f"sources.{name}"
    _check_name(loaded, path, name)
    require_choice(loaded, f"{path}.reading", value=source.reading, names=READINGS)
    for knob in ("declared_tokens", "declared_samples"):
        require_at_least(loaded, f"{path}.{knob}", value=getattr(source, knob), least=0)
    if source.max_epochs <= 0 or (source.reading == "one_pass" and source.max_epochs > 1):
        raise loaded.refuse(
            f"{path}.max_epochs",
            found=f"is {source.max_epochs} for a source that is {source.reading}",
            rule="max_epochs is above 0, and at most 1 for a one_pass source",
            do="write 1, or `reading: repeatable`",
        )


def _check_mix(loaded: Loaded[BlendRecipe], name: str, mix: BlendMix) -> None:
    path = f"mixes.{name}"
    require_choice(loaded, f"{path}.weighting", value=mix.weighting, names=WEIGHTINGS)
    _check_temperature(loaded, path, mix)
    if name in loaded.value.sources:
        raise loaded.refuse(
            path,
            found=f"'{name}' is a source too",
            rule="a name stands for one thing",
            do="rename the mix",
        )
    if not mix.members or len(set(mix.members)) != len(mix.members):
        raise loaded.refuse(
            f"{path}.members",
            found=", ".join(mix.members) or "empty",
            rule="a mix has one member or more, each once",
            do="name each source once",
        )
    for place, member in enumerate(mix.members):
        if member not in loaded.value.sources:
            names = tuple(loaded.value.sources)
            require_choice(loaded, f"{path}.members.{place}", value=member, names=names)


def _check_temperature(loaded: Loaded[BlendRecipe], path: str, mix: BlendMix) -> None:
    given = mix.temperature
    if (mix.weighting == "temperature") != (given is not None):
        raise loaded.refuse(
            f"{path}.temperature",
            found="is not given" if given is None else f"is {given} beside `{mix.weighting}`",
            rule="a mix has a temperature if its weighting is `temperature`",
            do="write e.g. `temperature: 10/3`" if given is None else "take it out",
        )
    if given is not None and (given < 1 or given.numerator > MOST_DENOMINATOR):
        raise loaded.refuse(
            f"{path}.temperature",
            found=f"is {given}",
            rule=f"it is 1 or more, a fraction of numbers up to {MOST_DENOMINATOR}",
            do="write e.g. 10/3; `token` is 1, and `equal` the limit of high ones",
        )


def _check_phase(loaded: Loaded[BlendRecipe], name: str, phase: PhaseKnobs) -> None:
    recipe, path = loaded.value, f"phases.{name}"
    _check_name(loaded, path, name)
    if (phase.shares is None) == (phase.parts is None):
        raise loaded.refuse(
            path,
            found="both shares and parts" if phase.shares else "neither shares nor parts",
            rule="a phase says what each source gets by shares, or by parts in tokens",
            do="keep one of them",
        )
    what, given = ("shares", phase.shares) if phase.parts is None else ("parts", phase.parts)
    assert given is not None
    names = (*recipe.mixes, *recipe.sources)
    taken: dict[str, str] = {}
    for one, amount in given.items():
        require_choice(loaded, f"{path}.{what}.{one}", value=one, names=names)
        if amount <= 0:
            raise loaded.refuse(
                f"{path}.{what}.{one}",
                found=f"is {amount}",
                rule="what a phase reads has a part above 0",
                do="remove the line, or write more",
            )
        for source in members(recipe, one):
            if source in taken:
                raise loaded.refuse(
                    f"{path}.{what}.{one}",
                    found=f"source {source} is in {taken[source]} too",
                    rule="a phase reads a source under one name",
                    do="take it out of one of the two",
                )
            taken[source] = one
    if len(taken) > MAX_SOURCES:
        raise loaded.refuse(
            f"{path}.{what}",
            found=f"reads {len(taken):_} sources",
            rule=f"a phase has at most {MAX_SOURCES:_}, as Megatron numbers them in int16",
            do="join sources into one index (`frontload data preprocess` takes many files)",
        )
    whole, total = (Fraction(1) if what == "shares" else phase.tokens), sum(given.values())
    if total != whole:
        raise loaded.refuse(
            f"{path}.{what}",
            found=f"sums to {total}",
            rule=f"{what} sum to {whole}" + (", the phase's tokens" if what == "parts" else ""),
            do=f"{'add' if total < whole else 'take away'} {abs(whole - total)}",
        )
    batch = recipe.batch_tokens
    if phase.tokens < batch:
        raise loaded.refuse(
            f"{path}.tokens",
            found=f"is {phase.tokens:_}",
            rule=f"a phase has one batch of {recipe.global_batch_sequences} sequences or more",
            do=f"write at least {batch:_}",
        )


def _check_name(loaded: Loaded[BlendRecipe], path: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise loaded.refuse(
            path,
            found=f"is called '{name}'",
            rule="names of sources and phases are file names: a-z, 0-9, _ and -",
            do="rename it",
        )
