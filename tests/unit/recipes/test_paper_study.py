"""The paper's study at 8B: its numbers are those of the recipes for one run, its graph is whole."""

from collections import Counter
from typing import Any

import pytest

from frontload.recipes.grammar.load import RECIPES, load_recipe
from frontload.recipes.runs.blend import load_blend
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.runs.training import PretrainRecipe, SftRecipe
from frontload.recipes.schema import Pretrain
from frontload.recipes.stage import Stage
from frontload.recipes.study.expand import Study, load_study


@pytest.fixture(scope="module")
def paper() -> Study:
    return load_study("paper_8b")


def training[T](name: str, kind: type[T]) -> T:
    return load_recipe(RECIPES / "training" / f"{name}.yaml", kind).value


def labelled(study: Study, kind: str) -> dict[str, Stage]:
    return {stage.label: stage for stage in study.stages if stage.kind == kind}


def without_plateau(stage: Any) -> Any:
    """A trunk's schedule has no length; all else of it is the recipe's."""
    schedule = stage.training.schedule
    assert schedule.kind in ("wsd", "plateau")
    return stage.model, stage.training.optimizer, stage.start_sample, stage.num_samples


@pytest.mark.parametrize("arm", ["base", "shq", "ldq", "lmq", "lmq@60-40"])
def test_pretraining_is_that_of_the_recipe_for_one_run(paper: Study, arm: str) -> None:
    name = "pretrain_8b_" + arm.replace("@60-40", "_60_40")
    single = training(name, PretrainRecipe).stages()
    models = labelled(paper, "pretrain")
    trunk, branch = models["trunk-seed1"].recipe, models[f"{arm}-seed1"].recipe
    assert isinstance(trunk, Pretrain)
    assert branch == single["second"]
    assert without_plateau(trunk) == without_plateau(single["first"])
    shape, whole = trunk.training.schedule, single["first"].training.schedule
    assert shape.warmup_samples == round(whole.warmup_share * whole.total_samples)
    assert single["first"].num_samples <= whole.total_samples * (1 - whole.decay_share)


@pytest.mark.parametrize(
    ("arm", "blend"),
    [
        ("base", "paper_base"),
        ("shq", "paper_80_20_shq"),
        ("ldq", "paper_80_20_ldq"),
        ("lmq", "paper_80_20_lmq"),
        ("lmq@60-40", "paper_60_40_lmq"),
    ],
)
def test_windows_are_the_shares_of_the_blend_for_one_run(
    paper: Study, arm: str, blend: str
) -> None:
    recipe = load_blend(blend).value
    shares = {name: float(share) for name, share in (recipe.phases["second"].shares or {}).items()}
    windows = {
        window.source: window.tokens
        for window in labelled(paper, "blend")[f"{arm}-seed1"].recipe.windows
    }
    total = sum(windows.values())
    assert total == 400_002_646_016
    assert abs(windows["base"] - shares["base"] * total) <= recipe.sequence_tokens
    read = total - windows["base"]
    assert abs(read - (1 - shares["base"]) * total) <= recipe.sequence_tokens
    if arm.startswith("lmq"):
        assert windows["ldq"] / windows["shq"] == pytest.approx(336 / 12, rel=1e-4)


@pytest.mark.parametrize(("times", "name"), [(1, "sft_8b"), (2, "sft_8b_2x")])
def test_fine_tuning_is_that_of_the_recipe_for_one_run(paper: Study, times: int, name: str) -> None:
    arm = {1: "ldq+shq", 2: "base+shq"}[times]
    assert (
        labelled(paper, "sft")[f"{arm}-x{times}-seed1"].recipe
        == (training(name, SftRecipe).stages()["sft"])
    )


def test_reinforcement_learning_is_that_of_the_recipe_for_one_run(paper: Study) -> None:
    single = training("grpo_8b", GrpoRecipe)
    found = labelled(paper, "grpo")
    assert set(found) == {"base+shq-x1-seed1+rl", "lmq+shq-x1-seed1+rl"}
    for stage in found.values():
        assert stage.recipe == single
        assert stage.inputs["exported"].kind == "convert", "vLLM generates from an exported copy"
        assert stage.inputs["exported"].inputs["checkpoint"].key == stage.inputs["start"].key


@pytest.mark.parametrize("name", ["paper_8b", "paper_tiny"])
def test_the_whole_paper_is_one_graph_from_raw_files_to_tables(name: str) -> None:
    study = load_study(name)
    counts = Counter(stage.kind for stage in study.stages)
    suites = Counter(
        (stage.recipe.suite, stage.inputs["checkpoint"].kind)
        for stage in study.stages
        if stage.kind == "evaluate"
    )
    assert suites == {("base", "pretrain"): 5, ("sft", "sft"): 16, ("sft", "grpo"): 2}
    assert (counts["pretrain"], counts["sft"], counts["grpo"]) == (6, 16, 2)
    assert counts["convert"] == (2 if name == "paper_8b" else 0)
    assert counts["index"] == 3, "base text and two sets: the union is read as its parts"
    assert set(study.tabulate.recipe.cells) == set(load_study("laptop").tabulate.recipe.cells)


def test_each_kind_is_placed_where_the_study_says(paper: Study) -> None:
    assert paper.placements.of("pretrain").world_size == 512
    assert paper.placements.of("evaluate").world_size == 1
    assert paper.placements.of("curate_sets").gpus is None
