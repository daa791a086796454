"""Several samples of a question, against every choice of k of them and simulated studies."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.eval.results import GeneratedResult, Generation
from frontload.eval.statistics.repeated import (
    ANY_FAILURE,
    average_at_k,
    failure_rates,
    majority_at_k,
    pass_at_k,
    run_spread,
    vote,
)
from frontload.eval.statistics.stats import clustered_mean, share_interval
from frontload.recipes.errors import RecipeError
from tests.unit.eval.sampled import flags, generated, sample

ANSWERS = st.sampled_from(["gold", "gold", "a", "a", "b", "c", ""])


def drawn(answers: list[str]) -> list[Generation]:
    return [sample(correct=one == "gold", answer=one) for one in answers]


def counted_vote(samples: list[Generation], k: int) -> tuple[float, float]:
    """Every choice of k samples, one after the other."""
    won = tied = number = 0.0
    for chosen in combinations(samples, k):
        number += 1
        votes = Counter(one.answer for one in chosen if one.answer)
        leaders = [name for name, count in votes.items() if count == max(votes.values())]
        won += (1 / len(leaders)) if "gold" in leaders else 0.0
        tied += len(leaders) > 1
    return won / number, tied / number


@settings(max_examples=150)
@given(answers=st.lists(ANSWERS, min_size=1, max_size=8), data=st.data())
def test_pass_and_majority_are_the_means_over_every_choice(
    answers: list[str], data: st.DataObject
) -> None:
    samples, k = drawn(answers), data.draw(st.integers(1, len(answers)))
    assert vote(samples, k) == pytest.approx(counted_vote(samples, k))
    every = [any(one.correct for one in chosen) for chosen in combinations(samples, k)]
    found = pass_at_k([generated("q", samples)], k)
    assert found.value == pytest.approx(sum(every) / len(every))


def test_right_answers_in_other_words_vote_together() -> None:
    """`1/2` and `0.5` are both right; apart they would lose to the two that agree on 3."""
    half = [Generation(text=t, answer=t, correct=True, format_failure="", tokens=1) for t in "ab"]
    wrong = [sample(answer="3"), sample(answer="4")]
    assert vote([*half, *wrong], 4) == (1.0, 0.0)


def test_ties_are_shared_and_counted() -> None:
    results = [flags("tie", "01"), flags("sure", "11"), generated("silent", [sample(), sample()])]
    found = majority_at_k(results, 2)
    assert found.accuracy.value == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert found.tie_share == pytest.approx(1 / 3)
    assert found.accuracy.num_units == 3


def test_a_question_weighs_alike_with_few_and_many_samples() -> None:
    results = [flags("few", "10"), flags("many", "0" * 30), flags("one", "1")]
    found = average_at_k(results)
    assert found.value == pytest.approx((0.5 + 0 + 1) / 3)
    assert found.num_units == 3
    assert found.se == pytest.approx(np.std([0.5, 0, 1], ddof=1) / np.sqrt(3))
    assert pass_at_k(results, 1).value == pytest.approx(found.value)


@pytest.mark.parametrize("measure", [pass_at_k, majority_at_k])
@pytest.mark.parametrize(("k", "found"), [(3, "few has 2 samples"), (0, "k is 0")])
def test_more_samples_than_there_are_is_refused(measure: object, k: int, found: str) -> None:
    with pytest.raises(RecipeError, match=found):
        measure([flags("many", "0110"), flags("few", "01")], k)  # pyright: ignore[reportCallIssue]


def test_runs_are_the_nth_samples_of_all_questions() -> None:
    found = run_spread([flags("a", "110"), flags("b", "10")])
    assert found is not None
    assert (found.num_runs, found.lowest, found.highest) == (2, 0.5, 1.0)
    assert found.deviation == pytest.approx(np.std([1.0, 0.5], ddof=1))
    assert run_spread([flags("a", "110"), flags("b", "1")]) is None
    assert run_spread([]) is None


def test_failures_are_counted_by_reason_and_by_question() -> None:
    cut, late = sample(failure="truncated"), sample(failure="timeout")
    results = [
        generated("a", [cut, cut, late, sample(correct=True)]),
        generated("b", [sample(correct=True)]),
    ]
    rates = failure_rates(results)
    assert {name: one.value for name, one in rates.items()} == {
        ANY_FAILURE: pytest.approx(3 / 8),
        "truncated": pytest.approx(2 / 8),
        "timeout": pytest.approx(1 / 8),
    }
    assert rates[ANY_FAILURE].num_units == 2
    assert set(failure_rates([flags("a", "1")])) == {ANY_FAILURE}


def simulated(rng: np.random.Generator, shares: np.ndarray, k: int) -> list[GeneratedResult]:
    right_QK = rng.random((len(shares), k)) < shares[:, None]
    return [
        flags(str(number), "".join("1" if one else "0" for one in row))
        for number, row in enumerate(right_QK)
    ]


@pytest.mark.parametrize(
    ("alpha", "beta", "k"),
    [(1.0, 1.0, 16), (0.3, 0.3, 4), (8.0, 1.0, 16), (30.0, 1.0, 1), (0.5, 6.0, 4)],
    ids=["even", "all or nothing", "easy", "nearly all", "hard"],
)
def test_the_interval_of_thirty_questions_holds_the_truth(
    alpha: float, beta: float, k: int
) -> None:
    """AIME has 30 questions. Drawn again and again from one pool, 95% of the intervals hold."""
    rng = np.random.default_rng(7)
    truth, held, naive = alpha / (alpha + beta), 0, 0
    for _ in range(600):
        shares = rng.beta(alpha, beta, 30)
        found = clustered_mean(list(rng.binomial(k, shares) / k))
        low, high = share_interval(found)
        held += low <= truth <= high
        naive += abs(found.value - truth) <= 1.96 * np.sqrt(
            found.value * (1 - found.value) / 30 / k
        )
    assert 0.925 <= held / 600 <= 0.995
    if k == 16 and beta == 1.0 and alpha == 1.0:
        assert naive / 600 < 0.75  # samples taken for questions


def test_the_spread_of_the_runs_is_far_below_the_error() -> None:
    """The case of NeMo-Skills' `+-`: 30 questions, 16 samples."""
    rng = np.random.default_rng(3)
    results = simulated(rng, rng.beta(0.5, 0.5, 30), 16)
    spread, found = run_spread(results), average_at_k(results)
    assert spread is not None
    assert found.se is not None
    assert spread.deviation / np.sqrt(spread.num_runs) < 0.5 * found.se


@pytest.mark.parametrize(("right", "low", "high"), [(30, 0.86, 1.0), (0, 0.0, 0.14)])
def test_questions_that_all_agree_are_not_certain(right: int, low: float, high: float) -> None:
    found = share_interval(clustered_mean([1.0] * right + [0.0] * (30 - right)))
    assert found == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_one_question_says_nothing() -> None:
    assert share_interval(clustered_mean([1.0])) == (0.0, 1.0)
