"""The ends of each knob of a study that a run would stumble over long after the plan."""

from frontload.recipes.artifact import FAMILIES
from frontload.recipes.grammar.limits import (
    LEAST_TEMPERATURE,
    require_all_at_least,
    require_at_least,
    require_at_most,
    require_choice,
    require_levels,
    require_shares,
)
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.study.schema import StudyRecipe

SYNTHESIS = {
    "seed": 0,
    "base_tokens": 1,
    "items_per_family": 1,
    "hard_items_per_family": 0,
    "choice_items": 0,
    "heldout_documents_per_family": 0,
}
EVALUATION = {"min_effect": 0, "set_loss_conversations": 0}
SUITE = {"temperature": 0, "max_new_tokens": 1, "num_shots": 0}
MOST_ITEMS = 10_000  # data_tools/synthetic/families.py MOST_DRAWS: no more are tried
COUNTED = ("items_per_family", "hard_items_per_family", "choice_items")
COUNTED += ("heldout_documents_per_family",)
MOST_SHOTS = {"synthesis": 3, "own": 8}  # NUM_EXEMPLARS of data_tools: what an item holds
LEAST_VOCABULARY = {"word": 1, "byte_bpe": 262}  # 256 bytes and 6 special tokens
OWN = {"seed": 0, "heldout_rows": 1}


def check_floors(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses a count or a size that nothing could be made of.

    Raises: RecipeError with the place, the value and the rule.
    """
    recipe = loaded.value
    synthesis = recipe.synthesis
    if synthesis is not None:
        require_all_at_least(loaded, "synthesis", of=synthesis, least=SYNTHESIS)
        for name in COUNTED:
            value = getattr(synthesis, name)
            require_at_most(loaded, f"synthesis.{name}", value=value, most=MOST_ITEMS)
        for name in ("ldq", "shq"):
            writer = getattr(synthesis, name)
            require_at_least(loaded, f"synthesis.{name}.tokens", value=writer.tokens, least=1)
    if recipe.own is not None:
        require_all_at_least(loaded, "own", of=recipe.own, least=OWN)
    tokenizer = recipe.tokenizer
    if tokenizer is not None:
        least = LEAST_VOCABULARY.get(tokenizer.kind, 1)
        require_at_least(loaded, "tokenizer.vocab_size", value=tokenizer.vocab_size, least=least)
    for name, mix in recipe.mixes.items():
        require_all_at_least(loaded, f"mixes.{name}", of=mix, least={"min_answer_tokens": 0})
    for name in ("base", "sft"):
        knobs = getattr(recipe.evaluation, name)
        require_all_at_least(loaded, f"evaluation.{name}", of=knobs, least=SUITE)
        if knobs.temperature:
            path = f"evaluation.{name}.temperature"
            require_at_least(loaded, path, value=knobs.temperature, least=LEAST_TEMPERATURE)
    shots = {"base": MOST_SHOTS["synthesis" if synthesis is not None else "own"], "sft": 0}
    for name, most in shots.items():  # the sft suite shows none
        path = f"evaluation.{name}.num_shots"
        require_at_most(loaded, path, value=getattr(recipe.evaluation, name).num_shots, most=most)
    require_all_at_least(loaded, "evaluation", of=recipe.evaluation, least=EVALUATION)
    for name, value in recipe.evaluation.seed_spreads.items():
        path = f"evaluation.seed_spreads.{name}"
        require_choice(loaded, path, value=name.partition("/")[0], names=("pt", "sft", "rl"))
        require_at_least(loaded, path, value=value, least=0)
    if recipe.rl is not None and recipe.rl.prompts is not None:
        prompts = recipe.rl.prompts
        require_at_least(loaded, "rl.prompts.num_prompts", value=prompts.num_prompts, least=1)
        for family in prompts.families:
            require_choice(loaded, f"rl.prompts.families.{family}", value=family, names=FAMILIES)
        require_shares(loaded, "rl.prompts.families", of=prompts.families, what="family")
        require_levels(loaded, "rl.prompts", low=prompts.level_low, high=prompts.level_high)
