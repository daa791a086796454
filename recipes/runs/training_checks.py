"""What must hold between the numbers of a training recipe before it is launched or run."""

from collections import Counter
from typing import Any

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.limits import (
    TOLERANCE,
    require_at_least,
    require_choice,
    require_schedule,
    require_share,
)
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.checks import check_upkeep
from frontload.recipes.machines.precision import PRECISIONS
from frontload.recipes.runs.adamw import adamw_problems
from frontload.recipes.runs.training import (
    BUDGET_UNITS,
    ROWS,
    PretrainRecipe,
    SftBudgetKnobs,
    SftRecipe,
    TrainingKnobs,
)
from frontload.recipes.schema import Model
from frontload.recipes.token_losses import TokenLoss, check_token_loss

USUAL_FILL = 0.75  # ours: rows of the laptop's sets are 80% to 99% full
PERCENT = 100
NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")

Train = Loaded[PretrainRecipe] | Loaded[SftRecipe]


def check_train(loaded: Train) -> None:
    """Refuses a training recipe whose parts do not fit together.

    Raises: RecipeError with the place, the value, the rule and what would fit.
    """
    recipe = loaded.value
    require_at_least(loaded, "seed", value=recipe.seed, least=0)
    check_training(loaded, recipe, model=recipe.model, precisions=tuple(PRECISIONS))
    check_upkeep(loaded, recipe.upkeep, under="upkeep.")
    if isinstance(recipe, PretrainRecipe):
        _check_phases(loaded, recipe)
        check_sparsity(loaded, "sparsity", value=recipe.sparsity)
    else:
        check_sft_budget(loaded, recipe)
        check_loss(loaded, "loss", loss=recipe.loss, precision=recipe.precision)


def check_training(
    loaded: Loaded[Any],
    knobs: TrainingKnobs,
    *,
    model: Model,
    precisions: tuple[str, ...],
    under: str = "",
) -> None:
    """Refuses numbers of a training that no run can have; `under` stands before their names.

    Raises: RecipeError with the place, the value, the rule and what would fit.
    """
    for name in ("sequence_tokens", "global_batch_sequences"):
        require_at_least(loaded, f"{under}{name}", value=getattr(knobs, name), least=1)
    if knobs.sequence_tokens > model.max_sequence_tokens:
        raise loaded.refuse(
            f"{under}sequence_tokens",
            found=f"is {knobs.sequence_tokens}",
            rule=f"a sequence fits the model, whose max_sequence_tokens is "
            f"{model.max_sequence_tokens}",
            do=f"write at most {model.max_sequence_tokens}, or raise model.max_sequence_tokens",
        )
    require_choice(loaded, f"{under}precision", value=knobs.precision, names=precisions)
    share = f"{under}final_learning_rate_share"
    require_share(loaded, share, value=knobs.final_learning_rate_share)
    # Megatron clips no gradient at clip_grad 0
    for problem in adamw_problems(knobs, under, may_be_zero=("clip_grad",)):
        raise loaded.refuse(problem.path, found=problem.found, rule=problem.rule, do=problem.do)
    require_schedule(
        loaded,
        kind_path=f"{under}schedule",
        under=under,
        kind=knobs.schedule,
        warmup=knobs.warmup_share,
        decay=knobs.decay_share,
    )


def check_sparsity(loaded: Loaded[Any], path: str, *, value: float) -> None:
    """Refuses a share of masked weights that leaves none, or that no name can say."""
    if not 0.0 <= value < 1.0 or abs(PERCENT * value - round(PERCENT * value)) > TOLERANCE:
        raise loaded.refuse(
            path,
            found=f"is {value:g}",
            rule="sparsity is a share of whole percents, 0 or more and below 1: a part of each "
            "matrix learns",
            do="write e.g. 0.5, or 0.0 for dense pretraining",
        )


def check_loss(loaded: Loaded[Any], path: str, *, loss: TokenLoss, precision: str) -> None:
    """Refuses a loss of fine-tuning that is none, at the line that set it."""
    try:
        is_fp8 = precision in PRECISIONS and PRECISIONS[precision].is_fp8
        check_token_loss(loss, precision=precision, is_fp8=is_fp8)
    except RecipeError as error:
        raise loaded.refuse_at(f"{path}.{error.asked}", error) from error


