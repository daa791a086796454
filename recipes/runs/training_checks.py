"""What must hold between the numbers of a training recipe before it is launched or run."""

from collections import Counter
from typing import Any

from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.token_losses import check_token_loss
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
from frontload.recipes.runs.training import PretrainRecipe, SftRecipe, TrainingKnobs
from frontload.recipes.schema import Model, TokenLoss

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
    else:
        _whole_batches(loaded, "tokens", tokens=recipe.tokens)
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


def check_loss(loaded: Loaded[Any], path: str, *, loss: TokenLoss, precision: str) -> None:
    """Refuses a loss of fine-tuning that is none, at the line that set it."""
    try:
        check_token_loss(loss, precision=precision)
    except RecipeError as error:
        raise loaded.refuse_at(f"{path}.{error.asked}", error) from error


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
        _whole_batches(loaded, f"{path}.tokens", tokens=phase.tokens)
        total = sum(phase.sources.values())
        if abs(total - 1.0) > TOLERANCE or min(phase.sources.values(), default=0.0) <= 0.0:
            raise loaded.refuse(
                f"{path}.sources",
                found=f"sums to {total:g}" if phase.sources else "is empty",
                rule="shares are above 0 and sum to 1",
                do="scale them or add the missing source",
            )


def _whole_batches(loaded: Train, path: str, *, tokens: int) -> None:
    batch = loaded.value.batch_tokens
    if tokens > 0 and tokens % batch == 0:
        return
    below = tokens // batch * batch
    fits = f"{below} or {below + batch}" if below > 0 else f"{batch}"
    raise loaded.refuse(
        path,
        found=f"is {tokens}",
        rule=f"a budget is whole global batches of {batch} tokens",
        do=f"write {fits}",
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
