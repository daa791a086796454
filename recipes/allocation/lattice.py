"""The candidates of an allocation: every combination of factors that spends the budget. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import lcm

from frontload.recipes.allocation.schema import COMPUTE, LOSS, AllocationRecipe, Levels
from frontload.recipes.runs.training import ROWS
from frontload.recipes.study.checks import known_size
from frontload.recipes.study.points import first_phase_tokens, snap
from frontload.recipes.study.schema import PointKnobs, PointTuning, StudyRecipe

NONE = "none"  # instead of a set that a candidate reads nothing of


@dataclass(frozen=True, kw_only=True)
class LatticePoint:
    """One way to spend the budget."""

    name: str
    knobs: PointKnobs  # without seeds
    pretraining_tokens: int  # of reasoning
    sft_tokens: int  # of packed rows
    total_pretraining_tokens: int
    levels: tuple[float, ...]  # on each factor, 0 to 1 within its range
    sets: tuple[str, ...]  # pretraining set and SFT mix

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for points that train the same model."""
        windows = tuple(sorted(self.knobs.windows.items()))
        onset = self.knobs.onset_tokens if windows else None
        mix = self.sets[1] if self.sft_tokens else NONE
        return windows, onset, mix, self.sft_tokens, self.total_pretraining_tokens


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """The candidates of a question, those that the competitors are among them."""

    factors: tuple[str, ...]
    points: tuple[LatticePoint, ...]
    competitors: dict[str, int]  # name -> place of its point
    num_left_out: int  # combinations whose reasoning does not fit behind their onset


def batch_tokens(study: StudyRecipe, section: str) -> int:
    """Tokens of one batch of `pretraining`, or what a budget of `sft` is a multiple of.

    An SFT budget in real tokens has no unit of its own: it takes pretraining's batches, so that
    both together spend every budget that pretraining can.
    """
    if section == "sft" and study.sft.budget_unit != ROWS:
        return study.pretraining.batch_tokens
    return getattr(study, section).batch_tokens


def budget_unit(study: StudyRecipe) -> int:
    """What a budget is a multiple of: whole batches of SFT and whole sequences of pretraining."""
    return lcm(batch_tokens(study, "sft"), study.pretraining.sequence_tokens)


def levels_of(levels: Levels) -> tuple[float, ...]:
    """The values of a factor."""
    if levels.steps == 1:
        return (levels.least,)
    width = (levels.most - levels.least) / (levels.steps - 1)
    return tuple(round(levels.least + place * width, 6) for place in range(levels.steps))


def make_lattice(recipe: AllocationRecipe) -> Lattice:
    """All candidates of a checked recipe, each model once."""
    factors = recipe.factors
    names = ["share in pretraining"]
    names += ["onset"] if factors.onset is not None else []
    names += ["base share"] if factors.base_share is not None else []
    known: dict[tuple[object, ...], LatticePoint] = {}
    left_out = 0
    for point in _combinations(recipe):
        if point is None:
            left_out += 1
            continue
        known.setdefault(point.identity, point)
    points = list(known.values())
    competitors: dict[str, int] = {}
    for name, knobs in recipe.competitors.items():
        point = competitor_point(recipe, knobs)
        if point.identity not in known:
            known[point.identity] = point
            points.append(point)
        competitors[name] = list(known).index(point.identity)
    return Lattice(
        factors=tuple(names),
        points=tuple(points),
        competitors=competitors,
        num_left_out=left_out,
    )


def spent_tokens(recipe: AllocationRecipe, point: LatticePoint) -> float:
    """What a point spends of the budget, in its unit."""
    mix = point.knobs.sft.mix if point.knobs.sft is not None else ""
    return point.pretraining_tokens + point.sft_tokens * _share_of_row(recipe, mix)


def shares_that_differ(recipe: AllocationRecipe) -> int:
    """How many levels of the share are different numbers of whole batches."""
    unit = batch_tokens(recipe.study, "sft")
    span = recipe.factors.pretraining_share.most - recipe.factors.pretraining_share.least
    return int(span * recipe.budget.tokens / unit) + 1