def check_sft_budget(loaded: Loaded[Any], knobs: SftBudgetKnobs, *, under: str = "") -> None:
    """Refuses a budget that no steps spend, and steps that no batch can hold.

    Raises: RecipeError with the place, the value, the rule and what would fit.
    """
    require_at_least(loaded, f"{under}tokens", value=knobs.tokens, least=1)
    require_choice(loaded, f"{under}budget_unit", value=knobs.budget_unit, names=BUDGET_UNITS)
    if knobs.budget_unit == ROWS:
        if knobs.step_tokens:
            raise loaded.refuse(
                f"{under}step_tokens",
                found=f"is {knobs.step_tokens:_} with budget_unit: rows",
                rule="a step of rows is a batch",
                do="leave it out, or write budget_unit: read",
            )
        check_whole_batches(loaded, f"{under}tokens", tokens=knobs.tokens, batch=knobs.batch_tokens)
        return
    least, most = knobs.sequence_tokens + 1, knobs.batch_tokens
    if not least <= knobs.step_tokens <= most:
        rows = knobs.global_batch_sequences
        raise loaded.refuse(
            f"{under}step_tokens",
            found=f"is {knobs.step_tokens:_} with budget_unit: {knobs.budget_unit}",
            rule=f"the tokens of a step are more than a row holds and at most those of a batch, "
            f"{rows} rows of {knobs.sequence_tokens}: {least:_} to {most:_}",
            do=f"write {max(least, round(USUAL_FILL * most)):_}, which leaves a quarter for padding"
            if most >= least
            else f"write {under}global_batch_sequences of at least 2",
        )


def _check_phases(loaded: Train, recipe: PretrainRecipe) -> None:
    names = [phase.name for phase in recipe.phases]
    if not names or len(set(names)) != len(names):
        raise loaded.refuse(
            "phases",
            found="names " + (", ".join(names) or "nothing"),
            rule="a run has phases, each with a name of its own",
            do="write at least one, and no name twice",
        )
    for place, phase in enumerate(recipe.phases):
        path = f"phases.{place}"
        if not phase.name or set(phase.name) - NAME_LETTERS:
            raise loaded.refuse(
                f"{path}.name",
                found=f"is '{phase.name}'",
                rule="it names a folder: small letters, digits and _",
                do="rename it, e.g. second",
            )
        check_whole_batches(
            loaded, f"{path}.tokens", tokens=phase.tokens, batch=recipe.batch_tokens
        )
        total = sum(phase.sources.values())
        if abs(total - 1.0) > TOLERANCE or min(phase.sources.values(), default=0.0) <= 0.0:
            raise loaded.refuse(
                f"{path}.sources",
                found=f"sums to {total:g}" if phase.sources else "is empty",
                rule="shares are above 0 and sum to 1",
                do="scale them or add the missing source",
            )


def check_whole_batches(loaded: Loaded[Any], path: str, *, tokens: int, batch: int) -> None:
    """Refuses a budget that is not whole global batches.

    Raises: RecipeError naming both budgets beside it.
    """
    if tokens > 0 and tokens % batch == 0:
        return
    below = tokens // batch * batch
    raise loaded.refuse(
        path,
        found=f"is {tokens:_}",
        rule=f"a budget is whole global batches of {batch:_} tokens",
        do=f"write {below:_} or {below + batch:_}" if below > 0 else f"write {batch:_}",
    )


def check_phase_plan(recipe: PretrainRecipe, name: str, plan: dict[str, object]) -> None:
    """Refuses a blend that is not the data of this phase. `plan` is its plan.json.

    Raises: RecipeError naming the phase and the number that differs.
    """
    phase = next(one for one in recipe.phases if one.name == name)
    samples = phase.tokens // recipe.sequence_tokens
    sources: list[dict[str, object]] = plan["sources"]  # type: ignore[assignment]
    found: Counter[str] = Counter()
    for one in sources:  # members of a mix count as the mix
        found[str(one.get("mix", one["name"]))] += int(str(one["num_samples"]))
    total = sum(found.values())
    asked = f"blend of phase {name}"
    if (plan["sequence_tokens"], total) != (recipe.sequence_tokens, samples):
        raise RecipeError(
            asked,
            found=f"{total} samples of {plan['sequence_tokens']} tokens",
            rule=f"the recipe trains on {samples} of {recipe.sequence_tokens}",
            do="make the blend with this phase's tokens and sequence_tokens",
        )
    for source in sorted({*found, *phase.sources}):
        share = phase.sources.get(source, 0.0) * samples
        if abs(found.get(source, 0) - share) > 1.0:  # a blend gives whole samples
            raise RecipeError(
                asked,
                found=f"{found.get(source, 0)} samples of {source}",
                rule=f"phases.{name}.sources gives it {share:g} of {samples}",
                do="make the blend with the shares of the recipe, or change them",
            )
