"""Sparse pretraining in a study: its own trunk, the same data, FLOPs with and without the mask."""

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.census import count_masked, training_flops_per_token
from frontload.recipes.runs.load import load_training
from frontload.recipes.stage import Stage, canonical
from frontload.recipes.study.expand import Study, load_study

LMQ = "windows: {lmq: 368_640}"


def study_of(*points: str, more: tuple[str, ...] = ()) -> Study:
    return load_study("laptop", overrides=[f"points=[{', '.join(points)}]", *more])


def trainings(study: Study) -> dict[str, Stage]:
    return {stage.label: stage for stage in study.stages if stage.kind == "pretrain"}


def test_a_sparse_arm_has_a_trunk_of_its_own_on_the_same_blends() -> None:
    study = study_of(f"{{{LMQ}, sparsity: 0.5}}", "{windows: {}, sparsity: 0.5}")
    found = trainings(study)
    trunk, branch = found["trunk@sparse50-seed1"], found["lmq@sparse50-seed1"]
    assert branch.inputs["start"] is trunk
    assert found["base@sparse50-seed1"].inputs["start"] is trunk
    assert trunk.inputs["blend"].key == found["trunk-seed1"].inputs["blend"].key
    assert branch.inputs["blend"].key == found["lmq-seed1"].inputs["blend"].key
    assert canonical(trunk.recipe)["sparsity"] == canonical(branch.recipe)["sparsity"] == 0.5
    assert set(load_study("laptop").tabulate.recipe.cells) < set(study.tabulate.recipe.cells)
    assert {"pt:LMQ@sparse50", "pt:base@sparse50"} <= set(study.tabulate.recipe.cells)
    assert "sparsity" not in canonical(found["lmq-seed1"].recipe)


def test_the_ledger_states_flops_with_and_without_the_masked_weights() -> None:
    study = study_of(f"{{{LMQ}, sparsity: 0.75, sft: {{mix: shq, tokens: 368_640}}}}")
    ledger = study.tabulate.recipe.ledger
    dense, sparse = ledger["pt:LMQ>sft:SHQ"], ledger["pt:LMQ@sparse75>sft:SHQ"]
    assert (dense.sparse_flops, sparse.pretraining_flops) == (0.0, dense.pretraining_flops)
    assert sparse.sft_flops_per_token == dense.sft_flops_per_token > 0.0
    model = study.recipe.model
    masked = 4_608_000 * 6 * count_masked(model, 0.75)  # fine-tuning is dense
    assert sparse.sparse_flops == pytest.approx(sparse.pretraining_flops - masked)
    projections = training_flops_per_token(model, 128)
    assert 0.3 < 6 * count_masked(model, 0.75) / projections < 0.75


def test_a_study_that_is_sparse_all_over_names_the_dense_point() -> None:
    study = study_of(f"{{{LMQ}, sparsity: 0.0}}", more=("pretraining.sparsity=0.5",))
    found = trainings(study)
    assert found.pop("lmq@sparse0-seed1").recipe.sparsity == 0.0
    assert found.pop("trunk@sparse0-seed1").recipe.sparsity == 0.0
    assert {stage.recipe.sparsity for stage in found.values()} == {0.5}
    assert "pt:LMQ@sparse0" in study.tabulate.recipe.cells


def test_another_window_at_the_same_sparsity_keeps_both_in_its_name() -> None:
    study = study_of("{windows: {ldq: 16_384}, sparsity: 0.5}")
    assert "ldq@16384-sparse50-seed1" in trainings(study)
    assert "pt:LDQ@16384-sparse50" in study.tabulate.recipe.cells


def test_every_phase_of_one_run_is_masked() -> None:
    loaded = load_training("pretrain_tiny", ["sparsity=0.5"])
    assert {stage.sparsity for stage in loaded.value.stages().values()} == {0.5}


@pytest.mark.parametrize("value", ["1.0", "-0.1", "0.505"])
def test_a_share_that_leaves_nothing_or_has_no_name_is_refused(value: str) -> None:
    said = r"points\.0\.sparsity: is .*; sparsity is a share of whole percents"
    with pytest.raises(RecipeError, match=said):
        study_of(f"{{{LMQ}, sparsity: {value}}}")
    with pytest.raises(RecipeError, match=r"pretraining\.sparsity"):
        study_of(more=(f"pretraining.sparsity={value}",))
    with pytest.raises(RecipeError, match="sparsity: is"):
        load_training("pretrain_tiny", [f"sparsity={value}"])