def competitor_point(recipe: AllocationRecipe, knobs: PointKnobs) -> LatticePoint:
    """A competitor's place among the candidates, on the lattice or off it."""
    factors, budget = recipe.factors, recipe.budget
    read = sum(knobs.windows.values())
    tuning = knobs.sft or PointTuning(mix="", tokens=0)
    name = next(
        (
            name
            for name, weights in factors.pretraining_sets.items()
            if split_tokens(recipe.study, weights, tokens=read) == dict(knobs.windows)
        ),
        "+".join(knobs.windows),
    )
    total = pretraining_total(recipe, tuning.tokens)
    onset = onset_of(recipe.study, knobs)
    values = [(factors.pretraining_share, read / budget.tokens)]
    if factors.onset is not None:
        values.append((factors.onset, onset / total))
    if factors.base_share is not None:
        values.append((factors.base_share, 1 - read / max(total - onset, 1)))
    return LatticePoint(
        name=_name(read, name, tuning=tuning, onset=onset),
        knobs=PointKnobs(windows=dict(knobs.windows), onset_tokens=onset, sft=tuning),
        pretraining_tokens=read,
        sft_tokens=tuning.tokens,
        total_pretraining_tokens=total,
        levels=tuple(_scaled(levels, value) for levels, value in values),
        sets=_sets(recipe, name if read else "", mix=tuning.mix if tuning.tokens else ""),
    )


def exchange_points(recipe: AllocationRecipe) -> dict[str, LatticePoint]:
    """Name -> cell of the exchange rate; none where it is not asked for."""
    knobs = recipe.readings.exchange if recipe.readings is not None else None
    if knobs is None:
        return {}
    return {name: competitor_point(recipe, one) for name, one in knobs.cells.items()}


def exchange_sets(recipe: AllocationRecipe) -> tuple[str, str]:
    """What the cells of the exchange rate read in pretraining and in SFT."""
    points = exchange_points(recipe).values()
    before = next("+".join(point.knobs.windows) for point in points if point.pretraining_tokens)
    after = next(point.knobs.sft.mix for point in points if point.knobs.sft is not None)
    return before, after


def passes_of(recipe: AllocationRecipe, point: LatticePoint) -> dict[str, float]:
    """Set -> how often a point reads it, both stages together, where the recipe states its size."""
    read = dict(point.knobs.windows)
    if point.sft_tokens and point.knobs.sft is not None:
        mix = point.knobs.sft.mix
        read[mix] = read.get(mix, 0) + point.sft_tokens
    sizes = {name: known_size(recipe.study, name) for name in read}
    return {name: round(tokens / size, 4) for name, tokens in read.items() if (size := sizes[name])}


def split_tokens(study: StudyRecipe, weights: dict[str, float], *, tokens: int) -> dict[str, int]:
    """What each set of a weighting reads: whole sequences, the last one the rest."""
    found: dict[str, int] = {}
    left = tokens
    for place, (name, weight) in enumerate(weights.items()):
        is_last = place == len(weights) - 1
        mine = left if is_last else snap(tokens * weight, study.pretraining.sequence_tokens)
        if mine:
            found[name] = mine
        left -= mine
    return found


def _combinations(recipe: AllocationRecipe) -> Iterator[LatticePoint | None]:
    """Each combination in the order of the factors; None for one that does not fit."""
    factors, study = recipe.factors, recipe.study
    onsets = levels_of(factors.onset) if factors.onset is not None else (None,)
    bases = levels_of(factors.base_share) if factors.base_share is not None else (None,)
    shares = product(levels_of(factors.pretraining_share), onsets, bases)
    for chosen, name, mix in product(shares, factors.pretraining_sets, factors.sft_mixes):
        tuning = _tuning(recipe, mix, share=chosen[0])
        read = _pretraining_tokens(recipe, tuning)
        weights = factors.pretraining_sets[name]
        windows = split_tokens(study, weights, tokens=read)
        yield _point(recipe, windows, tuning=tuning, shares=chosen, pretraining_set=name)


