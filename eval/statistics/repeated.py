"""Repeated samples of questions: avg@k, pass@k, majority@k, failures, and the spread of the runs.

The questions are the independent units of every error: more samples make each question's share
sharper, never their number larger. Questions may have different numbers of samples.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb

from frontload.eval.results import GeneratedResult, Generation
from frontload.eval.statistics.stats import Estimate, clustered_mean
from frontload.recipes.errors import RecipeError

ANY_FAILURE = "any"


@dataclass(frozen=True, kw_only=True)
class MajorityVote:
    """What the most frequent answer of k samples scores."""

    accuracy: Estimate
    tie_share: float  # of the draws of k samples: two answers or more were the most frequent


@dataclass(frozen=True, kw_only=True)
class RunSpread:
    """The accuracy of each run, the n-th samples of all questions. No error of the accuracy.

    It leaves out which questions were asked: of 30 questions at 16 samples the error by question is
    three times the error that the runs show.
    """

    deviation: float  # of one run
    num_runs: int  # as many as every question has samples
    lowest: float
    highest: float


def average_at_k(results: Sequence[GeneratedResult]) -> Estimate:
    """avg@k: the mean over questions of each one's share of right samples."""
    return clustered_mean([result.accuracy for result in results])


def pass_at_k(results: Sequence[GeneratedResult], k: int) -> Estimate:
    """pass@k: how often at least one of k samples is right, without bias from n > k samples.

    Raises: RecipeError when a question has fewer than k samples.
    Source: Chen et al. 2021, equation 1, with exact binomials.
    """
    _check_samples(results, k, name=f"pass@{k}")
    return clustered_mean([share_with_a_right_one(result.samples, k) for result in results])


def share_with_a_right_one(samples: Sequence[Generation], k: int) -> float:
    """The share of the choices of k of these samples that hold a right one."""
    wrong = sum(not sample.correct for sample in samples)
    return 1 - comb(wrong, k) / comb(len(samples), k)


def majority_at_k(results: Sequence[GeneratedResult], k: int) -> MajorityVote:
    """majority@k: the mean over all choices of k of a question's samples, each choice alike.

    A sample without an answer has no vote. Right samples vote together, however they are written:
    each equals the gold answer. Where t answers are the most frequent, each wins in 1 of t.

    Raises: RecipeError when a question has fewer than k samples.
    """
    _check_samples(results, k, name=f"majority@{k}")
    votes = [vote(result.samples, k) for result in results]
    return MajorityVote(
        accuracy=clustered_mean([won for won, _ in votes]),
        tie_share=sum(tied for _, tied in votes) / len(votes) if votes else 0.0,
    )


def vote(samples: Sequence[Generation], k: int) -> tuple[float, float]:
    """(share of wins of the right answer, share of ties) over all choices of k of the samples."""
    right = sum(sample.correct for sample in samples)
    silent = sum(not sample.correct and not sample.answer for sample in samples)
    wrong = Counter(sample.answer for sample in samples if sample.answer and not sample.correct)
    won, tied = 0.0, 0
    for most in range(1, min(k, max([right, *wrong.values()], default=0)) + 1):
        for (chosen, leaders), ways in _ways(list(wrong.values()), most=most, k=k).items():
            for own in range(min(right, most, k - chosen) + 1):
                num_leaders = leaders + (own == most)
                whole = ways * comb(right, own) * comb(silent, k - chosen - own)
                won += whole / num_leaders if own == most else 0.0
                tied += whole if num_leaders > 1 else 0
    total = comb(len(samples), k)
    return won / total, tied / total


def _ways(sizes: Sequence[int], *, most: int, k: int) -> Counter[tuple[int, int]]:
    """(samples chosen, groups with `most` of them) -> ways to choose, none above `most`."""
    ways: Counter[tuple[int, int]] = Counter({(0, 0): 1})
    for size in sizes:
        wider: Counter[tuple[int, int]] = Counter()
        for (chosen, leaders), count in ways.items():
            for own in range(min(size, most, k - chosen) + 1):
                wider[chosen + own, leaders + (own == most)] += count * comb(size, own)
        ways = wider
    return ways


def run_spread(results: Sequence[GeneratedResult]) -> RunSpread | None:
    """The spread over runs; None with fewer than two samples of some question."""
    num_runs = min((len(result.samples) for result in results), default=0)
    if num_runs < 2:
        return None
    runs = [
        sum(result.samples[number].correct for result in results) / len(results)
        for number in range(num_runs)
    ]
    return RunSpread(
        deviation=statistics.stdev(runs), num_runs=num_runs, lowest=min(runs), highest=max(runs)
    )


def failure_rates(results: Sequence[GeneratedResult]) -> dict[str, Estimate]:
    """Why samples have no answer (no mark, cut off, out of time; ANY_FAILURE) -> their share.

    A reason that no sample has is not listed.
    """
    reasons = {sample.format_failure for result in results for sample in result.samples} - {""}
    return {
        name: clustered_mean([_share_failed(result.samples, name) for result in results])
        for name in (ANY_FAILURE, *sorted(reasons))
    }


def _share_failed(samples: Sequence[Generation], reason: str) -> float:
    failed: Iterator[bool] = (
        sample.format_failure == reason or (reason == ANY_FAILURE and bool(sample.format_failure))
        for sample in samples
    )
    return sum(failed) / len(samples)


def _check_samples(results: Sequence[GeneratedResult], k: int, *, name: str) -> None:
    short = [result for result in results if len(result.samples) < k]
    if k < 1 or short:
        raise RecipeError(
            name,
            found=f"{short[0].id} has {len(short[0].samples)} samples, and so {len(short)} of "
            f"{len(results)} questions fewer than {k}"
            if short
            else f"k is {k}",
            rule="k samples of a question are chosen among those it has, at least one",
            do="take a smaller k, or draw more samples" if short else "write 1 or more",
        )
