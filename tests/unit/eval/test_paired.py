"""Two checkpoints on the same questions, against every flip of signs and against scipy's tests."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from frontload.eval.statistics import paired
from frontload.eval.statistics.paired import (
    EXACT,
    NORMAL,
    compare_results,
    compare_shares,
    sign_flip_test,
)
from frontload.recipes.errors import RecipeError
from tests.unit.eval.sampled import choice, flags

FRACTIONS = st.builds(Fraction, st.integers(-4, 4), st.sampled_from([1, 2, 3, 4]))


@settings(max_examples=100)
@given(differences=st.lists(FRACTIONS, max_size=8))
def test_the_p_value_counts_every_flip(differences: list[Fraction]) -> None:
    total = abs(sum(differences))
    sums = [
        abs(sum(sign * one for sign, one in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    expected = sum(one >= total for one in sums) / len(sums)
    assert sign_flip_test(differences) == (pytest.approx(expected), EXACT)


@pytest.mark.parametrize(("better", "worse"), [(9, 2), (5, 5), (12, 0), (1, 0)])
def test_with_one_sample_a_question_it_is_mcnemars(better: int, worse: int) -> None:
    first = {str(n): float(n >= better) for n in range(better + worse)} | {"same": 1.0}
    second = {str(n): float(n < better) for n in range(better + worse)} | {"same": 1.0}
    found = compare_shares(first, second)
    expected = binomtest(better, better + worse).pvalue
    assert (found.p_value, found.test) == (pytest.approx(expected), EXACT)
    assert (found.num_better, found.num_worse, found.num_equal) == (better, worse, 1)
    assert found.difference.value == pytest.approx((better - worse) / (better + worse + 1))


def test_pairing_takes_out_how_hard_a_question_is() -> None:
    """Two models that differ by 5 points on questions that differ by far more."""
    rng = np.random.default_rng(1)
    shares = rng.beta(0.4, 0.4, 400)
    first = {str(n): float(np.round(16 * share) / 16) for n, share in enumerate(0.95 * shares)}
    second = {str(n): float(np.round(16 * s) / 16) for n, s in enumerate(0.95 * shares + 0.05)}
    found = compare_shares(first, second)
    assert found.difference.value == pytest.approx(0.05, abs=0.01)
    assert found.difference.se is not None
    unpaired = np.sqrt((np.var(list(first.values())) + np.var(list(second.values()))) / 400)
    assert found.difference.se < 0.2 * unpaired
    assert found.p_value < 1e-10


def test_a_difference_that_is_not_there_is_found_in_one_of_twenty_studies() -> None:
    """30 questions, 4 samples each, both models alike: the test keeps its level."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(300):
        shares = rng.beta(1, 1, 30)
        one, other = ({str(n): v for n, v in enumerate(rng.binomial(4, shares) / 4)} for _ in "ab")
        found.append(compare_shares(one, other).p_value <= 0.05)
    assert 0.02 <= np.mean(found) <= 0.08


def test_a_test_that_would_take_too_long_is_the_normal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    differences = [Fraction(int(one), 16) for one in rng.integers(-5, 7, 300)]
    exact, name = sign_flip_test(differences)
    monkeypatch.setattr(paired, "MOST_STEPS", 1000)
    normal, other = sign_flip_test(differences)
    assert (name, other) == (EXACT, NORMAL)
    assert 0.001 < exact < 0.5
    assert normal == pytest.approx(exact, rel=0.1)


def test_only_common_questions_count_and_the_others_are_counted() -> None:
    first = [flags("a", "10"), flags("b", "0"), flags("x", "1")]
    second = [flags("a", "1"), flags("b", "0001"), flags("y", "1"), flags("z", "1")]
    found = compare_results(first, second)
    assert (found.only_first, found.only_second) == (1, 2)
    assert found.difference.num_units == 2
    assert found.difference.value == pytest.approx((0.5 + 0.25) / 2)
    assert (found.num_better, found.num_worse, found.num_equal) == (2, 0, 0)


def test_choices_and_unlike_numbers_of_samples_compare() -> None:
    found = compare_results([choice("a", [0, -1], gold=1)], [choice("a", [0, -1], gold=0)])
    assert found.difference.value == 1
    thirds = compare_shares({"a": 1 / 3, "b": 2 / 3}, {"a": 1 / 7, "b": 6 / 7})
    assert thirds.p_value == 1  # 4/21 up and 4/21 down
    assert thirds.difference.value == pytest.approx(0)


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(RecipeError, match="1 and 2 questions, none in common"):
        compare_shares({"a": 1.0}, {"b": 1.0, "c": 0.0})