def _tuning(recipe: AllocationRecipe, mix: str, *, share: float) -> PointTuning:
    wanted = (1 - share) * recipe.budget.tokens / _share_of_row(recipe, mix)
    return PointTuning(mix=mix, tokens=snap(wanted, batch_tokens(recipe.study, "sft")))


def _pretraining_tokens(recipe: AllocationRecipe, tuning: PointTuning) -> int:
    left = recipe.budget.tokens - tuning.tokens * _share_of_row(recipe, tuning.mix)
    return max(0, snap(left, recipe.study.pretraining.sequence_tokens))


def _share_of_row(recipe: AllocationRecipe, mix: str) -> float:
    return recipe.budget.loss_share.get(mix, 1.0) if recipe.budget.unit == LOSS else 1.0


def onset_of(study: StudyRecipe, knobs: PointKnobs) -> int:
    """Base text before a point's first token of reasoning."""
    onset = knobs.onset_tokens
    return first_phase_tokens(study.pretraining) if onset is None else onset


def pretraining_total(recipe: AllocationRecipe, sft_tokens: int) -> int:
    """Tokens of the whole pretraining beside so much SFT."""
    tokens = recipe.study.pretraining.tokens
    return tokens - sft_tokens if recipe.budget.fixed == COMPUTE else tokens


def _point(
    recipe: AllocationRecipe,
    windows: dict[str, int],
    *,
    tuning: PointTuning,
    shares: tuple[float, float | None, float | None],
    pretraining_set: str,
) -> LatticePoint | None:
    share, onset_share, base_share = shares
    factors, batch = recipe.factors, batch_tokens(recipe.study, "pretraining")
    read, total = sum(windows.values()), pretraining_total(recipe, tuning.tokens)
    onset = first_phase_tokens(recipe.study.pretraining)
    values = [(factors.pretraining_share, share)]
    if factors.onset is not None and onset_share is not None:
        onset = min(snap(onset_share * total, batch), total - batch)
        values.append((factors.onset, onset_share))
    if factors.base_share is not None and base_share is not None:
        onset = max(0, snap(total - read / (1 - base_share), batch)) if read else onset
        values.append((factors.base_share, base_share))
    if read > total - onset or onset >= total:
        return None
    return LatticePoint(
        name=_name(read, pretraining_set, tuning=tuning, onset=onset),
        knobs=PointKnobs(windows=windows, onset_tokens=onset, sft=tuning),
        pretraining_tokens=read,
        sft_tokens=tuning.tokens,
        total_pretraining_tokens=total,
        levels=tuple(_scaled(levels, value) for levels, value in values),
        sets=_sets(
            recipe, pretraining_set if read else "", mix=tuning.mix if tuning.tokens else ""
        ),
    )


def _sets(recipe: AllocationRecipe, pretraining_set: str, *, mix: str) -> tuple[str, str]:
    """Both sets; of one that is not read the only name there is, so that the curve has its end."""
    found = []
    known = (tuple(recipe.factors.pretraining_sets), recipe.factors.sft_mixes)
    for name, names in zip((pretraining_set, mix), known, strict=True):
        found.append(name or (names[0] if len(names) == 1 else NONE))
    return found[0], found[1]


def _scaled(levels: Levels, value: float) -> float:
    span = levels.most - levels.least
    return round((value - levels.least) / span, 6) if span else 0.5


def _name(read: int, pretraining_set: str, *, tuning: PointTuning, onset: int) -> str:
    """For people: `368,640 ldq from 2,764,800, SFT 368,640 shq`."""
    before = f"{read:,} {pretraining_set} from {onset:,}" if read else "no reasoning"
    return f"{before}, " + (f"SFT {tuning.tokens:,} {tuning.mix}" if tuning.tokens else "no SFT")
