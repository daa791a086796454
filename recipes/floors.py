"""The least number of each knob of a study that a run would stumble over long after the plan."""

from typing import Any

from frontload.recipes.limits import all_at_least, at_least
from frontload.recipes.load import Loaded
from frontload.recipes.study_schema import StudyRecipe

SYNTHESIS = {
    "base_tokens": 1,
    "items_per_family": 1,
    "hard_items_per_family": 0,
    "choice_items": 0,
    "heldout_documents_per_family": 0,
}
SUITE = {"temperature": 0, "max_new_tokens": 1, "num_shots": 0}
PROMPTS = {"num_prompts": 1, "level_low": 0, "level_high": 0}


def check_floors(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses a count or a size that nothing could be made of.

    Raises: RecipeError with the place, the value and the rule.
    """
    recipe = loaded.value
    synthesis = recipe.synthesis
    if synthesis is not None:
        all_at_least(loaded, "synthesis", of=synthesis, least=SYNTHESIS)
        for name in ("ldq", "shq"):
            writer = getattr(synthesis, name)
            at_least(loaded, f"synthesis.{name}.tokens", value=writer.tokens, least=1)
            _shares(loaded, f"synthesis.{name}.families", writer.families)
    if recipe.own is not None:
        all_at_least(loaded, "own", of=recipe.own, least={"heldout_rows": 1})
    all_at_least(loaded, "tokenizer", of=recipe.tokenizer, least={"vocab_size": 1})
    for name, mix in recipe.mixes.items():
        all_at_least(loaded, f"mixes.{name}", of=mix, least={"min_answer_tokens": 0})
    _shares(loaded, "pretraining.max_epochs", recipe.pretraining.max_epochs)
    for name in ("base", "sft"):
        knobs = getattr(recipe.evaluation, name)
        all_at_least(loaded, f"evaluation.{name}", of=knobs, least=SUITE)
    all_at_least(loaded, "evaluation", of=recipe.evaluation, least={"min_effect": 0})
    if recipe.rl is not None:
        all_at_least(loaded, "rl.prompts", of=recipe.rl.prompts, least=PROMPTS)
        _shares(loaded, "rl.prompts.families", recipe.rl.prompts.families)


def _shares(loaded: Loaded[Any], path: str, found: dict[str, float]) -> None:
    for name, value in found.items():
        at_least(loaded, f"{path}.{name}", value=value, least=0)
