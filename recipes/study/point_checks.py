"""What must hold in the points that a study lists one by one."""

from frontload.recipes.grammar.limits import (
    require_at_least,
    require_at_most,
    require_choice,
    require_distinct,
)
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.training import ROWS
from frontload.recipes.runs.training_checks import check_loss, check_sparsity
from frontload.recipes.study.points import (
    BASE,
    BASE_SUITE,
    SFT_SUITE,
    first_phase_tokens,
    single_arm,
)
from frontload.recipes.study.raw_checks import set_names
from frontload.recipes.study.schema import PointKnobs, PointTuning, StudyRecipe

SUITES = (BASE_SUITE, SFT_SUITE)
DEEPEST = 7  # segments of a trunk: recipes/study/graph.py PHASES, and a branch


def check_points(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses a point that cannot be trained on whole batches, or that nothing would score.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    recipe = loaded.value
    for name in ("suites_of_pretrained", "suites_of_tuned"):
        _check_suites(loaded, f"evaluation.{name}", getattr(recipe.evaluation, name))
    for place, point in enumerate(recipe.points):
        _check_point(loaded, f"points.{place}", point)
    _check_losses(loaded)
    onsets = {first_phase_tokens(recipe.pretraining)}
    onsets |= {point.onset_tokens for point in recipe.points if point.onset_tokens}
    if len(onsets) > DEEPEST:
        raise loaded.refuse(
            "points",
            found=f"{len(onsets)} onsets, the first phase's among them",
            rule=f"a trunk goes on from others, {DEEPEST} segments deep at most",
            do="split the points over two studies: stages that both have are made once",
        )


def _check_point(loaded: Loaded[StudyRecipe], path: str, point: PointKnobs) -> None:
    recipe = loaded.value
    names = tuple(name for name in set_names(recipe) if name != BASE)
    knobs = recipe.pretraining
    for name, tokens in point.windows.items():
        require_choice(loaded, f"{path}.windows.{name}", value=name, names=names)
        _check_whole(loaded, f"{path}.windows.{name}", tokens=tokens, unit=knobs.sequence_tokens)
    if point.onset_tokens is not None:
        batch = knobs.sequence_tokens * knobs.global_batch_sequences
        _check_whole(loaded, f"{path}.onset_tokens", tokens=point.onset_tokens, unit=batch)
        require_at_most(
            loaded, f"{path}.onset_tokens", value=point.onset_tokens, most=knobs.tokens - batch
        )
    arm = single_arm(recipe, point)
    room = knobs.tokens - arm.onset_tokens
    if arm.reasoning_tokens > room:
        raise loaded.refuse(
            f"{path}.windows",
            found=f"{arm.reasoning_tokens:_} tokens after an onset at {arm.onset_tokens:_}",
            rule=f"pretraining.tokens {knobs.tokens:_} leave {room:_}",
            do="lower the windows or the onset",
        )
    if point.sparsity is not None:
        check_sparsity(loaded, f"{path}.sparsity", value=point.sparsity)
    if point.sft is not None:
        at = f"{path}.sft"
        check_tuning(loaded, at, point.sft, names=(*names, *recipe.own_samples))
    if point.rl and (recipe.rl is None or point.sft is None or not point.sft.tokens):
        raise loaded.refuse(
            f"{path}.rl",
            found="no `rl` section" if recipe.rl is None else "no `sft` with tokens",
            rule="reinforcement learning goes on from a fine-tuned model, as `rl` states it",
            do="add it, or write rl: false",
        )
    require_distinct(loaded, f"{path}.seeds", names=point.seeds)
    for number, seed in enumerate(point.seeds):
        require_at_least(loaded, f"{path}.seeds.{number}", value=seed, least=1)
    if point.suites:
        _check_suites(loaded, f"{path}.suites", point.suites)


def check_tuning(
    loaded: Loaded[StudyRecipe], path: str, tuning: PointTuning, *, names: tuple[str, ...]
) -> None:
    """Refuses a fine-tuning on none of the sets, of no whole batches, or with a wrong loss."""
    knobs = loaded.value.sft
    require_choice(loaded, f"{path}.mix", value=tuning.mix, names=names)
    unit = knobs.batch_tokens if knobs.budget_unit == ROWS else 1
    _check_whole(loaded, f"{path}.tokens", tokens=tuning.tokens, unit=unit)
    if tuning.loss is not None:
        check_loss(loaded, f"{path}.loss", loss=tuning.loss, precision=knobs.precision)


def _check_losses(loaded: Loaded[StudyRecipe]) -> None:
    """A cell is named by the kind of its loss, so a study has one loss of a kind."""
    known = {loaded.value.sft.loss.kind: loaded.value.sft.loss}
    for place, point in enumerate(loaded.value.points):
        loss = point.sft.loss if point.sft is not None else None
        if loss is not None and known.setdefault(loss.kind, loss) != loss:
            raise loaded.refuse(
                f"points.{place}.sft.loss",
                found=f"another {loss.kind} than the one before",
                rule="cells are named by the kind of their loss: a study has one of each kind",
                do="write the same numbers, or split the points over two studies",
            )


def _check_whole(loaded: Loaded[StudyRecipe], path: str, *, tokens: int, unit: int) -> None:
    require_at_least(loaded, path, value=tokens, least=0)
    if tokens % unit:
        below = tokens // unit * unit
        raise loaded.refuse(
            path,
            found=f"is {tokens:_}",
            rule=f"it is a whole multiple of {unit:_}",
            do=f"write {below:_} or {below + unit:_}",
        )


def _check_suites(loaded: Loaded[StudyRecipe], path: str, suites: tuple[str, ...]) -> None:
    require_distinct(loaded, path, names=suites)
    for number, suite in enumerate(suites):
        require_choice(loaded, f"{path}.{number}", value=suite, names=SUITES)
    if not suites:
        raise loaded.refuse(
            path,
            found="is empty",
            rule="a model is scored by one suite or more",
            do="write [base], [sft] or both",
        )
