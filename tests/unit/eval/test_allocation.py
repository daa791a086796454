"""Allocation: simulated studies with known truth, the next block, prices, comparisons, outcomes."""

from dataclasses import replace

import numpy as np
import pytest

from frontload.eval.allocation.answer import objective_text
from frontload.eval.allocation.blocks import (
    CellBlock,
    Prices,
    arms_of,
    first_block,
    next_blocks,
    rate,
    require_paired,
    space_of,
    spent,
)
from frontload.eval.allocation.conclude import (
    FLAT,
    OVERTURNED,
    RECOMMENDED,
    UNDECIDED,
    edges_of,
    judge_outcome,
    under_caps,
)
from frontload.eval.allocation.decide import NO_MONEY, SURE, WITHIN, decide_next
from frontload.eval.allocation.surrogate import Observed, Posterior, fit
from frontload.eval.allocation.validate import (
    BETTER,
    EQUAL,
    OPEN,
    WORSE,
    Compared,
    Predicted,
    Registration,
    compare_fresh,
    half_width,
    plan_validation,
    pooled_difference,
    seeds_for,
)
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.allocation import AllocationQuestion
from tests.simulated_allocation import (
    BRANCH,
    EVALUATION,
    TRUNK,
    TUNING,
    Simulated,
    World,
    fixed_grid,
    make_question,
    random_search,
    simulate,
    simulated_studies,
    surface,
)

REPLICATES = 12  # of each of four kinds; tests/bench/bench_allocate.py has more
MONEY = 20.0
QUESTION = make_question(epsilon=2.0, money=MONEY)


@pytest.fixture(scope="module")
def studies() -> list[Simulated]:
    return simulated_studies(REPLICATES, money=MONEY)


# ---------------------------------------------------------------- claims about known truth


