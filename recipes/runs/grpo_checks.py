"""What must hold between the numbers of a GRPO recipe, checked once before anything is rendered."""

from collections.abc import Iterator

from frontload.recipes.grammar.limits import LEAST_TEMPERATURE
from frontload.recipes.grammar.load import Loaded, nearest
from frontload.recipes.runs.adamw import WrongValue, adamw_problems
from frontload.recipes.runs.grpo import (
    ACTORS,
    DECAYS,
    KL_ESTIMATORS,
    LOSS_AGGREGATIONS,
    REWARD_LAYOUTS,
    RL_PRECISIONS,
    ROLLOUTS,
    GrpoRecipe,
)

AT_LEAST_ONE = (
    "batch_prompts",
    "mini_batch_prompts",
    "steps",
    "prompt_tokens",
    "response_tokens",
    "checkpoint_every_steps",
    "sampling.validation_samples",
)
ABOVE_ZERO = ("sampling.temperature",)
NOT_NEGATIVE = (
    "optimizer.warmup_steps",
    "grpo.kl_coefficient",
    "grpo.entropy_coefficient",
    "grpo.clip_ratio_low",
    "grpo.clip_ratio_high",
    "sampling.validation_temperature",
    "validate_every_steps",
    "seed",
)
CHOICES = {
    "grpo.kl_estimator": KL_ESTIMATORS,
    "grpo.loss_aggregation": LOSS_AGGREGATIONS,
    "optimizer.decay": DECAYS,
    "precision": RL_PRECISIONS,
    "actor": ACTORS,
    "rollout": ROLLOUTS,
    "reward_layout": REWARD_LAYOUTS,
}

VALIDATION_SHARE = 8  # one prompt in so many is kept for validation and never trained on
MAX_VALIDATION_PROMPTS = 64


def num_validation_prompts(num_prompts: int) -> int:
    """How many prompts of a set are veRL's validation set: the last ones."""
    return min(MAX_VALIDATION_PROMPTS, max(1, num_prompts // VALIDATION_SHARE))


def check_grpo(loaded: Loaded[GrpoRecipe], prefix: str = "") -> None:
    """Refuses a GRPO recipe whose parts do not fit together.

    Raises: RecipeError with the place, the value, the rule and what to write.
    """
    for problem in grpo_problems(loaded.value):
        raise loaded.refuse(
            prefix + problem.path, found=problem.found, rule=problem.rule, do=problem.do
        )


def grpo_problems(recipe: GrpoRecipe) -> Iterator[WrongValue]:
    """Everything wrong with a recipe, in the order of its fields."""
    yield from _choice_problems(recipe)
    yield from _range_problems(recipe)
    yield from _batch_problems(recipe)
    yield from _sampling_problems(recipe)
    if recipe.context_tokens > recipe.model.max_sequence_tokens:
        yield WrongValue(
            path="response_tokens",
            found=f"{recipe.prompt_tokens} + {recipe.response_tokens} tokens are above "
            f"model.max_sequence_tokens {recipe.model.max_sequence_tokens}",
            rule="prompt and response together fit the model",
            do=f"write at most {recipe.model.max_sequence_tokens - recipe.prompt_tokens}",
        )


def _value(recipe: GrpoRecipe, path: str) -> float:
    found = recipe
    for part in path.split("."):
        found = getattr(found, part)
    return found  # pyright: ignore[reportReturnType]


def _choice_problems(recipe: GrpoRecipe) -> Iterator[WrongValue]:
    for path, names in CHOICES.items():
        value = str(_value(recipe, path))
        if value not in names:
            yield WrongValue(
                path=path,
                found=f"'{value}' is not known",
                rule="it must be one of " + ", ".join(names),
                do=nearest(value, names),
            )


def _range_problems(recipe: GrpoRecipe) -> Iterator[WrongValue]:
    for path in AT_LEAST_ONE:
        if _value(recipe, path) < 1:
            yield WrongValue(
                path=path, found=f"is {_value(recipe, path)}", rule="it is 1 or more", do="raise it"
            )
    for path in ABOVE_ZERO:
        if _value(recipe, path) <= 0:
            yield WrongValue(
                path=path, found=f"is {_value(recipe, path)}", rule="it is above 0", do="raise it"
            )
    for path in NOT_NEGATIVE:
        if _value(recipe, path) < 0:
            yield WrongValue(
                path=path, found=f"is {_value(recipe, path)}", rule="it is 0 or more", do="raise it"
            )
    # a rate of 0 is the control that must leave the weights as they are
    yield from adamw_problems(recipe.optimizer, "optimizer.", may_be_zero=("learning_rate",))
    if 0 < recipe.steps <= recipe.optimizer.warmup_steps:
        yield WrongValue(
            path="optimizer.warmup_steps",
            found=f"{recipe.optimizer.warmup_steps} of {recipe.steps} steps",
            rule="the rate reaches its height within the run",
            do=f"write less than {recipe.steps}",
        )
    if recipe.grpo.clip_ratio_low > 1.0:
        yield WrongValue(
            path="grpo.clip_ratio_low",
            found=f"is {recipe.grpo.clip_ratio_low}",
            rule="a ratio of probabilities is never below 0, the bound for a low of 1",
            do="write at most 1.0",
        )
    if recipe.grpo.dual_clip_ratio <= 1.0:
        yield WrongValue(
            path="grpo.dual_clip_ratio",
            found=f"is {recipe.grpo.dual_clip_ratio}",
            rule="the bound for negative advantages is above 1",
            do="write e.g. 3.0",
        )


def _batch_problems(recipe: GrpoRecipe) -> Iterator[WrongValue]:
    if recipe.grpo.rollouts_per_prompt < 2:
        yield WrongValue(
            path="grpo.rollouts_per_prompt",
            found=f"is {recipe.grpo.rollouts_per_prompt}",
            rule="an answer is scored against the others of its group, so a group has 2 or more",
            do="write 2 or more",
        )
    batch, mini = recipe.batch_prompts, recipe.mini_batch_prompts
    if mini >= 1 and batch % mini:
        yield WrongValue(
            path="mini_batch_prompts",
            found=f"{mini} does not divide batch_prompts {batch}",
            rule="a step is whole mini-batches",
            do=f"write {batch}, or a divisor of it",
        )


def _sampling_problems(recipe: GrpoRecipe) -> Iterator[WrongValue]:
    sampling = recipe.sampling
    if sampling.top_p != 1.0:
        yield WrongValue(
            path="sampling.top_p",
            found=f"is {sampling.top_p}",
            rule="answers are drawn from the distribution that the actor scores them in, which is "
            "the whole one; what top_p cuts off would be in one and not in the other",
            do="write 1.0",
        )
    for name in ("temperature", "validation_temperature"):
        if 0.0 < getattr(sampling, name) < LEAST_TEMPERATURE:
            yield WrongValue(
                path=f"sampling.{name}",
                found=f"is {getattr(sampling, name)}",
                rule=f"below {LEAST_TEMPERATURE} engines sample at another temperature than asked",
                do=f"write {LEAST_TEMPERATURE} or more",
            )
    if sampling.validation_temperature == 0.0 and sampling.validation_samples > 1:
        yield WrongValue(
            path="sampling.validation_samples",
            found=f"{sampling.validation_samples} greedy samples",
            rule="at temperature 0 every sample is the same",
            do="write 1, or raise sampling.validation_temperature",
        )
