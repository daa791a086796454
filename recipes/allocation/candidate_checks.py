"""What must hold in the candidates of an allocation: each spends the budget on what there is."""

from frontload.recipes.allocation.lattice import (
    LatticePoint,
    batch_tokens,
    competitor_point,
    exchange_points,
    levels_of,
    make_lattice,
    onset_of,
    pretraining_total,
    shares_that_differ,
    spent_tokens,
)
from frontload.recipes.allocation.schema import LOSS, AllocationRecipe
from frontload.recipes.grammar.limits import require_choice
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.study.checks import known_size
from frontload.recipes.study.points import BASE
from frontload.recipes.study.raw_checks import set_names
from frontload.recipes.study.schema import PointKnobs


def check_candidates(loaded: Loaded[AllocationRecipe]) -> None:
    """Refuses a lattice or a competitor that does not spend the budget, or that overspends a set.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    _check_steps(loaded)
    _check_competitors(loaded)


def _check_steps(loaded: Loaded[AllocationRecipe]) -> None:
    """No level of the share snaps to another one's tokens; each has a combination that fits."""
    recipe = loaded.value
    levels, most = recipe.factors.pretraining_share, shares_that_differ(recipe)
    if levels.steps > most:
        raise loaded.refuse(
            "factors.pretraining_share.steps",
            found=f"{levels.steps} levels within {most - 1} batches of SFT",
            rule="two levels differ by one batch of SFT or more",
            do=f"write at most {most}",
        )
    lattice = make_lattice(recipe)
    first = {point.levels[0] for point in lattice.points}
    span = max(levels.most - levels.least, 1e-9)
    for value in levels_of(levels):
        if round((value - levels.least) / span, 6) not in first and levels.steps > 1:
            raise loaded.refuse(
                "factors.pretraining_share.most",
                found=f"{value:g} of {recipe.budget.tokens:_} tokens fit behind no onset",
                rule=f"reasoning of pretraining lies between its onset and its "
                f"{recipe.study.pretraining.tokens:_} tokens",
                do="lower the share or the budget, or add an earlier onset",
            )


def _check_competitors(loaded: Loaded[AllocationRecipe]) -> None:
    recipe = loaded.value
    if not recipe.competitors:
        raise loaded.refuse(
            "competitors",
            found="is empty",
            rule="a recommendation is compared with what one would do without it",
            do="name e.g. all in SFT: {windows: {}, sft: {mix: ..., tokens: ...}}",
        )
    for name, knobs in recipe.competitors.items():
        path = f"competitors.{name}"
        check_point(loaded, path, knobs=knobs)
        _check_spends(loaded, path, point=competitor_point(recipe, knobs))


def check_point(loaded: Loaded[AllocationRecipe], path: str, *, knobs: PointKnobs) -> None:
    """Refuses a named cell that says more than what is read, or reads what there is not.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    study = loaded.value.study
    names = tuple(name for name in set_names(study) if name != BASE)
    for one in knobs.windows:
        require_choice(loaded, f"{path}.windows.{one}", value=one, names=names)
    if knobs.sft is None or knobs.rl or knobs.seeds or knobs.suites:
        raise loaded.refuse(
            path,
            found="has no `sft`" if knobs.sft is None else "has rl, seeds or suites",
            rule="a competitor, or a cell of an exchange rate, is what is read: windows, an onset "
            "and sft (tokens: 0 is none); seeds and suite are those of the comparison",
            do="write {windows: {...}, sft: {mix: ..., tokens: ...}}",
        )
    require_choice(loaded, f"{path}.sft.mix", value=knobs.sft.mix, names=names)
    batch = batch_tokens(study, "sft")
    if knobs.sft.tokens % batch:
        below = knobs.sft.tokens // batch * batch
        raise loaded.refuse(
            f"{path}.sft.tokens",
            found=f"is {knobs.sft.tokens:_}",
            rule=f"it is a whole multiple of {batch:_}",
            do=f"write {below:_} or {below + batch:_}",
        )
    total = pretraining_total(loaded.value, knobs.sft.tokens)
    read, onset = sum(knobs.windows.values()), onset_of(study, knobs)
    if read > total - onset:
        raise loaded.refuse(
            f"{path}.windows",
            found=f"{read:_} tokens after an onset with room for {total - onset:_}",
            rule="reasoning of pretraining lies behind its onset",
            do="lower the windows or the onset",
        )


def _check_spends(loaded: Loaded[AllocationRecipe], path: str, *, point: LatticePoint) -> None:
    recipe, budget = loaded.value, loaded.value.budget
    spends = spent_tokens(recipe, point)
    allowed = batch_tokens(recipe.study, "sft") / 2 if budget.unit == LOSS else 0
    if abs(spends - budget.tokens) > allowed:
        raise loaded.refuse(
            path,
            found=f"spends {spends:_.0f} {budget.unit} tokens",
            rule=f"every candidate spends the budget, {budget.tokens:_}",
            do=f"change its windows or its sft.tokens by {budget.tokens - spends:+_.0f}",
        )


def check_epochs(loaded: Loaded[AllocationRecipe]) -> None:
    """Refuses a question of which a cell repeats a set more often than is allowed.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    recipe = loaded.value
    read: dict[tuple[str, str], int] = {}
    for point in (*make_lattice(recipe).points, *exchange_points(recipe).values()):
        for name, tokens in point.knobs.windows.items():
            at = ("study.pretraining.max_epochs", name)
            read[at] = max(read.get(at, 0), tokens)
        if point.sft_tokens and point.knobs.sft is not None:
            at = ("sft_max_epochs", point.knobs.sft.mix)
            read[at] = max(read.get(at, 0), point.sft_tokens)
    for (path, name), tokens in read.items():
        of = recipe.sft_max_epochs if path == "sft_max_epochs" else None
        allowed = (recipe.study.pretraining.max_epochs if of is None else of).get(name)
        if allowed is None:
            raise loaded.refuse(
                path,
                found=f"nothing for '{name}'",
                rule="every set states how often it may be repeated",
                do=f"add `{name}: 1.0`",
            )
        size = known_size(recipe.study, name)
        if size is not None and tokens > allowed * size:
            raise loaded.refuse(
                f"{path}.{name}",
                found=f"{tokens:_} tokens of a set of {size:_}"
                + (f" are {tokens / size:.2f} epochs" if size else ""),
                rule=f"at most {allowed:g} epochs of {name} are allowed",
                do=f"write at least {-(-100 * tokens // size) / 100:g}, enlarge the set, or lower "
                "the budget"
                if size
                else "enlarge the set",
            )
