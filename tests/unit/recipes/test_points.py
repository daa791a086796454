"""Points: any model at any seed, onsets, several reasoning sets, and what they share."""

import time
from collections import Counter
from collections.abc import Sequence

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Schedule
from frontload.recipes.stage import Stage
from frontload.recipes.study.expand import Study, load_study, seeds_override
from frontload.recipes.study.points import grid_arms

TRUNK = 2_764_800  # of laptop
POINT = "{{windows: {{{windows}}}{more}}}"


def with_points(*points: str, study: str = "laptop", more: Sequence[str] = ()) -> Study:
    return load_study(study, overrides=[f"points=[{', '.join(points)}]", *more])


def point(windows: str, more: str = "") -> str:
    return POINT.format(windows=windows, more=f", {more}" if more else "")


def added(study: Study, *, than: Sequence[str] = ()) -> dict[str, Stage]:
    """Label -> stage of what the points add to the laptop's grid, tables left out."""
    known = {stage.key for stage in load_study("laptop", overrides=list(than)).stages}
    new = [stage for stage in study.stages if stage.key not in known]
    return {f"{stage.kind}/{stage.label}": stage for stage in new if stage.kind != "tabulate"}


def test_one_cell_at_one_new_seed_is_asked_for_alone() -> None:
    found = added(
        with_points(point("ldq: 368_640", "sft: {mix: shq, tokens: 368_640}, seeds: [7]"))
    )
    assert set(found) == {
        *("blend/trunk-seed7", "pretrain/trunk-seed7", "blend/ldq-seed7", "pretrain/ldq-seed7"),
        *("pack/shq-x1-seed7", "sft/ldq+shq-x1-seed7", "evaluate/ldq+shq-x1-seed7"),
    }


def test_a_point_of_the_grid_adds_nothing() -> None:
    study = with_points(point("ldq: 368_640", "sft: {mix: shq, tokens: 368_640}"))
    assert added(study) == {}
    assert study.tabulate.key == load_study("laptop").tabulate.key


def test_several_reasoning_sets_are_windows_of_one_branch_and_its_name_says_their_tokens() -> None:
    found = added(with_points(point("ldq: 250_112, shq: 50_048")))
    blend = found["blend/ldq@250112.shq@50048-seed1"].recipe
    windows = {window.source: (window.start_tokens, window.tokens) for window in blend.windows}
    total = 4_608_000
    assert windows == {
        "base": (TRUNK, total - TRUNK - 300_160),
        "ldq": (0, 250_112),
        "shq": (0, 50_048),
    }


@pytest.mark.parametrize("onset", [0, 1_382_400, 3_686_400])
def test_the_onset_is_a_factor_and_base_windows_touch(onset: int) -> None:
    study = with_points(point("ldq: 368_640", f"onset_tokens: {onset}"))
    found = added(study)
    branch = found[f"pretrain/ldq@368640-from{onset}-seed1"]
    assert branch.recipe.start_sample == onset // 128
    assert branch.recipe.start_sample + branch.recipe.num_samples == 4_608_000 // 128
    chain = [branch]
    while "start" in chain[-1].inputs:
        chain.append(chain[-1].inputs["start"])
    at = 0
    for stage in reversed(chain):
        base = next(w for w in stage.inputs["blend"].recipe.windows if w.source == "base")
        assert base.start_tokens == at
        at += base.tokens
    assert at == 4_608_000 - 368_640
    grid = next(s for s in study.stages if s.folder.startswith("pretrain/trunk-seed1"))
    assert (grid.key in {stage.key for stage in chain}) == (onset > TRUNK), (
        "a later onset goes on from the grid's trunk, an earlier one cannot"
    )


def test_pretraining_on_reasoning_alone_after_the_onset_is_a_point() -> None:
    found = added(with_points(point("ldq: 921_600", "onset_tokens: 3_686_400")))
    blend = found["blend/ldq@921600-from3686400-seed1"].recipe
    assert [window.source for window in blend.windows] == ["ldq"]


def test_no_fine_tuning_is_a_cell_that_the_other_suite_scores() -> None:
    one_suite = ["evaluation.suites_of_pretrained=[base]"]
    study = with_points(point("ldq: 368_640", "sft: {mix: shq, tokens: 0}"), more=one_suite)
    found = added(study, than=one_suite)
    assert set(found) == {"evaluate/ldq-seed1"}
    assert found["evaluate/ldq-seed1"].recipe.suite == "sft"
    assert study.tabulate.recipe.cells["pt:LDQ"] == ("pt:LDQ seed 1", "pt:LDQ seed 1 sft")


