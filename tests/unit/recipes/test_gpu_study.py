"""The study of one GPU and its twin on a CPU: what they share, and what the budgets hold to."""

from dataclasses import replace

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.stage import BF16_BRANCH_REVISION, BOXED_REWARD_REVISION, REVISION
from frontload.recipes.study.expand import Study, load_study
from frontload.recipes.study.points import mixed_tokens


def shape(study: Study) -> list[str]:
    """Kinds and labels: the graph without its sizes."""
    return [f"{stage.kind}/{stage.label}" for stage in study.stages if stage.kind != "tabulate"]


def test_the_twin_has_the_graph_of_one_seed_and_differs_in_size_and_place_only() -> None:
    tiny = load_study("single_gpu_tiny")
    assert shape(tiny) == shape(load_study("single_gpu", overrides=["seeds=[1]"]))
    big, small = load_study("single_gpu").recipe, tiny.recipe
    assert (big.arms, big.ratio_arms, big.mixes) == (small.arms, small.ratio_arms, small.mixes)
    assert big.model.pattern == small.model.pattern
    assert big.model.mamba_num_groups == small.model.mamba_num_groups
    assert big.tokenizer == small.tokenizer
    for section in ("pretraining", "sft"):
        ours, twins = getattr(big, section), getattr(small, section)
        sizes = ("tokens", "sequence_tokens", "global_batch_sequences", "learning_rate")
        sizes += ("step_tokens",) if section == "sft" else ()
        same = replace(twins, **{name: getattr(ours, name) for name in sizes})
        assert same == ours, section
        assert ours.precision == "bf16"
    assert small.placement.gpus is None
    assert big.placement.gpus is not None


def test_it_is_the_laptops_study_on_more_families() -> None:
    one_gpu, laptop = load_study("single_gpu").recipe, load_study("laptop").recipe
    assert (one_gpu.arms, one_gpu.ratio_arms) == (laptop.arms, laptop.ratio_arms)
    assert (one_gpu.sft.mixes, one_gpu.sft.cells) == (laptop.sft.mixes, laptop.sft.cells)
    assert one_gpu.synthesis is not None
    assert laptop.synthesis is not None
    assert set(laptop.synthesis.ldq.families) < set(one_gpu.synthesis.ldq.families)
    read = [mixed_tokens(one.pretraining, one.pretraining.base_share) for one in (one_gpu, laptop)]
    ratios = [one.sft.tokens / tokens for one, tokens in zip((one_gpu, laptop), read, strict=True)]
    assert ratios == [pytest.approx(1.0, abs=0.03)] * 2


def test_only_branches_in_bf16_have_the_revision_of_their_masters() -> None:
    """What float32 trains, a trunk in bf16 and its SFT mean what they meant."""
    for name in ("single_gpu", "laptop"):
        found = {
            (stage.recipe.training.precision, "start" in stage.inputs, stage.payload()["revision"])
            for stage in load_study(name, overrides=["seeds=[1]"]).stages
            if stage.kind == "pretrain"
        }
        precision = "bf16" if name == "single_gpu" else "fp32"
        branches = BF16_BRANCH_REVISION if precision == "bf16" else REVISION["pretrain"]
        assert found >= {
            (precision, False, REVISION["pretrain"]),
            (precision, True, branches),
        }
        assert len({(has_start, number) for _, has_start, number in found}) == 2


def test_only_a_reward_of_boxed_answers_has_the_revision_of_its_grader() -> None:
    """What the template's marks are graded by has not changed."""
    for name, revision in (("laptop", REVISION["grpo"]), ("paper_8b", BOXED_REWARD_REVISION)):
        stages = load_study(name, overrides=["seeds=[1]"]).stages
        found = {one.payload()["revision"] for one in stages if one.kind == "grpo"}
        assert found == {revision}
    assert REVISION["grpo"] < BOXED_REWARD_REVISION


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("placement.gpus.kind=h900", "'h900' is not known; it is one of"),
        ("placement.gpus.kernel_mfu=0.0", "above 0 and at most at 1"),
        ("placement.stages_per_gpu=0", "it is 1 or more"),
        ("synthesis.base_tokens=30_000_000", "at most 1 epochs of base"),
    ],
)
def test_a_wrong_number_is_refused(override: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_study("single_gpu", overrides=[override])
