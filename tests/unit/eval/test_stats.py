"""Errors over questions, samples and seeds."""

import math
import warnings

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import nct
from scipy.stats import t as student

from frontload.eval.statistics.stats import (
    MOST_SEEDS,
    Spread,
    clustered_mean,
    combine,
    critical_value,
    mean_of_means,
    ratio,
    seeds_needed,
    shrunk,
)


def test_more_samples_of_the_same_questions_do_not_count_as_more_questions() -> None:
    few = clustered_mean([1.0, 0.0, 0.5, 0.5])
    assert few.num_units == 4
    assert few.se == pytest.approx(np.std([1, 0, 0.5, 0.5], ddof=1) / 2)
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(0, 1, 40)
    sharp = clustered_mean(list((rng.random((40, 400)) < difficulty[:, None]).mean(1)))
    assert sharp.se is not None
    naive = math.sqrt(0.25 / (40 * 400))
    assert sharp.se > 5 * naive


def test_a_mean_of_benchmarks_weighs_them_alike() -> None:
    parts = [clustered_mean([1.0, 0.0]), clustered_mean([0.5] * 10)]
    found = mean_of_means(parts)
    assert found.value == pytest.approx(0.5)
    assert found.se == pytest.approx(parts[0].se / 2)


def test_one_question_has_no_error_and_none_has_no_number() -> None:
    alone = clustered_mean([0.5])
    assert (alone.value, alone.se, alone.num_units) == (0.5, None, 1)
    nothing = clustered_mean([])
    assert math.isnan(nothing.value)
    assert (nothing.se, nothing.num_units) == (None, 0)


def test_loss_per_token_weighs_tokens_and_its_error_counts_documents() -> None:
    found = ratio([10.0, 30.0], [10, 10])
    assert found.value == pytest.approx(2.0)
    assert found.se == pytest.approx(math.sqrt(2 * (100 + 100)) / 20)
    assert ratio([3.0, 1.0], [30, 10]).se == pytest.approx(0.0)
    three = ratio([1.0, 2.0, 6.0], [1, 1, 1])
    assert three.se == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3)), "that of a mean"
    assert ratio([3.0], [30]).se is None
    assert ratio([3.0], [1]).value == 3.0
    assert math.isnan(ratio([0.0, 0.0], [0, 0]).value), "no token, no loss"


def draws(values: list[float], *, se_items: float = 0.0, own: float = 0.0) -> np.ndarray:
    """Seeds with a common error over questions and one of their own, exact to a percent."""
    rng = np.random.default_rng(0)
    noise_B = rng.normal(0, 1, 20_000)
    noise_AB = rng.normal(0, 1, (len(values), 20_000))
    resampled = np.array(values)[:, None] + se_items * noise_B + own * noise_AB
    return np.concatenate([np.array(values)[:, None], resampled], axis=1)


def joined(values: list[float], *, pooled: Spread | None = None, num_items: int = 200, **noise):
    return combine(draws(values, **noise), num_items=num_items, pooled=pooled)


def test_one_seed_has_the_error_of_its_questions() -> None:
    found = joined([3.0], se_items=1.5, pooled=Spread(variance=9.0, degrees=30))
    assert (found.value, found.se_seeds, found.seeds) == (3.0, None, (3.0,))
    assert found.se == found.se_items == pytest.approx(1.5, rel=0.02)
    assert found.critical == pytest.approx(critical_value(199))
    assert found.t == pytest.approx(2.0, rel=0.02)


def test_without_an_error_a_number_is_nothing_or_certain() -> None:
    assert joined([0.0]).t == 0.0
    assert joined([2.0]).t == math.inf
    assert joined([-2.0]).t == -math.inf
    assert joined([2.0]).p_value == 0.0


def test_two_seeds_have_a_spread() -> None:
    found = joined([1.0, 3.0])
    assert found.value == 2.0
    assert found.se == found.se_seeds == pytest.approx(1.0)
    assert found.degrees == pytest.approx(1.0)
    assert found.critical == pytest.approx(12.706, abs=1e-3)
    assert found.p_value == pytest.approx(2 * 0.147584, abs=1e-4)


def test_three_seeds_that_disagree_are_judged_with_two_degrees_of_freedom() -> None:
    found = joined([1.0, 2.0, 3.0], se_items=1e-6)
    assert found.se == pytest.approx(1 / math.sqrt(3))
    assert found.degrees == pytest.approx(2.0, abs=1e-3)
    assert found.critical == pytest.approx(4.303, abs=1e-3)
    assert found.t > 1.96
    assert found.t < found.critical


