"""Studies for a cluster: the runs that they mean, the data behind them, and what is refused."""

from pathlib import Path

import pytest

from frontload.launch.cluster_plan import ClusterPlan, load_cluster_plan
from frontload.recipes.cluster_runs import TRUNK
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import recipe_names
from frontload.recipes.study.expand import load_study

CLAIMS_CELLS = {"pt:base", "pt:LMQ", "pt:LMQ@60-40", "pt:LDQ>sft:LDQ*2", "pt:LDQ>sft:ALF'"}


@pytest.fixture(scope="module")
def paper() -> ClusterPlan:
    return load_cluster_plan("paper_8b", [])


def test_the_paper_and_the_laptop_have_the_same_cells(paper: ClusterPlan) -> None:
    laptop = set(load_study("laptop").tabulate.recipe.cells)
    cells = {run.cell for run in paper.runs if run.cell}
    assert cells == laptop
    assert cells > CLAIMS_CELLS


def test_the_trunk_is_trained_once_and_each_run_stands_behind_its_start(
    paper: ClusterPlan,
) -> None:
    seen: set[str] = set()
    for run in paper.runs:
        assert not run.start or run.start in seen, run.label
        assert run.label not in seen
        seen.add(run.label)
    kinds = [run.kind for run in paper.runs]
    assert (kinds.count("pretrain"), kinds.count("sft"), kinds.count("grpo")) == (6, 16, 2)
    trunk, arms = paper.run(TRUNK), [run for run in paper.runs if run.start == TRUNK]
    assert trunk.tokens == 600_000_954_368
    assert {run.tokens for run in arms} == {400_002_646_016}
    assert all(run.data[0].endswith("/second") for run in arms)


def test_every_run_reads_data_that_a_command_makes(paper: ClusterPlan) -> None:
    made = {product.label for product in paper.products}
    for run in paper.runs:
        for label in run.data:
            assert "/".join(label.split("/")[:2]) in made, (run.label, label)
    labels = [product.label for product in paper.products]
    for product in paper.products:  # what a command reads was made above it
        for word in product.command:
            for one in labels:
                if (
                    f"{one}/" in word
                    and one != product.label
                    and not word.startswith(product.label)
                ):
                    assert labels.index(one) < labels.index(product.label), product.label


@pytest.mark.parametrize("name", recipe_names("cluster_studies"))
def test_every_study_that_ships_loads(name: str) -> None:
    assert load_cluster_plan(name, []).runs


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trunk=bse", "trunk: 'bse' is not there"),
        ("without=[shq2]", "without.0: 'shq2'"),
        ("without=[ldq]", "sft.cells.1.arm: 'ldq'"),
        ("branch_after=second", "branch_after: 'second' is not there"),
        ("arms.ldq.recipe=pretrain_8b_cosine", "differ in global_batch_sequences"),
        ("arms.ldq.recipe=sft_8b", "'sft_8b' is a SftRecipe"),
        ("arms.ldq.blend=paper_80_20_shq", "0 of ldq in phase second; the data"),
        (
            "arms.ldq.blend=paper_90_10_ldq",
            "0.9 of base in phase second; the data of pretrain_8b_ldq is 0.8",
        ),
        ("arms.ldq.blend=paper_200b_ldq", "phase"),
        ('sft.recipes={"1": sft_8b, "3": sft_8b_2x}', "sft.recipes.3: sft_8b_2x has"),
        ('sft.recipes={"2": sft_8b_2x}', "'1' is not there"),
        ("sft.mixes=[shq, xyz]", "sft.mixes.1: 'xyz'"),
        ("sft.mixes=[shq, shq]", "sft.mixes.1: shq stands there twice"),
        ("data.pack_epochs.shq=0", "data.pack_epochs.shq: is 0; it is 1 or more"),
        (
            "rl.cells=[{arm: base, mix: shq}, {arm: base, mix: shq}]",
            "rl.cells.1: stands there twice",
        ),
        ("rl.cells=[{arm: base, mix: alf}]", "rl.cells.0.mix: 'alf'"),
        ('placements.grpo=""', "placements.grpo: is missing"),
        ("data.prompts=[]", "data.prompts: is missing"),
        ("placements.sft=cpu", "placements"),
        ("placements.sft=slrm", "--placement slrm: no such placement"),
        ("arms.ldq.recipe=pretrain_9b", "pretrain_9b"),
    ],
)
def test_what_does_not_fit_is_refused_in_four_parts(override: str, told: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_cluster_plan("paper_8b", [override])
    assert told in str(refused.value)
    assert str(refused.value).count("; ") >= 2


def test_a_copy_beside_its_own_files_is_a_study(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: paper_8b\nwithout: [lmq@60-40, lmq]\nrl: null\nsft: {mixes: [shq]}\n")
    plan = load_cluster_plan(str(path), [])
    assert plan.name == "mine"
    assert {run.kind for run in plan.runs} == {"pretrain", "sft"}
    assert not any("lmq" in run.label for run in plan.runs)
    assert not any(product.label == "prompts" for product in plan.products)
