"""Errors over questions, samples and seeds."""

import math

import numpy as np
import pytest

from frontload.eval.stats import clustered_mean, combine, critical_value, mean_of_means, ratio


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


def test_loss_per_token_weighs_tokens_and_its_error_counts_documents() -> None:
    found = ratio([10.0, 30.0], [10, 10])
    assert found.value == pytest.approx(2.0)
    assert found.se == pytest.approx(math.sqrt(2 * (100 + 100)) / 20)
    assert ratio([3.0, 1.0], [30, 10]).se == pytest.approx(0.0)
    assert ratio([3.0], [30]).se is None


def test_one_seed_has_the_error_of_its_questions() -> None:
    found = combine([3.0], 1.5, num_items=200)
    assert (found.value, found.se, found.se_seeds) == (3.0, 1.5, None)
    assert found.critical == pytest.approx(critical_value(199))


def test_three_seeds_that_disagree_are_judged_with_two_degrees_of_freedom() -> None:
    found = combine([1.0, 2.0, 3.0], 1e-6, num_items=200)
    assert found.se == pytest.approx(1 / math.sqrt(3))
    assert found.degrees == pytest.approx(2.0, abs=1e-3)
    assert found.critical == pytest.approx(4.303, abs=1e-3)
    assert found.t > 1.96
    assert found.t < found.critical


def test_the_combined_error_covers_the_truth_about_as_often_as_it_says() -> None:
    """300 simulated studies of 3 seeds and 100 questions; true effect 0, 5% may exclude it."""
    rng = np.random.default_rng(1)
    excluded = 0
    for _ in range(300):
        questions = rng.normal(0, 1.0, 100)
        seeds = [rng.normal(0, 0.1) + (questions + rng.normal(0, 0.3, 100)) for _ in range(3)]
        se_items = np.mean(seeds, axis=0).std(ddof=1) / 10
        found = combine([float(seed.mean()) for seed in seeds], float(se_items), num_items=100)
        excluded += abs(found.t) > found.critical
    assert excluded / 300 < 0.08
