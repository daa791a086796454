"""What must hold in SFT sets that are more than a union: weighted rows, a model's own answers."""

from frontload.recipes.artifact import FAMILIES
from frontload.recipes.grammar.limits import (
    LEAST_TEMPERATURE,
    require_all_at_least,
    require_at_least,
    require_at_most,
    require_choice,
)
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.schema import ANSWER_TOKENS, FAMILY, ReasoningWriter
from frontload.recipes.study.point_checks import check_tuning
from frontload.recipes.study.points import BASE
from frontload.recipes.study.schema import OwnSampleKnobs, StudyRecipe

COUNTS = {"num_questions": 1, "num_samples": 1, "most_kept": 1, "max_new_tokens": 1}
WEIGHED_BY = (FAMILY, ANSWER_TOKENS)


def check_own_samples(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses sets of own answers that no stage could make, or that a mix is named like.

    Raises: RecipeError naming file, line and key.
    """
    recipe = loaded.value
    if recipe.own_samples and recipe.raw is not None:
        raise loaded.refuse(
            "own_samples",
            found="stands beside `raw`",
            rule="a model is asked the questions of a mix, whose rows state their final answers",
            do="write own_samples: {}, or give the corpus as `own` or `synthesis`",
        )
    asked = tuple(name for name, mix in recipe.mixes.items() if BASE not in mix.members)
    for name, knobs in recipe.own_samples.items():
        path = f"own_samples.{name}"
        if name in recipe.mixes:
            raise loaded.refuse(
                path,
                found=f"mixes.{name} stands there too",
                rule="a name is of one set",
                do=f"write another name, e.g. {name}_own",
            )
        require_choice(loaded, f"{path}.questions_of", value=knobs.questions_of, names=asked)
        require_all_at_least(loaded, path, of=knobs, least=COUNTS)
        require_at_most(loaded, f"{path}.most_kept", value=knobs.most_kept, most=knobs.num_samples)
        _check_temperature(loaded, path, knobs)
        if knobs.tuned is not None:
            check_tuning(loaded, f"{path}.tuned", knobs.tuned, names=asked)
            require_at_least(loaded, f"{path}.tuned.tokens", value=knobs.tuned.tokens, least=1)


def _check_temperature(loaded: Loaded[StudyRecipe], path: str, knobs: OwnSampleKnobs) -> None:
    if knobs.temperature:
        least = LEAST_TEMPERATURE
        require_at_least(loaded, f"{path}.temperature", value=knobs.temperature, least=least)
    elif knobs.num_samples > 1:
        raise loaded.refuse(
            f"{path}.num_samples",
            found=f"is {knobs.num_samples} at temperature 0",
            rule="at temperature 0 every answer to a question is the same",
            do="write 1, or a temperature above 0",
        )


def check_row_weights(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses weights that some row of their mix would lack, and weighted mixes in pretraining.

    Raises: RecipeError naming file, line and key.
    """
    recipe = loaded.value
    read = {f"arms.{place}": mix for place, mix in enumerate(recipe.arms)}
    read |= {f"ratio_arms.{place}.mix": arm.mix for place, arm in enumerate(recipe.ratio_arms)}
    for place, point in enumerate(recipe.points):
        read |= {f"points.{place}.windows.{mix}": mix for mix in point.windows}
    for path, mix in read.items():
        if mix in recipe.mixes and recipe.mixes[mix].row_weights is not None:
            raise loaded.refuse(
                path,
                found=f"mixes.{mix} has row_weights",
                rule="weights are of SFT sets: pretraining counts its passes over distinct rows",
                do="name a mix without row_weights",
            )
    for name, mix in recipe.mixes.items():
        if mix.row_weights is not None:
            _check_weights(loaded, name)


def _check_weights(loaded: Loaded[StudyRecipe], name: str) -> None:
    path, mix = f"mixes.{name}.row_weights", loaded.value.mixes[name]
    assert mix.row_weights is not None
    by, weights = mix.row_weights.field, mix.row_weights.weights
    require_choice(loaded, f"{path}.field", value=by, names=WEIGHED_BY)
    synthesis = loaded.value.synthesis
    if by == FAMILY and synthesis is None:
        raise loaded.refuse(
            f"{path}.field",
            found="is family, of a user's own files",
            rule="rows of own files state no family",
            do=f"write {ANSWER_TOKENS}",
        )
    if (by == ANSWER_TOKENS) == bool(weights) or BASE in mix.members:
        raise loaded.refuse(
            f"{path}.weights",
            found=f"{len(weights)} weights by {by} of {', '.join(mix.members)}",
            rule="the length of an answer is its weight; families state one each; base text "
            "has neither",
            do="write {} beside answer_tokens, a weight of each family beside family",
        )
    for family, weight in weights.items():
        require_choice(loaded, f"{path}.weights.{family}", value=family, names=FAMILIES)
        require_at_least(loaded, f"{path}.weights.{family}", value=weight, least=0)
    if synthesis is None or by != FAMILY:
        return
    writers: list[ReasoningWriter] = [getattr(synthesis, member) for member in mix.members]
    written = {name for writer in writers for name, share in writer.families.items() if share}
    missing = sorted(written - set(weights))
    if missing or not any(weights[family] for family in written):
        raise loaded.refuse(
            f"{path}.weights",
            found=f"nothing for {', '.join(missing)}" if missing else "0 for each family",
            rule="each family that the members hold has a weight, and one is above 0",
            do="add them, 0 for a family that is left out" if missing else "raise one",
        )
