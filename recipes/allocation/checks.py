"""What must hold in an allocation's question before any of it is planned."""

from frontload.recipes.allocation.candidate_checks import check_candidates, check_epochs
from frontload.recipes.allocation.lattice import batch_tokens, budget_unit
from frontload.recipes.allocation.reading_checks import check_readings
from frontload.recipes.allocation.schema import (
    COMPUTE,
    CPU_SECONDS,
    FIXED,
    GPU_HOURS,
    LOSS,
    MONEY_UNITS,
    UNITS,
    AllocationRecipe,
    Levels,
)
from frontload.recipes.grammar.limits import (
    require_at_least,
    require_at_most,
    require_choice,
    require_distinct,
    require_share,
    require_shares,
)
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.grammar.tree import COMMAND_LINE
from frontload.recipes.study.checks import check_study
from frontload.recipes.study.graph import WSD
from frontload.recipes.study.points import BASE
from frontload.recipes.study.raw_checks import set_names

MOST_STEPS = 101
LEAST_ARMS = 2  # of a block at a new seed
LEAST_SEEDS = 2  # of an interval


def check_allocation(loaded: Loaded[AllocationRecipe]) -> None:
    """Refuses a question whose parts do not fit together.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    recipe = loaded.value
    check_study(loaded.section("study", recipe.study))
    _check_seeds(loaded)
    _check_factors(loaded)
    _check_budget(loaded)
    _check_objectives(loaded)
    check_candidates(loaded)
    check_readings(loaded)
    check_epochs(loaded)
    _check_money(loaded)
    _check_design(loaded)


def _check_seeds(loaded: Loaded[AllocationRecipe]) -> None:
    """Seeds that the question states for its study would be ignored: its blocks choose them."""
    stated = loaded.places["study.seeds"]
    own = {_file_of(place) for path, place in loaded.places.items() if not path.startswith("study")}
    if _file_of(stated) in {COMMAND_LINE, *own}:
        raise loaded.refuse(
            "study.seeds",
            found=f"is {list(loaded.value.study.seeds)}",
            rule="a question chooses its seeds itself: blocks of exploring begin at seed 1, and a "
            "comparison takes seeds that nothing was chosen by",
            do="leave it out; design.first_seeds and design.least_seeds say how many",
        )


def _file_of(place: str) -> str:
    return place.rpartition(":")[0] or place


def _check_factors(loaded: Loaded[AllocationRecipe]) -> None:
    factors = loaded.value.factors
    if factors.onset is not None and factors.base_share is not None:
        raise loaded.refuse(
            "factors.base_share",
            found="stands beside factors.onset",
            rule="reasoning is read to the end of pretraining, so its onset and its share there "
            "follow from each other",
            do="leave one of the two out",
        )
    for name in ("pretraining_share", "onset", "base_share"):
        levels: Levels | None = getattr(factors, name)
        if levels is not None:
            _check_levels(loaded, f"factors.{name}", levels=levels)
    if factors.base_share is not None and factors.base_share.most >= 1.0:
        raise loaded.refuse(
            "factors.base_share.most",
            found=f"is {factors.base_share.most:g}",
            rule="after the onset there is reasoning, so the share of base text is below 1",
            do="write e.g. 0.9",
        )
    names = tuple(name for name in set_names(loaded.value.study) if name != BASE)
    require_distinct(loaded, "factors.sft_mixes", names=factors.sft_mixes)
    for place, mix in enumerate(factors.sft_mixes):
        require_choice(loaded, f"factors.sft_mixes.{place}", value=mix, names=names)
    for name, weights in factors.pretraining_sets.items():
        path = f"factors.pretraining_sets.{name}"
        for one in weights:
            require_choice(loaded, f"{path}.{one}", value=one, names=names)
        require_shares(loaded, path, of=weights, what="set")
    for path in ("pretraining_sets", "sft_mixes"):
        if not getattr(factors, path):
            raise loaded.refuse(
                f"factors.{path}",
                found="is empty",
                rule="a budget is spent on one set or more, in pretraining and in SFT",
                do=f"name one of {', '.join(names)}",
            )


def _check_levels(loaded: Loaded[AllocationRecipe], path: str, *, levels: Levels) -> None:
    for end in ("least", "most"):
        require_share(loaded, f"{path}.{end}", value=getattr(levels, end))
    if levels.least > levels.most:
        raise loaded.refuse(
            f"{path}.least",
            found=f"{levels.least:g} is above most {levels.most:g}",
            rule="a range goes from its least to its most",
            do="swap them",
        )
    require_at_least(loaded, f"{path}.steps", value=levels.steps, least=1)
    require_at_most(loaded, f"{path}.steps", value=levels.steps, most=MOST_STEPS)
    if (levels.steps == 1) != (levels.least == levels.most):
        raise loaded.refuse(
            f"{path}.steps",
            found=f"{levels.steps} from {levels.least:g} to {levels.most:g}",
            rule="one level has one value, and a range has two levels or more",
            do="write steps: 2 or more, or the same least and most with steps: 1",
        )


def _check_budget(loaded: Loaded[AllocationRecipe]) -> None:
    recipe, budget = loaded.value, loaded.value.budget
    require_choice(loaded, "budget.unit", value=budget.unit, names=UNITS)
    require_choice(loaded, "budget.fixed", value=budget.fixed, names=FIXED)
    unit = budget_unit(recipe.study)
    if budget.tokens < unit or budget.tokens % unit:
        below = budget.tokens // unit * unit
        raise loaded.refuse(
            "budget.tokens",
            found=f"is {budget.tokens:_}, which no point of the lattice spends",
            rule=f"a budget is whole batches of SFT and whole sequences of pretraining: a multiple "
            f"of {unit:_}",
            do=f"write {below:_} or {below + unit:_}" if below else f"write {unit:_}",
        )
    shares = budget.loss_share
    for mix in recipe.factors.sft_mixes if budget.unit == LOSS else ():
        if mix not in shares:
            raise loaded.refuse(
                "budget.loss_share",
                found=f"nothing for '{mix}'",
                rule="with unit: loss each SFT mix states its tokens with a loss over its tokens "
                "of packed rows",
                do=f"add `{mix}: 0.5`, or loss_tokens / (rows x row tokens) of its pack.json",
            )
    for mix, share in shares.items():
        require_share(loaded, f"budget.loss_share.{mix}", value=share)
        if not share or budget.unit != LOSS:
            raise loaded.refuse(
                f"budget.loss_share.{mix}",
                found=f"is {share:g} with unit: {budget.unit}",
                rule="it is above 0, and read with unit: loss alone",
                do="leave it out, or write unit: loss and a share above 0",
            )
    _check_compute(loaded)


def _check_compute(loaded: Loaded[AllocationRecipe]) -> None:
    recipe = loaded.value
    knobs, batch = recipe.study.pretraining, batch_tokens(recipe.study, "pretraining")
    if recipe.budget.fixed != COMPUTE:
        return
    if knobs.schedule != WSD:
        raise loaded.refuse(
            "budget.fixed",
            found=f"is {COMPUTE}, and pretraining.schedule {knobs.schedule}",
            rule="pretraining is shorter where SFT is longer; only wsd has a learning rate before "
            "its end that does not hang on the length, so only then is a trunk shared",
            do="write study.pretraining.schedule=wsd with a decay_share, or fixed: pretraining",
        )
    if batch_tokens(recipe.study, "sft") % batch:
        raise loaded.refuse(
            "budget.fixed",
            found=f"an SFT batch has {batch_tokens(recipe.study, 'sft'):_} tokens, one of "
            f"pretraining {batch:_}",
            rule="what SFT takes from pretraining is whole batches of it",
            do="write study.sft.global_batch_sequences such that one is a multiple of the other",
        )


def _check_objectives(loaded: Loaded[AllocationRecipe]) -> None:
    recipe = loaded.value
    require_choice(loaded, "decides", value=recipe.decides, names=tuple(recipe.objectives))
    for name, knobs in recipe.objectives.items():
        path = f"objectives.{name}"
        if knobs.epsilon <= 0.0:
            raise loaded.refuse(
                f"{path}.epsilon",
                found=f"is {knobs.epsilon:g}",
                rule="some difference is too small to act on: it is above 0",
                do="write e.g. study.evaluation.min_effect, "
                f"{recipe.study.evaluation.min_effect:g}",
            )
        if not any(knobs.weights.values()):
            raise loaded.refuse(
                f"{path}.weights",
                found="is empty" if not knobs.weights else "weighs nothing",
                rule="an objective is a weighted sum of metrics",
                do="write e.g. {sft.avg: 1.0}",
            )


def _check_money(loaded: Loaded[AllocationRecipe]) -> None:
    recipe, money = loaded.value, loaded.value.money
    require_choice(loaded, "money.unit", value=money.unit, names=MONEY_UNITS)
    placement = recipe.study.placement
    right = CPU_SECONDS if placement.gpus is None else GPU_HOURS
    if money.unit != right:
        raise loaded.refuse(
            "money.unit",
            found=f"is {money.unit}, and the study's placement {placement.name} has "
            + ("no GPU" if placement.gpus is None else "GPUs"),
            rule="money is counted in what the study's stages hold",
            do=f"write {right}",
        )
    for name in ("explore", "validate"):
        if getattr(money, name) <= 0.0:
            raise loaded.refuse(
                f"money.{name}",
                found=f"is {getattr(money, name):g}",
                rule="exploring and validating both cost something",
                do=f"write e.g. 1_000 {money.unit}; `frontload allocate ... --plan` prices a block",
            )


def _check_design(loaded: Loaded[AllocationRecipe]) -> None:
    design = loaded.value.design
    if design.first_arms < LEAST_ARMS:
        raise loaded.refuse(
            "design.first_arms",
            found=f"is {design.first_arms}",
            rule="cells are compared within a seed: a seed with one arm alone tells nothing",
            do=f"write {LEAST_ARMS} or more",
        )
    require_at_least(loaded, "design.first_seeds", value=design.first_seeds, least=1)
    require_at_least(loaded, "design.least_seeds", value=design.least_seeds, least=LEAST_SEEDS)
    if design.half_width <= 0.0:
        raise loaded.refuse(
            "design.half_width",
            found=f"is {design.half_width:g}",
            rule="an interval has a width",
            do="write e.g. the deciding objective's epsilon",
        )
