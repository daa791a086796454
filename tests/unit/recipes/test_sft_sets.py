"""SFT sets that are more than a union: each model's own right answers, and weighted rows."""

import re

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import RowWeights
from frontload.recipes.study.expand import Study, load_study

MIX = "min_answer_tokens: 0, share_of_member: {}"
OWN = (
    "own_samples.mine={{questions_of: shq, num_questions: 50, num_samples: 4, most_kept: 2, "
    "temperature: 1.0, max_new_tokens: 80{more}}}"
)
POINTS = (
    "points=[{windows: {lmq: 368_640}, sft: {mix: mine, tokens: 368_640}}, "
    "{windows: {ldq: 368_640}, sft: {mix: mine, tokens: 368_640}}]"
)


def own_study(more: str = "", *others: str) -> Study:
    overrides = ["seeds=[1, 2]", OWN.format(more=f", {more}" if more else ""), POINTS, *others]
    return load_study("laptop", overrides=overrides)


def test_each_model_is_tuned_on_answers_of_its_own() -> None:
    study = own_study()
    tuned = {s.label: s for s in study.stages if s.kind == "sft" and "mine" in s.label}
    assert set(tuned) == {f"{arm}+mine-x1-seed{n}" for arm in ("lmq", "ldq") for n in (1, 2)}
    packs = {stage.inputs["pack"].key for stage in tuned.values()}
    assert len(packs) == 4
    for stage in tuned.values():
        samples = stage.inputs["pack"].inputs["documents"]
        assert samples.kind == "own_samples"
        assert samples.inputs["checkpoint"] is stage.inputs["start"]
        assert samples.recipe.seed == stage.recipe.training.seed
        assert samples.inputs["documents"].label == "shq"
        assert samples.inputs["corpus"] is study.tabulate.inputs["pt:LMQ seed 1"].inputs["corpus"]
    assert "pt:LMQ>sft:MINE" in study.tabulate.recipe.cells
    assert study.tabulate.recipe.ledger["pt:LMQ>sft:MINE"].pack == "pack lmq.mine-x1-seed1"


def test_a_model_that_was_tuned_first_can_answer_and_the_start_stays_the_base() -> None:
    study = own_study("tuned: {mix: shq, tokens: 368_640}")
    stage = next(s for s in study.stages if s.label == "ldq+mine-x1-seed2")
    answering = stage.inputs["pack"].inputs["documents"].inputs["checkpoint"]
    assert (answering.kind, answering.label) == ("sft", "ldq+shq-x1-seed2")
    assert (stage.inputs["start"].kind, stage.inputs["start"].label) == ("pretrain", "ldq-seed2")


def test_sets_of_own_answers_move_no_other_key_and_have_no_loss_as_a_shared_set() -> None:
    sizes = "evaluation.set_loss_conversations=20"
    usual = load_study("laptop", overrides=["seeds=[1, 2]", sizes])
    study = own_study("", sizes)
    kept = {stage.key for stage in usual.stages} - {usual.tabulate.key}
    assert kept < {stage.key for stage in study.stages}
    assert study.tabulate.recipe.set_losses == usual.tabulate.recipe.set_losses


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (("questions_of: shq", "questions_of: base"), "'base' is not known"),
        (("questions_of: shq", "questions_of: mine"), "'mine' is not known"),
        (("num_questions: 50", "num_questions: 0"), "num_questions: is 0; it is 1 or more"),
        (("most_kept: 2", "most_kept: 5"), "most_kept: is 5; it is 4 or less"),
        (("temperature: 1.0", "temperature: 0.0"), "is 4 at temperature 0"),
        (("temperature: 1.0", "temperature: 0.001"), "temperature: is 0.001"),
        (("own_samples.mine", "own_samples.shq"), "mixes.shq stands there too"),
        (("tokens: 80", "tokens: 80, tuned: {mix: mine, tokens: 1}"), "'mine' is not known"),
        (("tokens: 80", "tokens: 80, tuned: {mix: shq, tokens: 0}"), "is 0; it is 1 or more"),
    ],
)
def test_a_set_of_own_answers_that_no_stage_could_make_is_refused(
    change: tuple[str, str], refusal: str
) -> None:
    own = OWN.format(more="").replace(*change)
    with pytest.raises(RecipeError, match=re.escape(refusal)):
        load_study("laptop", overrides=[own])


def test_own_answers_are_for_fine_tuning_alone() -> None:
    with pytest.raises(RecipeError, match="'mine' is not known"):
        load_study("laptop", overrides=[OWN.format(more=""), "points=[{windows: {mine: 128}}]"])


def weighted(row_weights: str, *more: str) -> Study:
    mix = f"mixes.long={{members: [shq], {MIX}, row_weights: {row_weights}}}"
    points = "points=[{windows: {lmq: 368_640}, sft: {mix: long, tokens: 368_640}}]"
    return load_study("laptop", overrides=[mix, points, *more])


def test_a_weighted_mix_is_a_set_of_its_own() -> None:
    study = weighted("{field: answer_tokens, weights: {}}")
    found = next(s for s in study.stages if s.label == "long")
    assert found.recipe.row_weights == RowWeights(field="answer_tokens", weights={})
    assert {s.key for s in load_study("laptop").stages if s.kind == "curate"} < {
        s.key for s in study.stages
    }


@pytest.mark.parametrize(
    ("row_weights", "refusal"),
    [
        ("{field: domain, weights: {}}", "'domain' is not known"),
        ("{field: answer_tokens, weights: {chain: 1}}", "1 weights by answer_tokens"),
        ("{field: family, weights: {}}", "0 weights by family"),
        ("{field: family, weights: {chian: 1}}", "'chian' is not known"),
        ("{field: family, weights: {chain: -1}}", "is -1; it is 0 or more"),
        ("{field: family, weights: {chain: 1}}", "nothing for "),
    ],
)
def test_weights_that_a_row_would_lack_are_refused(row_weights: str, refusal: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(refusal)):
        weighted(row_weights)


def test_families_that_all_weigh_nothing_are_refused() -> None:
    families = load_study("laptop").recipe.synthesis
    assert families is not None
    zeros = ", ".join(f"{name}: 0" for name in families.shq.families)
    with pytest.raises(RecipeError, match="0 for each family"):
        weighted(f"{{field: family, weights: {{{zeros}}}}}")
    zeros = zeros.replace(": 0", ": 2", 1)
    assert weighted(f"{{field: family, weights: {{{zeros}}}}}")


def test_pretraining_does_not_read_a_weighted_mix() -> None:
    by_length = "{field: answer_tokens, weights: {}}"
    weights = f"mixes.shq.row_weights={by_length}"
    with pytest.raises(RecipeError, match="mixes.shq has row_weights") as caught:
        load_study("laptop", overrides=[weights])
    assert "arms.1" in str(caught.value)
    mix = f"mixes.long={{members: [shq], {MIX}, row_weights: {by_length}}}"
    with pytest.raises(RecipeError, match="points.0.windows.long: .* has row_weights"):
        load_study("laptop", overrides=[mix, "points=[{windows: {long: 128}}]"])
