"""An allocation's question: its lattice spends the budget, its points are a study's; refusals."""

from pathlib import Path

import pytest

from frontload.recipes.allocation.graph import AllocationGraph, rated_graph
from frontload.recipes.allocation.lattice import (
    exchange_points,
    exchange_sets,
    make_lattice,
    passes_of,
    spent_tokens,
)
from frontload.recipes.allocation.load import load_allocation
from frontload.recipes.allocation.schema import AllocationRecipe
from frontload.recipes.errors import RecipeError
from frontload.recipes.study.expand import load_study

WSD = ("study.pretraining.schedule=wsd", "study.pretraining.decay_share=0.2")


def laptop(*overrides: str) -> AllocationRecipe:
    return load_allocation("laptop", overrides=overrides).value


def refusal(*overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_allocation("laptop", overrides=overrides)
    return caught.value


def test_every_candidate_spends_the_budget_and_each_model_stands_once() -> None:
    recipe = laptop()
    points = make_lattice(recipe).points
    assert {spent_tokens(recipe, point) for point in points} == {737_280}
    assert len({point.identity for point in points}) == len(points) == 22
    assert sum(not point.sft_tokens for point in points) == 1, "no SFT is one model for both mixes"
    unit = recipe.study.sft.sequence_tokens * recipe.study.sft.global_batch_sequences
    assert all(point.sft_tokens % unit == 0 for point in points)


def test_competitors_are_candidates_on_the_lattice_or_beside_it() -> None:
    lattice = make_lattice(laptop())
    named = {name: lattice.points[place] for name, place in lattice.competitors.items()}
    assert named["the paper's 80/20 and SHQ"].levels == (0.5,)
    assert named["all in SFT"].pretraining_tokens == 0
    assert named["a uniform split"].sets == ("ldq", "lmq")
    assert named["a uniform split"].levels == (pytest.approx(1 / 3, abs=1e-6),)


def test_a_candidate_that_a_study_trained_has_the_keys_of_that_study() -> None:
    recipe = laptop()
    lattice = make_lattice(recipe)
    graph = AllocationGraph(recipe, lattice)
    known = {stage.key for stage in load_study("laptop", overrides=["seeds=[7]"]).stages}
    half = lattice.competitors["the paper's 80/20 and SHQ"]
    parts = {one.part: one.stage.key in known for one in graph.parts(half, 7)}
    assert parts == {
        "blend/trunk": True,
        "pretrain/trunk": True,
        "blend/ldq": True,
        "pretrain/ldq": True,
        "pack/shq-x1": True,
        "sft/ldq+shq-x1": True,
        "evaluate/ldq+shq-x1": True,
    }
    assert graph.evaluation(half, 7).recipe.suite == "sft"


def test_candidates_of_one_pretraining_are_one_arm() -> None:
    recipe = laptop()
    lattice = make_lattice(recipe)
    arms = AllocationGraph(recipe, lattice).arms
    shares = [point.pretraining_tokens for point in lattice.points]
    assert len(set(arms)) == len(set(shares)) == 12
    assert len(set(zip(arms, shares, strict=True))) == 12


def test_no_fine_tuning_is_scored_by_the_suite_of_fine_tuned_models() -> None:
    recipe = laptop()
    lattice = make_lattice(recipe)
    last = lattice.competitors["all in pretraining"]
    evaluation = AllocationGraph(recipe, lattice).evaluation(last, 1)
    assert evaluation.recipe.suite == "sft"
    assert evaluation.inputs["checkpoint"].kind == "pretrain"


def test_loss_tokens_are_matched_to_half_a_batch() -> None:
    recipe = laptop(
        "budget={tokens: 737_280, unit: loss, fixed: pretraining, loss_share: {shq: 0.576, "
        "ldq: 0.48}}",
        "sft_max_epochs={shq: 30.0, ldq: 2.0}",
        "competitors={pt: {windows: {ldq: 737_280}, sft: {mix: shq, tokens: 0}}}",
    )
    points = make_lattice(recipe).points
    assert max(abs(spent_tokens(recipe, point) - 737_280) for point in points) <= 128
    rows = {point.sets[1]: point.sft_tokens for point in points if point.levels == (0.0,)}
    assert rows == {"shq": 1_280_000, "ldq": 1_536_000}


def test_total_compute_takes_from_base_text_what_sft_gets_and_shares_the_trunk() -> None:
    recipe = laptop("budget={tokens: 737_280, unit: read, fixed: compute}", *WSD)
    lattice = make_lattice(recipe)
    graph = AllocationGraph(recipe, lattice)
    total = recipe.study.pretraining.tokens
    assert {p.total_pretraining_tokens + p.sft_tokens for p in lattice.points} == {total}
    trunks = {
        one.stage.key
        for place in range(len(lattice.points))
        for one in graph.parts(place, 1)
        if one.part == "pretrain/trunk"
    }
    assert len(trunks) == 1
    ends = {
        point.name: sum(
            one.stage.recipe.num_samples * 128
            for one in graph.parts(place, 1)
            if one.stage.kind == "pretrain"
        )
        for place, point in enumerate(lattice.points)
    }
    assert ends == {p.name: p.total_pretraining_tokens for p in lattice.points}


def test_the_onset_is_a_factor_and_what_does_not_fit_behind_it_is_counted() -> None:
    recipe = laptop("factors.onset={least: 0.2, most: 0.9, steps: 3}")
    lattice = make_lattice(recipe)
    assert lattice.factors == ("share in pretraining", "onset")
    assert lattice.num_left_out > 0
    total = recipe.study.pretraining.tokens
    for point in lattice.points:
        onset = point.knobs.onset_tokens or 0
        assert onset + point.pretraining_tokens <= total
        assert onset % 1024 == 0
    of_none = [point for point in lattice.points if not point.pretraining_tokens]
    assert len(of_none) == 2, "without reasoning an onset is none: one model a mix"


def test_the_share_of_base_text_says_where_reasoning_begins() -> None:
    recipe = laptop("factors.base_share={least: 0.5, most: 0.8, steps: 2}")
    points = make_lattice(recipe).points
    (point,) = [p for p in points if p.levels == (0.5, 1.0) and p.sets[1] == "shq"]
    after = recipe.study.pretraining.tokens - (point.knobs.onset_tokens or 0)
    assert point.pretraining_tokens / after == pytest.approx(0.2, abs=0.001)


@pytest.mark.parametrize(
    ("override", "asked", "do"),
    [
        ("budget.tokens=737_000", "budget.tokens", "write 736_256 or 737_280"),
        ("budget.tokens=100", "budget.tokens", "write 1_024"),
        ("budget.unit=unique", "budget.unit", "read"),
        ("budget.unit=loss", "budget.loss_share", "add `shq: 0.5`"),
        ("budget.loss_share={shq: 0.5}", "budget.loss_share.shq", "leave it out"),
        ("budget.fixed=compute", "budget.fixed", "study.pretraining.schedule=wsd"),
        ("factors.pretraining_share.most=1.2", "factors.pretraining_share.most", "0.5"),
        ("factors.pretraining_share.least=1.0", "factors.pretraining_share.steps", "steps: 1"),
        ("factors.pretraining_share.steps=102", "factors.pretraining_share.steps", "101"),
        ("factors.sft_mixes=[shk]", "factors.sft_mixes.0", "shq"),
        ("factors.sft_mixes=[]", "factors.sft_mixes", "name one of"),
        ("factors.pretraining_sets={a: {ldq: 0.9}}", "factors.pretraining_sets.a", "missing set"),
        ("objectives.average.epsilon=0.0", "objectives.average.epsilon", "1"),
        ("objectives.average.weights={}", "objectives.average.weights", "sft.avg"),
        ("decides=best", "decides", "average"),
        ("competitors={}", "competitors", "all in SFT"),
        (
            "competitors={half: {windows: {ldq: 368_640}, sft: {mix: shq, tokens: 375_808}}}",
            "competitors.half",
            "-7_168",
        ),
        (
            "competitors={half: {windows: {ldq: 368_640}, sft: {mix: shq, tokens: 368_000}}}",
            "competitors.half.sft.tokens",
            "367_616 or 368_640",
        ),
        ("competitors={half: {windows: {ldq: 737_280}}}", "competitors.half", "sft"),
        ("sft_max_epochs={shq: 12.0, ldq: 1.0, lmq: 1.0}", "sft_max_epochs.shq", "14.75"),
        ("sft_max_epochs={shq: 16.0, ldq: 1.0}", "sft_max_epochs", "add `lmq: 1.0`"),
        (
            "study.pretraining.max_epochs={base: 1.0, shq: 8.0, ldq: 0.7, lmq: 1.0}",
            "study.pretraining.max_epochs.ldq",
            "0.74",
        ),
        ("money.unit=gpu_hours", "money.unit", "cpu_seconds"),
        ("money.explore=0", "money.explore", "cpu_seconds"),
        ("design.first_arms=1", "design.first_arms", "2 or more"),
        ("design.first_seeds=0", "design.first_seeds", "1"),
        ("design.least_seeds=1", "design.least_seeds", "2"),
        ("design.half_width=0.0", "design.half_width", "epsilon"),
        ("readings={seeds: 3}", "readings", "sft_rates"),
        ("readings={seeds: 1, sft_rates: [2.0]}", "readings.seeds", "2"),
        ("readings={seeds: 3, sft_rates: [1.0]}", "readings.sft_rates.0", "0.5"),
        ("readings={seeds: 3, sft_rates: [2.0, 2.0]}", "readings.sft_rates.1", "remove"),
        ("readings.exchange.objective=loss", "readings.exchange.objective", "heldout_loss"),
        (
            "readings.exchange.cells={one: {windows: {}, sft: {mix: ldq, tokens: 184_320}}}",
            "readings.exchange.cells",
            "5 cells",
        ),
        (
            "readings.exchange.cells={one: {windows: {}, sft: {mix: ldq, tokens: 0}}}",
            "readings.exchange.cells.one.sft",
            "some tokens",
        ),
        (
            "readings.exchange.cells={one: {windows: {}, sft: {mix: ldqq, tokens: 1_024}}}",
            "readings.exchange.cells.one.sft.mix",
            "ldq",
        ),
        (
            "readings.exchange.cells={one: {windows: {}, sft: {mix: ldq, tokens: 1_025}}}",
            "readings.exchange.cells.one.sft.tokens",
            "1_024 or 2_048",
        ),
        ("study.seeds=[4, 5]", "study.seeds", "leave it out"),
        ("study.arms=[]", "study.arms", "[base, ldq]"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_by_its_key(
    override: str, asked: str, do: str
) -> None:
    error = refusal(override)
    assert error.asked.endswith(f": {asked}")
    assert do in error.do


def test_onset_and_base_share_are_one_factor_stated_once() -> None:
    level = "{least: 0.2, most: 0.6, steps: 3}"
    error = refusal(f"factors.onset={level}", f"factors.base_share={level}")
    assert error.asked.endswith("factors.base_share")


def test_more_levels_than_the_budget_has_batches_are_refused() -> None:
    error = refusal(
        "budget.tokens=20_480",
        "competitors={all: {windows: {}, sft: {mix: shq, tokens: 20_480}}}",
        "factors.pretraining_share.steps=22",
    )
    assert error.asked.endswith("factors.pretraining_share.steps")
    assert error.do == "write at most 21"


def test_a_share_that_fits_behind_no_onset_is_refused() -> None:
    error = refusal("factors.onset={least: 0.95, most: 0.95, steps: 1}")
    assert error.asked.endswith("factors.pretraining_share.most")
    assert "0.4 of 737_280" in error.found


def test_seeds_that_a_question_states_for_its_study_are_refused_and_a_studys_own_are_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: laptop\nstudy: {seeds: [3]}\n")
    with pytest.raises(RecipeError) as caught:
        load_allocation(str(path))
    assert caught.value.asked.endswith("mine.yaml:2: study.seeds")
    path.write_text("extends: laptop\nstudy: {extends: laptop, pretraining: {tokens: 2_304_000}}\n")
    recipe = load_allocation(str(path)).value
    assert recipe.study.pretraining.tokens == 2_304_000
    assert recipe.study.sft == laptop().study.sft


def exchange(*cells: tuple[int, int], before: str = "ldq", after: str = "ldq") -> str:
    """An override with these cells: batches of SFT in pretraining and in SFT."""
    written = [
        f"c{place}: {{windows: {{{before}: {1_024 * one}}}, "
        f"sft: {{mix: {after}, tokens: {1_024 * two}}}}}"
        for place, (one, two) in enumerate(cells)
    ]
    return f"readings.exchange.cells={{{', '.join(written)}}}"


def test_cells_of_one_budget_give_no_exchange_rate_and_neither_do_those_of_one_pretraining() -> (
    None
):
    one_budget = refusal(exchange((0, 100), (20, 80), (50, 50), (70, 30), (90, 10)))
    assert one_budget.found == "every cell spends 102_400 tokens"
    one_stage = refusal(exchange((0, 10), (0, 20), (0, 40), (0, 80), (0, 100)))
    assert one_stage.found == "1 budgets of pretraining"
    recipe = laptop(exchange((0, 10), (0, 20), (0, 40), (50, 10), (50, 20)))
    assert exchange_sets(recipe) == ("ldq", "ldq")
    spent = [(p.pretraining_tokens, p.sft_tokens) for p in exchange_points(recipe).values()]
    assert spent[3] == (51_200, 10_240)


def test_a_rate_of_two_mixes_at_once_is_refused() -> None:
    cells = exchange((0, 10), (0, 20), (0, 40), (50, 10))
    mixed = cells[:-1] + ", c9: {windows: {ldq: 51_200}, sft: {mix: shq, tokens: 20_480}}}"
    assert refusal(mixed).found == "2 SFT mixes"


def test_cells_of_an_exchange_rate_repeat_no_set_more_often_than_is_allowed() -> None:
    error = refusal(exchange((0, 10), (0, 20), (0, 40), (50, 10), (50, 1_000)))
    assert error.asked.endswith("sft_max_epochs.ldq")


def test_another_learning_rate_of_sft_trains_the_same_pretraining() -> None:
    recipe = laptop()
    lattice = make_lattice(recipe)
    half = lattice.competitors["the paper's 80/20 and SHQ"]
    last = lattice.competitors["all in pretraining"]
    plain, rated = AllocationGraph(recipe, lattice), rated_graph(recipe, lattice, sft_rate=0.5)
    changed = {
        one.part
        for one, other in zip(plain.parts(half, 1), rated.parts(half, 1), strict=True)
        if one.stage.key != other.stage.key
    }
    assert changed == {"sft/ldq+shq-x1", "evaluate/ldq+shq-x1"}
    tuned = rated.evaluation(half, 1).inputs["checkpoint"].recipe.training
    assert tuned.optimizer.learning_rate == 0.5 * recipe.study.sft.learning_rate
    assert rated.evaluation(last, 1).key == plain.evaluation(last, 1).key, "no SFT has no rate"


def test_passes_over_a_set_are_those_of_both_stages() -> None:
    recipe = laptop()
    points = {point.name: passes_of(recipe, point) for point in make_lattice(recipe).points}
    both = points["368,640 ldq from 2,764,800, SFT 368,640 ldq"]
    assert both == {"ldq": pytest.approx(0.737, abs=0.001)}
    apart = points["368,640 ldq from 2,764,800, SFT 368,640 shq"]
    assert apart == {"ldq": pytest.approx(0.3686), "shq": pytest.approx(7.3728)}
