"""Training recipes: those that ship are the paper's; wrong ones are refused where they stand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import RECIPES, Loaded, load_recipe
from frontload.recipes.runs.training import Phase, PretrainRecipe, SftRecipe
from frontload.recipes.runs.training_checks import check_phase_plan, check_train

FOLDER = RECIPES / "training"
NAMES = sorted(
    path.stem for path in FOLDER.glob("*.yaml") if path.stem.split("_")[0] in ("pretrain", "sft")
)


def loaded(name: str, *overrides: str) -> Loaded[Any]:
    kind = SftRecipe if name.startswith("sft") else PretrainRecipe
    return load_recipe(FOLDER / f"{name}.yaml", kind, overrides=overrides)


TINY = loaded("pretrain_tiny")


@pytest.mark.parametrize("name", NAMES)
def test_every_training_recipe_that_ships_holds(name: str) -> None:
    check_train(loaded(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_full_recipe_has_a_tiny_twin(name: str) -> None:
    assert f"{name.split('_')[0]}_tiny" in NAMES


def test_pretraining_is_the_papers() -> None:
    """Front-Loading Reasoning, section 3.1: 1T tokens, 6M a batch of 8192, 3e-4 to 3e-6."""
    recipe: PretrainRecipe = loaded("pretrain_8b_base").value
    assert recipe.batch_tokens == 6_029_312
    assert recipe.total_tokens // recipe.batch_tokens == 165_857  # steps of 1T in such batches
    assert recipe.total_tokens == pytest.approx(1e12, rel=1e-4)
    assert recipe.phases[0].tokens / recipe.total_tokens == pytest.approx(0.6, abs=1e-5)
    optimizer = recipe.training().optimizer
    assert (optimizer.learning_rate, optimizer.min_learning_rate) == (3e-4, 3e-6)
    assert (optimizer.adam_beta1, optimizer.adam_beta2, optimizer.weight_decay) == (0.9, 0.95, 0.1)


@pytest.mark.parametrize(
    ("name", "mix", "tokens"),
    [
        ("pretrain_8b_ldq", "ldq", 80e9),
        ("pretrain_8b_shq", "shq", 80e9),
        ("pretrain_8b_lmq", "lmq", 80e9),
        ("pretrain_8b_lmq_60_40", "lmq", 160e9),
    ],
)
def test_an_arm_differs_from_the_base_in_its_second_phase_alone(
    name: str, mix: str, tokens: float
) -> None:
    arm, base = loaded(name).value, loaded("pretrain_8b_base").value
    assert arm.stages() == base.stages(), "the same stages on other data"
    assert arm.phases[0] == base.phases[0]
    assert arm.phases[1].sources[mix] * arm.phases[1].tokens == pytest.approx(tokens, rel=1e-4)


def test_fine_tuning_is_the_papers() -> None:
    """Section 3.1: 4.8M samples in batches of 512 at 32k, 5e-6, 5% warm-up, weight decay 0.01."""
    recipe: SftRecipe = loaded("sft_8b").value
    (stage,) = recipe.stages().values()
    assert stage.num_samples == 4_800_000
    assert stage.num_samples // recipe.global_batch_sequences == 9_375
    assert (recipe.sequence_tokens, recipe.warmup_share) == (32_768, 0.05)
    assert (recipe.learning_rate, recipe.weight_decay) == (5e-6, 0.01)
    assert loaded("sft_8b_2x").value.tokens == 2 * recipe.tokens


def test_phases_follow_each_other_under_one_schedule() -> None:
    stages = loaded("pretrain_tiny").value.stages()
    first, second = stages["first"], stages["second"]
    assert (first.start_sample, second.start_sample) == (0, first.num_samples)
    total = first.num_samples + second.num_samples
    assert {stage.training.schedule.total_samples for stage in stages.values()} == {total}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("phases=[{name: a, tokens: 100, sources: {base: 1.0}}]", "write 128"),
        ("phases=[{name: a, tokens: 700, sources: {base: 1.0}}]", "write 640 or 768"),
        ("phases=[{name: a, tokens: 128, sources: {base: 0.9}}]", "sums to 0.9"),
        ("phases=[{name: a, tokens: 128, sources: {}}]", "is empty"),
        ("phases=[{name: A/B, tokens: 128, sources: {base: 1.0}}]", "small letters"),
        ("phases=[]", "names nothing"),
        ("precision=fp64", "fp32, bf16"),
        ("schedule=linear", "cosine, wsd, constant"),
        ("decay_share=0.95", "at most 1"),
        ("final_learning_rate_share=1.1", "between 0 and 1"),
        ("adam_beta2=1.0", "lies in [0, 1)"),
        ("sequence_tokens=256", "max_sequence_tokens is 128"),
        ("global_batch_sequences=0", "1 or more"),
        ("upkeep.keep_last=0", "1 or more"),
        ("upkeep.spike_window_steps=3", "8 or more"),
        ("upkeep.spike_deviations=0.0", "how far above"),
        ("upkeep.hang_seconds=-1.0", "0 or more"),
        ("upkeep.pause_seconds=60.0", "300 or more"),
        ("upkeep.keeplast=1", "write 'keep_last'"),
    ],
)
def test_wrong_recipes_are_refused_with_what_would_fit(override: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_train(loaded("pretrain_tiny", override))
    assert told in str(caught.value)
    assert str(caught.value).startswith("command line: ")


def test_another_schedule_is_refused_at_the_line_that_states_the_decay() -> None:
    told = r"pretrain_8b_base.yaml:\d+: decay_share: is 0.2 with cosine; only wsd has a decay"
    with pytest.raises(RecipeError, match=told):
        check_train(loaded("pretrain_tiny", "schedule=cosine"))


def plan(**sources: int) -> dict[str, Any]:
    listed = [{"name": name, "num_samples": count} for name, count in sources.items()]
    return {"sequence_tokens": 32, "sources": listed}


def test_the_blend_of_another_phase_is_refused() -> None:
    recipe: PretrainRecipe = loaded("pretrain_tiny").value
    check_phase_plan(recipe, "first", plan(base=24))
    check_phase_plan(recipe, "second", plan(base=8, ldq=8))
    check_phase_plan(recipe, "second", plan(base=9, ldq=7))  # a share may fall inside a sample
    for name, other, told in (
        ("first", plan(base=8, ldq=8), "trains on 24 of 32"),
        ("second", plan(base=16), "gives it 8 of 16"),
        ("second", plan(base=8, shq=8), "0 samples of ldq"),
        ("second", {**plan(base=8, ldq=8), "sequence_tokens": 64}, "of 64 tokens"),
    ):
        with pytest.raises(RecipeError, match=told):
            check_phase_plan(recipe, name, other)


@settings(max_examples=50)
@given(st.integers(-10, 10_000))
def test_a_refused_budget_names_budgets_that_are_taken(tokens: int) -> None:
    """Whatever is written, what the message says to write in its place is accepted."""

    def check(budget: int) -> None:
        phases = (Phase(name="a", tokens=budget, sources={"base": 1.0}),)
        check_train(Loaded(value=replace(TINY.value, phases=phases), places=TINY.places))

    try:
        check(tokens)
    except RecipeError as error:
        for fits in error.do.removeprefix("write ").split(" or "):
            check(int(fits))
    else:
        assert tokens % 128 == 0


def test_a_users_own_arm_extends_a_recipe_that_ships(tmp_path: Path) -> None:
    mine = tmp_path / "pretrain_mine.yaml"
    mine.write_text("extends: pretrain_8b_ldq\nprecision: fp32\n")
    recipe = load_recipe(mine, PretrainRecipe).value
    assert recipe.phases == loaded("pretrain_8b_ldq").value.phases
    assert recipe.precision == "fp32"
