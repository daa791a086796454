"""The order of random draws, which every shuffle of the project is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontload.data_tools.disk import seeds

ALIKE = st.sampled_from([0, 1, 7, 1 << 20, 1 << 63, (1 << 64) - 1])  # in all bits, the high or low
DRAWS = st.lists(st.one_of(ALIKE, st.integers(0, (1 << 64) - 1)), max_size=80)


@given(draws=DRAWS, at_once=st.sampled_from([1, 2, 7, 1 << 18]))
def test_draws_are_ordered_as_a_stable_sort_does(draws: list[int], at_once: int) -> None:
    array = np.array(draws, dtype=np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeds, "AT_ONCE", at_once)
        order = seeds.order_of(array)
    assert np.array_equal(order, np.argsort(array, kind="stable"))
    assert order.dtype == np.int64
    assert array.tolist() == draws


def test_a_permutation_is_the_order_of_its_raw_draws() -> None:
    draws = seeds.stream_bits(3, "name", 1).random_raw(300_000)  # more than is sorted out at once
    assert np.array_equal(seeds.permutation(300_000, 3, "name", 1), np.argsort(draws))
