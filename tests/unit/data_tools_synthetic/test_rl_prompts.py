"""Prompts for reinforcement learning: shares, no repeats, nothing that evaluation asks."""

import dataclasses
from collections import Counter

import pytest

from frontload.data_tools.synthetic.families import FAMILIES, verify
from frontload.data_tools.synthetic.problem import is_heldout
from frontload.data_tools.synthetic.rl_prompts import prompt_counts, write_prompts
from frontload.data_tools.text.document import BaseText, Conversation
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import RlPrompts

RECIPE = RlPrompts(
    families={"chain": 0.25, "story": 0.25, "stack": 0.25, "ladder": 0.25},
    level_low=0.0,
    level_high=1.0,
    num_prompts=400,
    seed=1,
)


def test_prompts_are_new_training_questions_with_their_gold_answers() -> None:
    prompts = list(write_prompts(RECIPE))
    kinds = {prompt.family: FAMILIES[prompt.family] for prompt in prompts}
    matters = {(one.family, kinds[one.family].matter(one.question)) for one in prompts}
    assert len(matters) == len(prompts) == 400
    for prompt in prompts:
        assert verify(prompt.family, prompt.question, prompt.answer)
        assert not is_heldout(kinds[prompt.family].matter(prompt.question))
        assert prompt.trace == ""


def test_shares_are_exact_to_within_one_prompt_at_every_point() -> None:
    counts: Counter[str] = Counter()
    for place, prompt in enumerate(write_prompts(RECIPE), start=1):
        counts[prompt.family] += 1
        assert all(
            abs(counts[name] - share * place) <= 1 for name, share in RECIPE.families.items()
        )


def test_counts_say_how_many_prompts_training_text_holds() -> None:
    prompts = list(write_prompts(RECIPE))
    trained = [dataclasses.replace(prompt, trace="x") for prompt in prompts[:7]]
    base = BaseText(id="b", text=prompts[9].question)
    counts = prompt_counts(prompts, iter([*trained, base]))
    assert counts["also_in_a_training_set"] == 7
    assert counts["by_family"] == dict.fromkeys(RECIPE.families, 100)
    assert counts["by_domain"] == {"math": 200, "code": 100, "science": 100}
    assert isinstance(prompts[0], Conversation)


def test_more_prompts_than_questions_are_refused() -> None:
    few = dataclasses.replace(RECIPE, families={"ladder": 1.0}, level_high=0.0, num_prompts=400)
    with pytest.raises(RecipeError, match="different questions"):
        list(write_prompts(few))


@pytest.mark.parametrize(
    ("families", "message"),
    [({"chain": 0.5}, r"sum to 0\.5"), ({"chian": 1.0}, "nearest: 'chain'")],
)
def test_wrong_shares_and_names_are_refused(families: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        list(write_prompts(dataclasses.replace(RECIPE, families=families)))
