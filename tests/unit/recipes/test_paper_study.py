"""The paper's study at 8B: its numbers are those of the recipes for one run, its graph is whole."""

from collections import Counter
from pathlib import Path

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import RECIPES, load_recipe
from frontload.recipes.runs.blend import load_blend
from frontload.recipes.runs.training import PretrainRecipe
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


@pytest.mark.parametrize("arm", ["base", "shq", "ldq", "lmq", "lmq@60-40"])
def test_phases_are_those_of_the_recipe_for_one_run(paper: Study, arm: str) -> None:
    name = "pretrain_8b_" + arm.replace("@60-40", "_60_40")
    single = training(name, PretrainRecipe).stages()
    models = labelled(paper, "pretrain")
    trunk, branch = models["trunk-seed1"].recipe, models[f"{arm}-seed1"].recipe
    assert isinstance(trunk, Pretrain)
    assert branch == single["second"]
    first = single["first"]
    assert (trunk.start_sample, trunk.num_samples) == (first.start_sample, first.num_samples)
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


STUDY = """extends: paper_tiny
sft:
  extends: sft_mine
  mixes: [shq]
  cells: []
  warmup_share: 0.1
rl: null
"""


def write_study(folder: Path, text: str = STUDY, tuning: str = "tokens: 1_536") -> Path:
    """A user's study beside the training recipe that one of its sections goes on from."""
    for name, content in (
        ("studies/mine", text),
        ("training/sft_mine", f"extends: sft_tiny\nlearning_rate: 2.0e-3\nseed: 7\n{tuning}\n"),
    ):
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return folder / "studies" / "mine.yaml"


def test_a_section_goes_on_from_a_recipe_of_one_run(tmp_path: Path) -> None:
    """Its numbers, then the section's own; model, seeds and upkeep stay the study's."""
    study = load_study(str(write_study(tmp_path)))
    stage = labelled(study, "sft")["base+shq-x1-seed1"].recipe
    training = stage.training
    assert (training.optimizer.learning_rate, training.optimizer.min_learning_rate) == (2e-3, 0.0)
    assert (training.schedule.kind, training.schedule.warmup_share) == ("cosine", 0.1)
    assert (stage.num_samples, training.seed) == (1_536 // 32, 1)
    assert stage.model == study.recipe.model


@pytest.mark.parametrize(
    ("text", "tuning", "told"),
    [
        (
            STUDY.replace("sft_mine", "sft_mien"),
            "",
            "mine.yaml:3: sft.extends: 'sft_mien' is not a",
        ),
        (STUDY, "tokens: 1_000", "sft_mine.yaml:4: sft.tokens: is 1_000; a budget is whole"),
        (STUDY, "tokenz: 1_000", "sft_mine.yaml:4: sft.tokenz: 'tokenz' is not a key of sft"),
        (
            STUDY.replace("  mixes", "  seed: 3\n  mixes"),
            "",
            "mine.yaml:4: sft.seed: 'seed' is not",
        ),
        (STUDY.replace("sft_mine", "[a]"), "", "mine.yaml:3: sft.extends: "),
    ],
)
def test_a_wrong_parent_of_a_section_is_refused_where_it_stands(
    tmp_path: Path, text: str, tuning: str, told: str
) -> None:
    with pytest.raises(RecipeError) as found:
        load_study(str(write_study(tmp_path, text, tuning or "tokens: 1_536")))
    assert told in str(found.value)


def test_a_parent_is_no_value_to_override() -> None:
    with pytest.raises(RecipeError, match=r"command line: sft.extends: 'extends' is not a key"):
        load_study("paper_tiny", overrides=["sft.extends=sft_tiny"])


def test_reinforcement_learning_goes_on_from_exported_copies_of_two_cells(paper: Study) -> None:
    found = labelled(paper, "grpo")
    assert set(found) == {"base+shq-x1-seed1+rl", "lmq+shq-x1-seed1+rl"}
    for stage in found.values():
        assert stage.inputs["exported"].kind == "convert", "vLLM generates from an exported copy"
        assert stage.inputs["exported"].inputs["checkpoint"].key == stage.inputs["start"].key


@pytest.mark.parametrize("name", ["paper_8b", "paper_tiny"])
def test_the_whole_paper_is_one_graph_from_raw_files_to_tables(name: str) -> None:
    study = load_study(name)
    counts = Counter(stage.kind for stage in study.stages)
    suites = Counter(
        (stage.recipe.suite.stage, len(stage.recipe.suite.asked), stage.inputs["checkpoint"].kind)
        for stage in study.stages
        if stage.kind == "benchmarks"
    )
    assert suites == {
        ("base", 10, "pretrain"): 5,
        ("sft", 9, "sft"): 16,
        ("sft", 8, "grpo"): 2,
    }, "the reinforced models are not asked to follow instructions"
    assert (counts["pretrain"], counts["sft"], counts["grpo"]) == (6, 16, 2)
    assert counts["convert"] == (23 if name == "paper_8b" else 0), "vLLM reads exported copies"
    assert counts["import_benchmarks"] == 1
    assert counts["index"] == 3, "base text and two sets: the union is read as its parts"
    assert set(study.tabulate.recipe.cells) == set(load_study("laptop").tabulate.recipe.cells)


def test_each_kind_is_placed_where_the_study_says(paper: Study) -> None:
    assert paper.placements.of("pretrain").world_size == 512
    assert paper.placements.of("benchmarks").world_size == 1
    assert paper.placements.of("benchmarks").gpus is not None
    assert paper.placements.of("curate_sets").gpus is None
