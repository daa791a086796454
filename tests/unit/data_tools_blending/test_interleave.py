"""The order of samples: exact at any size, the same for any block, near the shares everywhere."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.data_tools.blending.interleave import BLOCK_SAMPLES, _keys, interleave
from frontload.data_tools.disk.seeds import permutation
from frontload.recipes.errors import RecipeError

COUNTS = st.lists(st.integers(1, 60), min_size=1, max_size=9)


def whole_order(counts: list[int], *, seed: int, block_samples: int = BLOCK_SAMPLES) -> np.ndarray:
    """Rows of source number and number of the source's sample."""
    blocks = interleave(counts, seed=seed, phase="b", block_samples=block_samples)
    return np.concatenate([np.stack([one.sources, one.numbers], axis=1) for one in blocks])


def sorted_by_floats(counts: list[int], *, seed: int) -> np.ndarray:
    """The order as one sort of all samples by float places: what the laptop study was made with."""
    sources = np.repeat(np.arange(len(counts)), counts)
    places = np.concatenate([(2 * np.arange(n) + 1) / (2 * n) for n in counts])
    rank = np.argsort(permutation(len(counts), seed, "interleave", "b"))
    return sources[np.lexsort((rank[sources], places))]


@settings(max_examples=200)
@given(counts=COUNTS, seed=st.integers(0, 9), block=st.integers(1, 200))
def test_any_block_size_gives_the_order_of_one_sort(
    counts: list[int], seed: int, block: int
) -> None:
    order = whole_order(counts, seed=seed, block_samples=block)
    assert np.array_equal(order[:, 0], sorted_by_floats(counts, seed=seed))
    for source, n in enumerate(counts):
        assert order[order[:, 0] == source, 1].tolist() == list(range(n))


def test_larger_plans_have_the_order_of_one_sort() -> None:
    """Many equal places (common divisors), and counts whose places lie close together."""
    for counts in ([20_000, 5_000], [36_000, 9_000, 27_001, 3], [65_521, 65_519, 60_000]):
        for seed in (1, 2):
            order = whole_order(counts, seed=seed, block_samples=1_000)
            assert np.array_equal(order[:, 0], sorted_by_floats(counts, seed=seed))


def test_places_that_a_float_cannot_tell_apart_are_ordered() -> None:
    """The last samples of n and of n + 1: 1 - 1 / 2n comes first, by 2^-61, at the most samples."""
    n = 2**30 - 1
    places = {n: Fraction(2 * n - 1, 2 * n), n + 1: Fraction(2 * n + 1, 2 * n + 2)}
    assert places[n] < places[n + 1]
    assert float(places[n]) == float(places[n + 1])
    num_blocks = -(-(2 * n + 1) // BLOCK_SAMPLES)
    first, second = (
        _keys(count, range(count - 1, count), block=num_blocks - 1, num_blocks=num_blocks, rank=r)
        for count, r in ((n, 1), (n + 1, 0))
    )
    assert first[0] < second[0], "the rank of the sources decides at equal places only"


@settings(max_examples=100)
@given(counts=COUNTS, seed=st.integers(0, 9))
def test_every_prefix_is_within_the_stated_bound(counts: list[int], seed: int) -> None:
    order = whole_order(counts, seed=seed, block_samples=16)[:, 0]
    m = np.arange(1, len(order) + 1)
    for source, n in enumerate(counts):
        away = np.abs(np.cumsum(order == source) - m * n / len(order))
        assert away.max() <= (len(counts) + 1) / 2
        assert np.count_nonzero(order == source) == n


def test_too_many_samples_or_sources_are_refused() -> None:
    with pytest.raises(RecipeError, match="2147483649 samples; .* cut the phase in two"):
        next(interleave([2**31, 1], seed=1, phase="b"))
    with pytest.raises(RecipeError, match="32767 sources; .* join sources"):
        next(interleave([1] * 32_767, seed=1, phase="b"))


def test_as_many_sources_as_megatron_numbers_have_the_order_of_one_sort() -> None:
    """Their ranks need 15 bits, and 32,766 sources of one sample stand at one place."""
    for counts in ([1] * 32_766, [1 + number % 7 for number in range(5_000)]):
        order = whole_order(counts, seed=1, block_samples=20_000)
        assert np.array_equal(order[:, 0], sorted_by_floats(counts, seed=1))