def test_intervals_on_fresh_seeds_cover_the_true_difference(studies: list[Simulated]) -> None:
    covered = [
        one.low <= study.true_difference(one.candidate) <= one.high
        for study in studies
        for one in study.conclusion.compared
    ]
    assert len(covered) >= len(studies)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_what_exploring_predicts_covers_the_true_difference(studies: list[Simulated]) -> None:
    covered = [
        abs(one.predicted - study.true_difference(one.candidate)) <= 1.96 * one.predicted_error
        for study in studies
        for one in study.conclusion.compared
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_a_claim_of_eight_in_ten_is_true_in_nine(studies: list[Simulated]) -> None:
    claims = [one.regret <= 0.1 for one in studies if one.decision.chance >= SURE]
    assert len(claims) >= len(studies) / 3
    assert np.mean(claims) >= 0.9


def test_regret_is_half_of_random_searchs_and_no_more_than_the_grids(
    studies: list[Simulated],
) -> None:
    mine = np.mean([one.regret for one in studies])
    others = {}
    for policy in (random_search, fixed_grid):
        regrets = []
        for place, study in enumerate(studies):
            generator = np.random.default_rng([5, place])
            world = World(
                study.world.question,
                study.world.value_C,
                generator,
                study.world.deviations,
            )
            values = world.value_C
            regrets.append((values.max() - values[policy(world, MONEY)]) / study.span)
        others[policy.__name__] = np.mean(regrets)
    assert mine <= others["random_search"] / 2
    assert mine <= others["fixed_grid"]


def test_recommended_means_better_than_what_it_says(studies: list[Simulated]) -> None:
    said = [
        study.true_difference(one.candidate) > 0
        for study in studies
        if study.conclusion.outcome == RECOMMENDED
        for one in study.conclusion.compared
        if one.verdict == BETTER
    ]
    assert len(said) >= len(studies) / 4
    assert np.mean(said) >= 0.95


def test_no_study_pays_more_than_its_money_or_has_a_lone_arm_at_a_seed(
    studies: list[Simulated],
) -> None:
    for study in studies:
        fresh = set(study.registration.cells())
        explored = [cell for cell in study.world.scores if cell not in fresh]
        assert spent(study.world.question, explored) <= MONEY
        require_paired(study.world.question, explored)
        assert {seed for _, seed in explored}.isdisjoint(study.registration.seeds)


def test_a_flat_surface_is_never_recommended_and_mostly_cannot_be_told() -> None:
    found = []
    for replicate in range(12):
        generator = np.random.default_rng([9, replicate])
        found.append(simulate(np.zeros(42), generator, epsilon=2.0, validate_price=30.0))
    outcomes = [one.conclusion.outcome for one in found]
    assert RECOMMENDED not in outcomes
    assert outcomes.count(UNDECIDED) >= 9
    open_one = next(one.conclusion for one in found if one.conclusion.outcome == UNDECIDED)
    assert open_one.seeds_to_know > 0
    assert open_one.price_to_know > 0


def test_enough_fresh_seeds_tell_that_a_surface_is_flat() -> None:
    generator = np.random.default_rng(4)
    found = simulate(
        np.zeros(42), generator, epsilon=4.0, validate_price=1e5, half_width=2.0, money=MONEY
    )
    assert found.conclusion.outcome == FLAT
    assert found.conclusion.seeds_to_know == 0


def test_an_optimum_at_the_edge_is_called_one() -> None:
    generator = np.random.default_rng(1)
    slope = np.repeat(np.linspace(0.0, 30.0, 21), 2)
    found = simulate(slope, generator, epsilon=3.0, money=MONEY)
    assert found.conclusion.edges == ("share in pretraining",)
    middle = simulate(np.repeat(30 - 90 * np.linspace(-0.5, 0.5, 21) ** 2, 2), generator)
    assert middle.conclusion.edges == ()


# ---------------------------------------------------------------- the surrogate


def test_the_posterior_is_the_gaussian_form_at_one_draw_of_the_scales() -> None:
    """Against the joint normal of all candidates and all scores, conditioned by hand."""
    posterior, cells = one_member()
    member, scales, space = posterior.members[0], posterior.members[0].scales, posterior.space
    kernel = scales.signal_kernel(space) + (10.0 * posterior.observed.value_N.std()) ** 2
    weights = np.zeros((len(cells), 42))
    noise = np.zeros((len(cells), len(cells)))
    for row, (candidate, seed) in enumerate(cells):
        weights[row, candidate] = 1
        for column, (other, at) in enumerate(cells):
            same_arm = space.arm_C[candidate] == space.arm_C[other]
            noise[row, column] = (
                scales.seed**2 * (seed == at)
                + scales.branch**2 * (seed == at and same_arm)
                + scales.cell**2 * (row == column)
            )
    noise += 1e-6 * posterior.observed.value_N.std() ** 2 * np.eye(len(cells))
    gain = kernel @ weights.T @ np.linalg.inv(weights @ kernel @ weights.T + noise)
    centred = posterior.observed.value_N - posterior.observed.value_N.mean()
    mean = posterior.observed.value_N.mean() + gain @ centred
    assert member.mean_C == pytest.approx(mean, abs=1e-6)
    covariance = kernel - gain @ weights @ kernel
    assert member.covariance_CC == pytest.approx(covariance, abs=1e-5)


def one_member() -> tuple[Posterior, list[tuple[int, int]]]:
    """A posterior at the likeliest scales alone."""
    generator = np.random.default_rng(3)
    world = World(QUESTION, surface("saturating", generator), generator)
    world.run(first_block(QUESTION, []).cells)
    cells = list(world.scores)
    found = fit(
        space_of(QUESTION), Observed.of(cells, list(world.scores.values())), least_spread=1.0
    )
    best = max(found.members, key=lambda one: one.weight)
    return replace(found, members=(replace(best, weight=1.0),)), cells


def test_the_gain_of_a_block_is_what_its_scores_raise_the_best_mean_by() -> None:
    """Against scores drawn one by one from the posterior, each followed by a new posterior."""
    posterior, cells = one_member()
    member, space = posterior.members[0], posterior.space
    scales, observed = member.scales, posterior.observed
    new = ((10, 1), (11, 1))
    (rated,) = rate(posterior, [CellBlock(name="b", cells=new, price=1.0)])
    kernel = scales.signal_kernel(space) + (10.0 * observed.value_N.std()) ** 2
    both = Observed.of([*cells, *new], [*observed.value_N, 0.0, 0.0])
    joint = kernel[np.ix_(both.candidate_N, both.candidate_N)] + scales.effects(
        space, first=both, second=both
    )
    joint += 1e-9 * np.eye(len(joint))
    count = len(cells)
    inverse = np.linalg.inv(joint[:count, :count])
    centre = observed.value_N.mean()
    mean = centre + joint[count:, :count] @ inverse @ (observed.value_N - centre)
    spread = joint[count:, count:] - joint[count:, :count] @ inverse @ joint[:count, count:]
    drawn = np.random.default_rng(0).multivariate_normal(mean, spread, size=4000)
    gain = kernel[:, both.candidate_N] @ np.linalg.inv(joint)
    values = np.concatenate([np.tile(observed.value_N, (4000, 1)), drawn], axis=1) - centre
    highest = (centre + values @ gain.T).max(1)
    assert rated.gain == pytest.approx(highest.mean() - member.mean_C.max(), abs=0.06)
    assert rated.gain > 0.1


def test_seeds_that_all_cells_share_do_not_move_what_is_best() -> None:
    """The same cells, with ten points more at one seed."""
    generator = np.random.default_rng(3)
    world = World(QUESTION, surface("saturating", generator), generator)
    world.run(first_block(QUESTION, []).cells)
    cells = list(world.scores)
    plain = [world.scores[cell] for cell in cells]
    moved = [value + 10 * (seed == 2) for value, (_, seed) in zip(plain, cells, strict=True)]
    best = []
    for values in (plain, moved):
        mean_C = fit(space_of(QUESTION), Observed.of(cells, values), least_spread=1.0).mean_C
        best.append(int(np.argmax(mean_C)))
    assert best[0] == best[1]


def test_the_same_scores_give_the_same_decision() -> None:
    generator = np.random.default_rng(6)
    world = World(QUESTION, surface("jump", generator), generator)
    world.run(first_block(QUESTION, []).cells)
    first, second = (decide_next(QUESTION, world.scores) for _ in range(2))
    assert first.block == second.block
    assert first.chance == second.chance
    assert [one.gain for one in first.rated] == [one.gain for one in second.rated]


def test_scores_that_are_all_one_number_are_a_posterior_too() -> None:
    cells = list(first_block(QUESTION, []).cells)
    posterior = fit(space_of(QUESTION), Observed.of(cells, [40.0] * len(cells)), least_spread=1.0)
    assert posterior.mean_C == pytest.approx(40.0, abs=0.1)
    assert posterior.error_C.min() > 0.05, "what has not been seen to differ may still differ"


# ---------------------------------------------------------------- blocks and prices


def test_the_first_block_has_the_edges_and_the_middle_at_every_first_seed() -> None:
    block = first_block(QUESTION, [])
    arms = {QUESTION.candidates[place].arm for place, _ in block.cells}
    assert arms == {"0%", "50%", "100%"}
    assert len(block.cells) == 3 * 2 * 2
    tuning = 2 * (TUNING * (1 + 0.5) + 3 * EVALUATION)
    assert block.price == pytest.approx(2 * (TRUNK + 3 * BRANCH + tuning))


def test_what_candidates_share_is_paid_once_and_what_was_made_is_free() -> None:
    prices = Prices(QUESTION, [(0, 1)])
    assert prices.of([(0, 1)]) == 0
    assert prices.of([(1, 1)]) == pytest.approx(TUNING + EVALUATION)
    assert prices.of([(2, 1)]) == pytest.approx(BRANCH + 0.95 * TUNING + EVALUATION)
    assert prices.of([(2, 2), (3, 2)]) == pytest.approx(
        TRUNK + BRANCH + 2 * (0.95 * TUNING + EVALUATION)
    )
    made = replace(QUESTION, made={"2": ("trunk",)})
    assert Prices(made, []).of([(1, 2)]) == pytest.approx(BRANCH + TUNING + EVALUATION)


def test_a_block_at_a_new_seed_has_two_arms_or_more() -> None:
    cells = list(first_block(QUESTION, []).cells)
    arms = arms_of(QUESTION)
    blocks = next_blocks(QUESTION, cells, mean_C=np.arange(42.0))
    for block in blocks:
        mine = {QUESTION.candidates[place].arm for place, _ in block.cells}
        (seed,) = {seed for _, seed in block.cells}
        assert len(mine) >= 2 if seed == 3 else len(mine) == 1
        assert {place for place, _ in block.cells} == {p for arm in mine for p in arms[arm]}
    assert sum(block.cells[0][1] == 3 for block in blocks) == 20 + 1
    assert sum(block.cells[0][1] < 3 for block in blocks) == 2 * 18


def test_an_unpaired_design_is_refused() -> None:
    cells = {(0, 1): 30.0, (20, 1): 40.0, (0, 2): 35.0, (1, 2): 36.0}
    with pytest.raises(RecipeError) as caught:
        decide_next(replace(QUESTION, first_arms=2), cells)
    assert caught.value.asked == "cells of seed 2"


def test_money_that_pays_no_block_ends_exploring() -> None:
    decision = decide_next(make_question(epsilon=2.0, money=5.0), {})
    assert (decision.block, decision.stop) == (None, NO_MONEY)


def test_one_seed_is_never_enough_to_stop() -> None:
    """Scores that leave no doubt at all, at one seed."""
    question = replace(QUESTION, first_seeds=1, explore_price=1000.0)
    cells = {(place, 1): 50.0 * (place in (20, 21)) for place in (0, 1, 20, 21, 40, 41)}
    one = decide_next(question, cells)
    two = {(place, seed): value for (place, _), value in cells.items() for seed in (1, 2, 3)}
    assert one.stop != WITHIN
    assert decide_next(question, two).chance >= one.chance


# ---------------------------------------------------------------- fresh seeds


def registered(**changes: object) -> Registration:
    stated: dict[str, object] = {
        "recommendation": 20,
        "comparisons": (
            Predicted(name="a", candidate=0, mean=2.0, error=1.0),
            Predicted(name="b", candidate=40, mean=1.0, error=1.0),
        ),
        "seeds": (4, 5, 6, 7),
        "spread": 3.0,
        "seeds_wanted": 4,
        "seed_price": 5.0,
    }
    return Registration(**(stated | changes))  # type: ignore[arg-type]


def test_fresh_seeds_are_none_that_a_score_was_seen_of_and_as_many_as_are_wanted_or_paid() -> None:
    posterior, _ = one_member()
    rich = replace(QUESTION, validate_price=1e6)
    wanted = plan_validation(rich, posterior, used=[1, 2, 9])
    assert wanted.seeds[0] == 10
    assert len(wanted.seeds) == wanted.seeds_wanted
    assert wanted.half_width <= rich.half_width < half_width(wanted.spread, len(wanted.seeds) - 1)
    price = wanted.seed_price
    short = plan_validation(replace(rich, validate_price=3.5 * price), posterior, used=[2])
    assert short.seeds == (3, 4, 5)
    assert short.seeds_wanted == wanted.seeds_wanted


def test_the_half_width_is_students_and_falls_with_the_seeds() -> None:
    assert half_width(4.5, 20) == pytest.approx(2.069 * 4.5 / 20**0.5, rel=0.01)
    assert seeds_for(2.0, spread=4.5, least=3) == 22
    assert seeds_for(2.0, spread=0.1, least=3) == 3


def test_a_comparison_pairs_by_seed_and_its_verdict_counts_all_comparisons() -> None:
    """Seeds differ by 50 points, and the difference within each is 3 to 5."""
    rows = {4: 10.0, 5: 60.0, 6: 35.0, 7: 20.0}
    difference = {4: 3.0, 5: 4.0, 6: 5.0, 7: 4.0}
    draws = {}
    for seed, level in rows.items():
        draws[20, seed] = np.array([level + difference[seed]])
        draws[0, seed] = np.array([level])
        draws[40, seed] = np.array([level + difference[seed] + (seed - 5.5)])
    clear, level = compare_fresh(registered(), draws, epsilon=1.0, num_items=1)
    assert clear.by_seed == (3.0, 4.0, 5.0, 4.0)
    assert clear.value == pytest.approx(4.0)
    assert clear.verdict == BETTER
    assert level.verdict == OPEN
    assert level.low < -1 < 1 < level.high
    reverse = registered(
        recommendation=0, comparisons=(Predicted(name="c", candidate=20, mean=0, error=1),)
    )
    (worse,) = compare_fresh(reverse, draws, epsilon=1.0, num_items=1)
    assert worse.verdict == WORSE
    (equal,) = compare_fresh(reverse, draws, epsilon=9.0, num_items=1)
    assert equal.verdict == WORSE, "a difference that is sure is no equality"


def test_the_pooled_difference_is_twice_the_variance_of_one_cell() -> None:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(300):
        values = generator.normal(0, 2.0, (5, 4)) + 9 * generator.normal(size=4)
        spread = pooled_difference(values + 5 * np.arange(5)[:, None])
        assert spread is not None
        found.append(spread.variance)
    assert np.mean(found) == pytest.approx(2 * 4.0, rel=0.06)
    assert pooled_difference(np.zeros((2, 9))) is None
    assert pooled_difference(np.zeros((9, 1))) is None


def judged(*parts: tuple[str, float, float]) -> tuple[str, int]:
    compared = [
        Compared(
            name=verdict,
            candidate=place,
            value=(low + high) / 2,
            error=1.0,
            low=low,
            high=high,
            verdict=verdict,
            seeds=(4, 5),
            by_seed=(0.0, 0.0),
            predicted=0.0,
            predicted_error=1.0,
        )
        for place, (verdict, low, high) in enumerate(parts)
    ]
    return judge_outcome(registered(), compared, epsilon=1.0)


@pytest.mark.parametrize(
    ("parts", "outcome"),
    [
        ([(BETTER, 0.5, 4.0), (OPEN, -0.9, 3.0)], (RECOMMENDED, 20)),
        ([(BETTER, 0.5, 4.0), (OPEN, -1.1, 3.0)], (UNDECIDED, 20)),
        ([(EQUAL, -0.9, 0.9), (EQUAL, -0.5, 0.9)], (FLAT, 20)),
        ([(EQUAL, -0.9, 0.9), (OPEN, -0.5, 1.9)], (UNDECIDED, 20)),
        ([(BETTER, 0.5, 4.0), (WORSE, -4.0, -1.0), (WORSE, -9.0, -5.0)], (OVERTURNED, 2)),
        ([], (UNDECIDED, 20)),
    ],
)
def test_the_outcome_follows_from_all_comparisons(
    parts: list[tuple[str, float, float]], outcome: tuple[str, int]
) -> None:
    assert judged(*parts) == outcome


def test_an_objective_is_said_with_its_weights() -> None:
    """A loss is made small by a weight below 0, so "the higher the better" needs the weight."""
    text = objective_text({"name": "loss", "weights": {"heldout.loss": -1.0, "sft.avg": 0.5}})
    assert text == "loss = -1 x heldout.loss + 0.5 x sft.avg, the higher the better"


def test_a_cap_on_passes_names_the_best_that_it_leaves() -> None:
    """Candidate c is read c / 10 times, so a cap of 2 leaves the first 21 of 42."""
    posterior, _ = one_member()
    counted = replace(
        QUESTION,
        candidates=tuple(
            replace(one, epochs={"shq": place / 10, "ldq": 0.1})
            for place, one in enumerate(QUESTION.candidates)
        ),
    )
    found = under_caps(counted, posterior)
    assert [one.cap for one in found] == [1.0, 2.0, 4.0]
    assert [one.num_left for one in found] == [11, 21, 41]
    for one in found:
        assert one.best == int(np.argmax(posterior.mean_C[: one.num_left]))
        assert one.loss == pytest.approx(posterior.mean_C.max() - posterior.mean_C[one.best])
    assert under_caps(QUESTION, posterior) == (), "no size is known"


def test_a_factor_with_one_level_has_no_edge() -> None:
    levels = [replace(one, levels=(one.levels[0], 0.5)) for one in QUESTION.candidates]
    question: AllocationQuestion = replace(
        QUESTION, factors=("share", "onset"), candidates=tuple(levels)
    )
    assert edges_of(question, 0) == ("share",)
    assert edges_of(question, 20) == ()