def test_every_pretrained_model_may_be_scored_by_both_suites() -> None:
    study = load_study("laptop")
    found = Counter(s.recipe.suite for s in study.stages if s.kind == "evaluate")
    assert found == {"base": 5, "sft": 16 + 2 + 5}


def test_an_odd_share_is_snapped_to_whole_sequences_and_named_by_its_tokens() -> None:
    study = load_study("laptop", overrides=["ratio_arms=[{mix: lmq, base_share: 0.637}]"])
    arm = list(grid_arms(study.recipe).values())[-1]
    assert (arm.name, arm.cell) == ("lmq@669056", "pt:LMQ@669056")
    assert arm.windows == (("lmq", 669_056),)
    assert arm.reasoning_tokens % 128 == 0
    assert abs(arm.reasoning_tokens - 1_843_200 * 0.363) <= 64


def test_two_parts_of_a_set_share_no_row_and_are_mixes_of_their_own() -> None:
    halves = [
        "mixes.first={members: [shq], min_answer_tokens: 0, share_of_member: {}, "
        "part_of_member: {shq: [0.0, 0.5]}}",
        "mixes.second={members: [shq], min_answer_tokens: 0, share_of_member: {}, "
        "part_of_member: {shq: [0.5, 1.0]}}",
        "pretraining.max_epochs={base: 1.0, shq: 8.0, ldq: 1.0, lmq: 1.0, first: 16.0}",
    ]
    study = with_points(point("first: 368_640", "sft: {mix: second, tokens: 368_640}"), more=halves)
    sets = {s.label: s.recipe.part_of_member for s in study.stages if s.kind == "curate"}
    assert sets["first"] == {"shq": (0.0, 0.5)}
    assert sets["second"] == {"shq": (0.5, 1.0)}


def test_a_plateau_is_shared_by_runs_of_other_lengths() -> None:
    wsd = ["pretraining.schedule=wsd", "pretraining.decay_share=0.2"]

    def trunk(tokens: int, share: float, warmup: float) -> Stage:
        more = [f"pretraining.tokens={tokens}", f"pretraining.first_phase_share={share}"]
        more += [f"pretraining.warmup_share={warmup}"]
        stages = load_study("laptop", overrides=[*wsd, *more]).stages
        return next(s for s in stages if s.folder.startswith("pretrain/trunk"))

    one = trunk(4_608_000, 0.6, 0.03)
    other = trunk(5_529_600 - 1024 * 900 * 2, 0.75, 0.0375)
    assert one.recipe.training.schedule == Schedule(
        kind="plateau", warmup_share=0.0, decay_share=0.0, total_samples=0, warmup_samples=1080
    )
    assert one.key == other.key


@pytest.mark.parametrize(
    ("text", "asked", "said"),
    [
        (point("ldq: 100"), "points.0.windows.ldq", "write 0 or 128"),
        (point("nix: 128"), "points.0.windows.nix", "not known"),
        (point("ldq: 128", "onset_tokens: 1_000"), "points.0.onset_tokens", "write 0 or 1_024"),
        (point("ldq: 1_843_328"), "points.0.windows", "leave 1_843_200"),
        (point("ldq: 128", "sft: {mix: shq, tokens: -1}"), "points.0.sft.tokens", "is 0 or more"),
        (point("ldq: 128", "rl: true"), "points.0.rl", "goes on from a fine-tuned model"),
        (point("ldq: 128", "seeds: [1, 1]"), "points.0.seeds.1", "twice"),
        (point("ldq: 128", "suites: [rl]"), "points.0.suites.0", "base, sft"),
        (point("ldq: 1_843_200, shq: 0", "onset_tokens: 4_608_000"), "points.0.onset_tokens", ""),
    ],
)
def test_a_point_that_cannot_be_made_is_refused_in_its_place(
    text: str, asked: str, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        with_points(text)
    assert asked in caught.value.asked
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "override"),
    [("3", "seeds=[1, 2, 3]"), ("4,5", "seeds=[4, 5]"), ("7,", "seeds=[7]")],
)
def test_seeds_are_counted_or_listed(text: str, override: str) -> None:
    assert seeds_override(text) == override


@pytest.mark.parametrize("text", ["", "-1", "a", "1,b", "1.5"])
def test_other_words_for_seeds_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="listed"):
        seeds_override(text)


def test_the_cost_of_a_plan_grows_with_its_stages_and_no_faster() -> None:
    def seconds(count: int) -> tuple[float, int]:
        began = time.process_time()
        study = load_study("laptop", overrides=[seeds_override(str(count))])
        return time.process_time() - began, len(study.stages)

    few, many = seconds(10), seconds(80)
    assert many[1] > 7 * few[1]
    assert many[0] < 3 * (many[1] / few[1]) * few[0], "a generous factor of 3: noise, not squares"
