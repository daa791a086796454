"""What must hold in what a question reads beside its verdict."""

from collections import defaultdict

from frontload.recipes.allocation.candidate_checks import check_point
from frontload.recipes.allocation.lattice import exchange_points
from frontload.recipes.allocation.schema import AllocationRecipe, ExchangeKnobs
from frontload.recipes.grammar.limits import require_at_least, require_choice, require_distinct
from frontload.recipes.grammar.load import Loaded

LEAST_SEEDS = 2  # of a spread
LEAST_CELLS = 5  # as many as the law has numbers
MOST_FACTOR = 10.0  # of a learning rate


def check_readings(loaded: Loaded[AllocationRecipe]) -> None:
    """Refuses readings that their cells cannot give.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    knobs = loaded.value.readings
    if knobs is None:
        return
    require_at_least(loaded, "readings.seeds", value=knobs.seeds, least=LEAST_SEEDS)
    if knobs.exchange is None and not knobs.sft_rates:
        raise loaded.refuse(
            "readings",
            found="has neither exchange nor sft_rates",
            rule="it says what is read beside the verdict",
            do="write sft_rates: [0.5, 2.0], or leave readings out",
        )
    require_distinct(loaded, "readings.sft_rates", names=knobs.sft_rates)
    for place, factor in enumerate(knobs.sft_rates):
        if not 1 / MOST_FACTOR <= factor <= MOST_FACTOR or factor == 1.0:
            raise loaded.refuse(
                f"readings.sft_rates.{place}",
                found=f"is {factor:g}",
                rule=f"it is a factor of the study's rate, {1 / MOST_FACTOR:g} to {MOST_FACTOR:g} "
                "and not 1",
                do="write e.g. 0.5",
            )
    if knobs.exchange is not None:
        _check_exchange(loaded, knobs.exchange)


def _check_exchange(loaded: Loaded[AllocationRecipe], knobs: ExchangeKnobs) -> None:
    recipe, path = loaded.value, "readings.exchange"
    require_choice(
        loaded, f"{path}.objective", value=knobs.objective, names=tuple(recipe.objectives)
    )
    for name, one in knobs.cells.items():
        check_point(loaded, f"{path}.cells.{name}", knobs=one)
        if one.sft is None or not one.sft.tokens:
            raise loaded.refuse(
                f"{path}.cells.{name}.sft",
                found="has no tokens",
                rule="a model without SFT does not know the format that it is scored in, so no one "
                "law holds for models with it and without",
                do="write sft: {mix: ..., tokens: ...} with some tokens",
            )
    points = exchange_points(recipe)
    spent = {(point.pretraining_tokens, point.sft_tokens) for point in points.values()}
    _require(
        loaded,
        len(spent) >= LEAST_CELLS,
        found=f"{len(spent)} different cells",
        rule=f"the law has {LEAST_CELLS} numbers",
        do=f"name {LEAST_CELLS} cells or more",
    )
    _require(
        loaded,
        len({sum(one) for one in spent}) > 1,
        found=f"every cell spends {sum(next(iter(spent))):_} tokens",
        rule="where both stages always spend one sum, what a token of each is worth cannot be told "
        "apart",
        do="let some cells spend less",
    )
    by_before = defaultdict(set)
    for before, after in spent:
        by_before[before].add(after)
    _require(
        loaded,
        len(by_before) > 1 and any(len(each) > 1 for each in by_before.values()),
        found=f"{len(by_before)} budgets of pretraining",
        rule="one budget of pretraining has two of SFT, and another budget of it is there beside",
        do="add a cell with as much pretraining and less SFT, or the reverse",
    )
    kinds = {tuple(sorted(p.knobs.windows)) for p in points.values() if p.pretraining_tokens}
    mixes = {p.knobs.sft.mix for p in points.values() if p.knobs.sft is not None}
    onsets = {p.knobs.onset_tokens for p in points.values() if p.pretraining_tokens}
    for what, found in (("pretraining sets", kinds), ("SFT mixes", mixes), ("onsets", onsets)):
        _require(
            loaded,
            len(found) == 1,
            found=f"{len(found)} {what}",
            rule="a rate is of one set against one mix, from one onset",
            do="leave the other cells out",
        )


def _require(
    loaded: Loaded[AllocationRecipe], is_so: bool, *, found: str, rule: str, do: str
) -> None:
    if not is_so:
        raise loaded.refuse("readings.exchange.cells", found=found, rule=rule, do=do)
