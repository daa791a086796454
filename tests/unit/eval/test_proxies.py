"""Proxies of RL: correlations against scipy, intervals against simulations, refusals, regret."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from frontload.eval.statistics.proxies import Proxy, judge_proxy, recommend
from frontload.recipes.errors import RecipeError


def cells(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    return {f"cell{place:02}": float(value) for place, value in enumerate(values)}


def loss(values: Sequence[float], *, sets: Sequence[str]) -> Proxy:
    digests = {f"cell{place:02}": one for place, one in enumerate(sets)}
    return Proxy(name="held-out loss", values=cells(values), is_loss=True, sets=digests)


def test_both_correlations_are_scipys_with_ties() -> None:
    before, after = [0.1, 0.4, 0.4, 0.5, 0.9, 0.2], [3.0, 2.0, 5.0, 5.0, 9.0, 1.0]
    found = judge_proxy(Proxy(name="pass@8", values=cells(before)), cells(after))
    assert found.spearman.value == pytest.approx(spearmanr(before, after)[0])
    assert found.r2.value == pytest.approx(np.corrcoef(before, after)[0, 1] ** 2)
    assert found.num_cells == 6


def test_an_interval_of_r2_that_holds_zero_begins_there() -> None:
    before, after = [0.1, 0.4, 0.4, 0.5, 0.9, 0.2], [3.0, 9.0, 5.0, 2.0, 5.0, 1.0]
    interval = pearsonr(before, after).confidence_interval(0.95)
    assert interval.low < 0 < interval.high
    found = judge_proxy(Proxy(name="pass@8", values=cells(before)), cells(after)).r2
    wanted = max(interval.low**2, interval.high**2)
    assert (found.low, found.high) == pytest.approx((0.0, wanted))


def test_an_interval_of_r2_that_leaves_out_zero_is_that_of_pearsons() -> None:
    before = np.arange(12.0)
    after = before + np.array([1.0, -1.0] * 6)
    interval = pearsonr(before, after).confidence_interval(0.95)
    for sign in (1, -1):
        found = judge_proxy(Proxy(name="pass@1", values=cells(before)), cells(sign * after)).r2
        assert (found.low, found.high) == pytest.approx((interval.low**2, interval.high**2))


def test_a_loss_that_falls_where_rl_gains_is_a_good_proxy() -> None:
    after = [10.0, 12.0, 15.0, 18.0, 30.0]
    found = judge_proxy(loss([2.0, 1.9, 1.5, 1.2, 0.7], sets=["a"] * 5), cells(after)).spearman
    assert found.value == pytest.approx(1.0)
    assert 0 < found.low < 0.6
    assert found.high == pytest.approx(1.0)


@pytest.mark.parametrize("num_cells", [5, 8, 16])
@pytest.mark.parametrize("strength", [0.0, 0.9])
def test_intervals_hold_the_truth_in_simulated_cells(num_cells: int, strength: float) -> None:
    rng = np.random.default_rng(num_cells)
    truth, times = 6 / math.pi * math.asin(strength / 2), 400
    held = np.zeros(2)
    for _ in range(times):
        before = rng.standard_normal(num_cells)
        after = strength * before + math.sqrt(1 - strength**2) * rng.standard_normal(num_cells)
        found = judge_proxy(Proxy(name="pass@8", values=cells(before)), cells(after))
        held += [
            found.spearman.low <= truth <= found.spearman.high,
            found.r2.low <= strength**2 <= found.r2.high,
        ]
    assert (held >= 0.92 * times).all()
    assert (held <= 0.995 * times).all()


def test_four_cells_are_refused_and_five_are_not() -> None:
    values = cells([1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(RecipeError, match=r"4 cells have both; 5 cells are the least"):
        judge_proxy(Proxy(name="pass@1", values=values), dict(list(values.items())[:4]))
    assert judge_proxy(Proxy(name="pass@1", values=values), values).num_cells == 5


@pytest.mark.parametrize(
    ("sets", "found"),
    [
        (["a", "a", "b", "a", "a"], "held-out sets a, b"),
        (["a"] * 4, "held-out sets a"),
        ([], "not"),
    ],
)
def test_losses_on_different_held_out_sets_are_refused(sets: list[str], found: str) -> None:
    proxy = loss([2.0, 1.9, 1.5, 1.2, 0.7], sets=sets)
    with pytest.raises(RecipeError, match=f"{found}.*one held-out set"):
        judge_proxy(proxy, cells([1.0, 2.0, 3.0, 4.0, 5.0]))


def test_a_number_that_is_the_same_everywhere_is_refused() -> None:
    with pytest.raises(RecipeError, match="pass@64 is 1 in all 5 cells"):
        judge_proxy(Proxy(name="pass@64", values=cells([1.0] * 5)), cells([1.0, 2, 3, 4, 5]))
    with pytest.raises(RecipeError, match="the score after RL is 0 in all 5 cells"):
        judge_proxy(Proxy(name="pass@64", values=cells([1.0, 2, 3, 4, 5])), cells([0.0] * 5))


def test_the_surer_proxy_ranks_the_cells_that_wait_and_its_regret_is_counted() -> None:
    after = [1.0, 2.0, 3.0, 4.0, 6.0, 5.0, 7.0, 8.0]
    good = Proxy(name="pass@8", values=cells([1, 2, 3, 4, 5, 6, 8, 7, 2.5, 9, 0.5]))
    weak = Proxy(name="pass@1", values=cells([5, 1, 3, 8, 2, 7, 4, 6, 9, 9, 9]))
    found = recommend([weak, good], cells(after), num_cells=1)
    assert found is not None
    assert (found.proxy, found.cells) == ("pass@8", ("cell09",))
    assert found.regret == 1.0  # it ranks the cell of 7 above that of 8
    assert found.regret_by_chance == pytest.approx(8 - sum(after) / 8)
    three = recommend([good], cells(after), num_cells=3)
    assert three is not None
    assert three.cells == ("cell09", "cell08", "cell10")
    assert three.regret == 0.0
    drawn = [max(one) for one in combinations(after, 3)]
    assert three.regret_by_chance == pytest.approx(8 - sum(drawn) / len(drawn))


def test_nothing_is_recommended_where_no_proxy_is_shown_to_rank() -> None:
    weak = Proxy(name="pass@1", values=cells([5, 1, 3, 8, 2, 7]))
    after = cells([1.0, 2.0, 3.0, 4.0, 5.0])
    assert recommend([weak], after, num_cells=1) is None
    perfect = Proxy(name="pass@8", values=cells([1, 2, 3, 4, 5, 6]))
    assert recommend([perfect], after, num_cells=1) is not None
    assert recommend([perfect] + [weak] * 39, after, num_cells=1) is None  # chosen of forty
    with pytest.raises(RecipeError, match="0 cells were asked for"):
        recommend([perfect], after, num_cells=0)