def test_seeds_and_questions_add_up_and_their_degrees_are_between() -> None:
    found = joined([1.0, 2.0, 3.0], se_items=0.5)
    seeds, items = 1 / 3, 0.25
    assert found.se == pytest.approx(math.sqrt(seeds + items), rel=0.02)
    expected = (seeds + items) ** 2 / (seeds**2 / 2 + items**2 / 199)
    assert found.degrees == pytest.approx(expected, rel=0.05)


def test_the_error_is_that_of_the_draws_and_not_of_the_measured_number() -> None:
    found = combine(np.array([[9.0, 1.0, 2.0, 3.0]]), num_items=40, pooled=None)
    assert (found.value, found.se_items, found.se) == (9.0, 1.0, 1.0)
    alone = combine(np.array([[9.0, 1.0, 2.0, 3.0]]), num_items=1, pooled=None)
    assert alone.critical == pytest.approx(12.706, abs=1e-3), "never less than one degree"


@pytest.mark.parametrize("num_draws", [0, 1])
def test_without_two_draws_the_questions_have_no_error(num_draws: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = combine(np.ones((1, 1 + num_draws)), num_items=5, pooled=None)
        two = combine(np.array([[1.0] * (1 + num_draws), [3.0] * (1 + num_draws)]),
                      num_items=5, pooled=None)  # fmt: skip
    assert (one.se, one.se_items) == (0.0, 0.0)
    assert (two.se, two.se_items, two.se_seeds) == (1.0, 0.0, 1.0)


def test_degrees_are_those_of_welch_and_satterthwaite() -> None:
    """Seeds of variance 1 over 3, questions of 2.25, with two degrees each."""
    noise_B = np.array([0.0, -1.5, 0.0, 1.5])
    found = combine(np.array([[1.0], [2.0], [3.0]]) + noise_B, num_items=3, pooled=None)
    seeds, items = 1 / 3, 2.25
    assert found.se == pytest.approx(math.sqrt(seeds + items))
    assert found.degrees == pytest.approx((seeds + items) ** 2 / (seeds**2 / 2 + items**2 / 2))


@pytest.mark.parametrize(
    ("values", "scales", "items", "seeds", "both"),
    [([0, 8], [3, 1], 8, 16, 2), ([0, 3, 9], [3, 1, 2], 8, 7, 2 / 3)],
)
def test_what_two_draws_and_a_few_seeds_share_is_taken_off_exactly(
    values: list, scales: list, items: float, seeds: float, both: float
) -> None:
    """Each seed's draws are +-scale: `both` is the mean square difference of scales, over seeds."""
    draws_AB = np.array(values)[:, None] + np.array(scales)[:, None] * np.array([0.0, 1.0, -1.0])
    found = combine(draws_AB, num_items=100, pooled=None)
    assert found.se_items == pytest.approx(math.sqrt(items))
    assert found.se_seeds == pytest.approx(math.sqrt(seeds))
    assert found.se == pytest.approx(math.sqrt(items + seeds - both))


def test_what_seeds_answer_differently_is_not_counted_twice() -> None:
    """Own errors of three seeds of 1 stand in their spread and in their mean over questions."""
    values = [0.0, 2.0, 4.0]  # a spread of 2
    found = joined(values, se_items=0.0, own=1.0)
    assert found.se_items == pytest.approx(1 / math.sqrt(3), rel=0.02)
    assert found.se == pytest.approx(2 / math.sqrt(3), rel=0.02), "that of the seeds alone"
    alike = joined([2.0, 2.0, 2.0], se_items=0.0, own=1.0)
    assert alike.se == pytest.approx(1 / math.sqrt(3), rel=0.02), "never below the questions' own"


def test_a_pooled_spread_weighs_as_four_degrees_beside_the_seeds_own() -> None:
    own = Spread(variance=3.0, degrees=2)
    found = shrunk(own, Spread(variance=4.0, degrees=30))
    assert found == Spread(variance=(4 * 4 + 2 * 3) / 6, degrees=6)
    for degrees in (5, 3):
        some = shrunk(own, Spread(variance=4.0, degrees=degrees))
        beyond = degrees - 2  # two of them are its own
        assert some == Spread(variance=(beyond * 4 + 2 * 3) / degrees, degrees=degrees)
    assert shrunk(own, Spread(variance=4.0, degrees=2)) == own, "two cells pool nothing"
    assert shrunk(own, Spread(variance=4.0, degrees=1)) == own, "nor do fewer degrees than its own"
    assert shrunk(own, None) == own
    estimate = joined([1.0, 2.0, 3.0], pooled=Spread(variance=4.0, degrees=30))
    assert estimate.se == pytest.approx(math.sqrt(3 / 3))
    assert estimate.degrees == pytest.approx(6)
    assert estimate.critical == pytest.approx(2.447, abs=1e-3)


def test_the_seeds_that_an_effect_needs_are_those_that_find_it() -> None:
    """Simulated: with the number named 8 of 10 studies find it, with one fewer they do not."""
    needed = seeds_needed(8.0, variance=36.0, se_items=1.0)
    assert needed is not None
    rng = np.random.default_rng(3)

    def power(num_seeds: int) -> float:
        own = rng.normal(8, 6, (4000, num_seeds)).mean(1) + rng.normal(0, 1, 4000)
        degrees = 4 + num_seeds - 1
        spread = 36 * rng.chisquare(degrees, 4000) / degrees / num_seeds
        t = own / np.sqrt(spread + 1)
        return float((t > critical_value(degrees * (1 + num_seeds / 36) ** 2)).mean())

    assert power(needed) > 0.78
    assert power(needed - 1) < 0.80
    assert seeds_needed(-8.0, variance=36.0, se_items=1.0) == needed, "either way"
    assert seeds_needed(8.0, variance=36.0, se_items=0.0) <= needed
    assert seeds_needed(16.0, variance=36.0, se_items=1.0) < needed


@pytest.mark.parametrize("se_items", [0.0, 1.5])
@pytest.mark.parametrize("num_seeds", [2, 3, 5, 9])
def test_power_is_that_of_a_t_test_with_the_degrees_of_both_errors(
    num_seeds: int, se_items: float
) -> None:
    """Around the effect that so many seeds find in just 8 of 10 studies, by scipy's own tables."""
    seeds, items = 9.0 / num_seeds, se_items**2
    degrees = (seeds + items) ** 2 / (seeds**2 / (4 + num_seeds - 1))
    critical = student.ppf(0.975, degrees)

    def lacking(effect: float) -> float:
        return float(nct.sf(critical, degrees, effect / math.sqrt(seeds + items))) - 0.8

    effect = brentq(lacking, 1.0, 60.0)
    assert seeds_needed(1.0001 * effect, variance=9.0, se_items=se_items) == num_seeds
    assert seeds_needed(0.9999 * effect, variance=9.0, se_items=se_items) == num_seeds + 1


def test_no_more_seeds_are_named_than_anybody_trains() -> None:
    """A seed more finds an effect 0.05% smaller: the last one found needs all of them."""
    effects = np.linspace(0.0890, 0.0882, 60)
    found = [seeds_needed(effect, variance=1.0, se_items=0.0) for effect in effects]
    named = [needed for needed in found if needed is not None]
    assert named == sorted(named)
    assert named[-1] == MOST_SEEDS == 1000
    assert found[-1] is None


def test_an_effect_that_the_questions_blur_is_found_by_no_number_of_seeds() -> None:
    assert seeds_needed(1.0, variance=4.0, se_items=2.0) is None
    assert seeds_needed(1.0, variance=0.0, se_items=0.0) == 2
    assert seeds_needed(1.0, variance=0.0, se_items=0.1) == 2


def test_the_combined_error_covers_the_truth_about_as_often_as_it_says() -> None:
    """400 simulated studies of 3 seeds and 100 questions; true effect 0, 5% may exclude it."""
    rng = np.random.default_rng(1)
    excluded = 0
    weights = rng.multinomial(100, np.full(100, 0.01), size=200) / 100
    for _ in range(400):
        questions = rng.normal(0, 1.0, 100)
        scores = questions + rng.normal(0, 0.3, (3, 100)) + rng.normal(0, 0.1, (3, 1))
        values = np.concatenate([scores.mean(1, keepdims=True), scores @ weights.T], axis=1)
        found = combine(values, num_items=100, pooled=None)
        excluded += abs(found.t) > found.critical
    assert 0.02 < excluded / 400 < 0.08
