"""Estimates of sums of cells: pairing by seed and question, minima of means, pooled spreads."""

from dataclasses import replace

import numpy as np
import pytest

from frontload.eval.statistics.cells import Cells, Draws, MissingCell
from frontload.eval.statistics.contrasts import Contrast, Estimated, estimate, expanded, least
from frontload.eval.statistics.expressions import Expression
from frontload.eval.statistics.spread import (
    pooled_spread,
    seed_spreads,
    stage_of,
    stage_spread,
    stated_spreads,
)
from frontload.eval.statistics.stats import Spread
from frontload.recipes.errors import ArtifactError
from tests.unit.eval.graded import exact, one_file, study


def found(text: str, cells: Cells) -> Estimated:
    return least(cells, Expression(text).contrasts())


def gap(first: str, second: str, metric: str = "sft.avg") -> Contrast:
    return Contrast(weights={(first, metric): 1.0, (second, metric): -1.0})


def test_a_difference_is_paired_by_question() -> None:
    cells = study({"a": [0.6], "b": [0.5]})
    alone = found("c('a', 'sft.math')", cells).estimate
    other = found("c('b', 'sft.math')", cells).estimate
    both = found("c('a', 'sft.math') - c('b', 'sft.math')", cells).estimate
    assert both.value == pytest.approx(alone.value - other.value)
    assert both.se < 0.6 * alone.se


def test_a_cell_used_twice_cancels_exactly() -> None:
    cells = study({"a": [0.6, 0.4]})
    text = "(c('a', 'sft.math') + 3) - mean(c('a', 'sft.math'), c('a', 'sft.avg')) - 3"
    number = found(text, cells).estimate
    assert (number.value, number.se) == (pytest.approx(0), pytest.approx(0, abs=1e-9))


def test_a_question_counts_once_however_many_cells_answer_it() -> None:
    cells = study({f"pt:{arm}>sft:SHQ": [0.5] for arm in ("SHQ", "LDQ", "LMQ", "base")})
    text = "c('pt:res>sft:SHQ', 'sft.math') - c('pt:base>sft:SHQ', 'sft.math')"
    assert found(text, cells).num_items == 60
    files = {"a": [one_file({"q0": 1.0}), one_file({"p0": 1.0, "p1": 0.0}, suite="base")]}
    both = found("c('a', 'sft.math') - c('a', 'pt.math')", Cells(files=files))
    assert both.num_items == 3, "two suites ask different questions"


def test_seeds_are_paired_by_their_number_and_the_rest_is_counted() -> None:
    seeds = {"a": (1, 2, 3), "b": (3, 4, 1)}
    with pytest.raises(ValueError, match="not in tuple"):
        exact({"a": [1, 2, 3]}).draws("a", "sft.avg").of_seeds([4])
    cells = exact({"a": [10, 20, 30], "b": [5, 99, 1]}, seeds=seeds)
    number = estimate(cells, gap("a", "b"))
    assert number.seeds == (1, 3)
    assert number.estimate.seeds == (9.0, 25.0), "seed 1: 10 - 1; seed 3: 30 - 5"
    assert number.num_unpaired == 2
    assert estimate(exact({"a": [1, 2], "b": [1, 2]}), gap("a", "b")).num_unpaired == 0


def test_a_group_is_paired_too_and_its_members_missing_seeds_are_counted() -> None:
    numbers = {f"pt:{arm}": [1.0, 2.0, 3.0] for arm in ("SHQ", "LDQ", "base")} | {
        "pt:LMQ": [4.0, 6.0]
    }
    cells = exact(numbers, metric="pt.avg", seeds={"pt:LMQ": (2, 3)})
    number = estimate(cells, gap("pt:res", "pt:base", "pt.avg"))
    assert number.seeds == (2, 3)
    assert number.estimate.seeds == (pytest.approx(2 / 3), pytest.approx(1.0))
    assert number.num_unpaired == 1


def test_cells_without_a_common_seed_are_told_so() -> None:
    cells = exact({"a": [1.0], "b": [1.0]}, seeds={"a": (1,), "b": (2,)})
    with pytest.raises(MissingCell, match="no training seed has all cells"):
        estimate(cells, gap("a", "b"))


def test_a_cell_that_is_not_there_is_named() -> None:
    cells = Cells(files={"pt:SHQ": [one_file({"q0": 1.0}, suite="base")]})
    with pytest.raises(MissingCell, match=r"pt:LDQ pt\.avg"):
        found("c('pt:res', 'pt.avg')", cells)


def test_two_evaluations_of_one_seed_are_refused() -> None:
    files = {"a": [one_file({"q0": 1.0}, seed=3), one_file({"q0": 0.0}, seed=3)]}
    with pytest.raises(ArtifactError, match="two evaluations of seed 3"):
        Cells(files=files).draws("a", "sft.avg")


def test_seeds_that_answer_other_questions_are_refused() -> None:
    files = {"a": [one_file({"q0": 1.0}, seed=1), one_file({"q1": 0.0}, seed=2)]}
    with pytest.raises(ArtifactError, match="2 questions that only one of them answers, e.g. q0"):
        Cells(files=files).draws("a", "sft.avg")


def test_groups_are_means_of_their_members_and_80_20_is_the_plain_mix() -> None:
    levels = {"SHQ": 1.0, "LDQ": 0.5, "LMQ": 0.0}
    files = {
        f"pt:{name}": [one_file({"q0": level, "q1": level}, suite="base")]
        for name, level in levels.items()
    }
    cells = Cells(files=files)
    assert found("c('pt:res','pt.avg')", cells).estimate.value == pytest.approx(50)
    weights = expanded(Contrast(weights={("pt:res", "pt.avg"): 1.0, ("pt:LDQ", "pt.avg"): -1 / 3}))
    assert weights == {("pt:SHQ", "pt.avg"): 1 / 3, ("pt:LMQ", "pt.avg"): 1 / 3}
    text = "c('pt:LMQ@80-20','pt.math') - c('pt:LMQ','pt.math')"
    assert found(text, cells).estimate.value == 0


ARMS = {"a": [30.0, 40.0, 38.0], "b": [38.0, 30.0, 40.0], "c": [40.0, 38.0, 30.0]}


def test_the_least_is_taken_of_the_means_and_not_inside_a_seed() -> None:
    """Three arms of mean 36 against a rival of 34: the weakest leads by 2, in each seed by -4."""
    cells = exact(ARMS | {"rival": [34.0, 34.0, 34.0]})
    text = "min(c('a','sft.avg'), c('b','sft.avg'), c('c','sft.avg')) - c('rival','sft.avg')"
    number = found(text, cells)
    assert number.estimate.value == pytest.approx(2.0)
    assert number.seeds == (1, 2, 3)
    assert number.num_items == 100


def test_the_error_of_the_least_is_that_of_seeds_and_questions_drawn_again() -> None:
    """An arm far below the others is the least; where arms tie, the least moves less."""
    rng = np.random.default_rng(5)
    values = {name: list(rng.normal(50, 4, 8)) for name in "abcd"}
    low = exact(values | {"a": [value - 40 for value in values["a"]]})
    tied = exact(values)
    text = "min(c('a','sft.avg'), c('b','sft.avg'), c('c','sft.avg'))"
    alone = estimate(low, Contrast(weights={("a", "sft.avg"): 1.0})).estimate
    assert found(text, low).estimate.se == pytest.approx(alone.se, rel=0.2)
    assert 0 < found(text, tied).estimate.se < alone.se
    shared = "min(c('a','sft.avg') - c('d','sft.avg'), c('b','sft.avg') - c('d','sft.avg'))"
    own = "min(c('a','sft.avg') - c('d','sft.avg'), c('b','sft.avg') - c('c','sft.avg'))"
    assert found(shared, tied).estimate.se > found(own, tied).estimate.se


def drawn(rows: dict[str, list[list[float]]], *, questions: dict[str, int] | None = None) -> Cells:
    """Cells by their draws: a row a seed, the measured number first."""
    return Cells.of_metrics(
        {
            cell: {
                "sft.avg": Draws(
                    draws_AB=np.array(values, dtype=float),
                    seeds=tuple(range(1, len(values) + 1)),
                    questions=frozenset(f"q{n}" for n in range((questions or {}).get(cell, 9))),
                )
            }
            for cell, values in rows.items()
        }
    )


LEAST = "min(c('a','sft.avg'), c('b','sft.avg'))"


def test_the_least_of_one_seed_has_the_error_of_its_questions() -> None:
    """In three draws the least is 3, 1 and 2; the measured numbers are in none of them."""
    rows = {"a": [[4.0, 5.0, 1.0, 6.0]], "b": [[5.0, 3.0, 4.0, 2.0]]}
    number = found(LEAST, drawn(rows, questions={"a": 4, "b": 6}))
    assert number.estimate.value == 4.0
    assert (number.estimate.se, number.estimate.se_items) == (1.0, 1.0)
    assert number.estimate.se_seeds is None
    assert number.estimate.seeds == (4.0,)
    assert number.estimate.degrees == 3, "those of the contrast that has fewest"
    assert number.num_items == 6


def test_without_two_draws_the_least_has_the_error_of_the_weakest() -> None:
    rows = {"a": [[4.0, 5.0], [6.0, 7.0]], "b": [[9.0, 3.0], [9.0, 4.0]]}
    number = found(LEAST, drawn(rows)).estimate
    assert (number.value, number.se, number.se_items, number.se_seeds) == (5.0, 1.0, 0.0, 1.0)
    assert number.seeds == (4.0, 6.0), "measured, of the weakest"


@pytest.mark.parametrize(
    ("parts", "share"),
    [
        (("c('a','sft.avg')", "c('b','sft.avg')", "c('c','sft.avg')", "c('d','sft.avg')"), 0.7012),
        (("mean(c('a','sft.avg'), c('b','sft.avg'))", "mean(c('c','sft.avg'), c('d','sft.avg'))"),
         0.8256),
        (("c('a','sft.avg') - c('e','sft.avg')", "c('a','sft.avg') - c('e','sft.avg') + 0"), 1.0),
    ],
)  # fmt: skip
def test_the_least_of_independent_numbers_varies_as_the_least_of_normals_does(
    parts: tuple[str, ...], share: float
) -> None:
    """The standard deviation of the least of 4, of 2 and of twice the same normal variable."""
    values = {name: [30.0, 34.0, 38.0] for name in "abcd"} | {"e": [38.0, 30.0, 34.0]}
    rows = {name: [[v] * 8001 for v in numbers] for name, numbers in values.items()}
    cells = drawn(rows)
    alone = found(parts[0], cells).estimate
    number = found(f"min({', '.join(parts)})", cells).estimate
    assert number.se == pytest.approx(share * alone.se, rel=0.03)
    assert number.se_seeds == pytest.approx(number.se, rel=1e-6), "the questions have no error"
    assert number.se_items == 0


def test_the_least_over_other_seeds_names_no_seed_and_counts_what_has_no_partner() -> None:
    seeds = {"a": (1, 2), "c": (1, 2), "b": (3, 4), "d": (3, 4, 5)}
    values = {"a": [5.0, 7.0], "c": [1.0, 1.0], "b": [9.0, 9.0], "d": [1.0, 1.0, 1.0]}
    text = "min(c('a','sft.avg') - c('c','sft.avg'), c('b','sft.avg') - c('d','sft.avg'))"
    number = found(text, exact(values, seeds=seeds))
    assert (number.seeds, number.estimate.seeds) == ((), (5.0,))
    assert number.num_unpaired == 1


def test_a_pooled_spread_knows_what_cells_share_and_what_they_do_not() -> None:
    """The trunk moves all cells of a seed alike and is no spread between them."""
    rng = np.random.default_rng(1)
    trunk = rng.normal(0, 50, 400)
    own = {name: rng.normal(0, 3, 400) for name in ("pt:a", "pt:b", "pt:c", "pt:d")}
    cells = exact({name: list(trunk + noise) for name, noise in own.items()}, metric="pt.avg")
    seeds = range(1, 401)
    spread = stage_spread(cells, "pt", "pt.avg", seeds=seeds)
    assert spread.degrees == 3 * 399
    assert spread.variance == pytest.approx(9, rel=0.1)
    pair = pooled_spread(cells, {("pt:a", "pt.avg"): 1.0, ("pt:b", "pt.avg"): -1.0}, seeds=seeds)
    assert pair.variance == pytest.approx(2 * spread.variance)
    assert pair.degrees == pytest.approx(spread.degrees)
    assert pooled_spread(cells, {("pt:a", "pt.avg"): 1.0}, seeds=seeds) is None, "the trunk is in"
    assert stage_spread(cells, "sft", "pt.avg", seeds=seeds) is None
    assert stage_spread(cells, "pt", "pt.math", seeds=seeds) is None


def test_cells_that_lack_a_seed_are_not_pooled() -> None:
    numbers = {"pt:a": [1.0, 2.0], "pt:b": [1.0, 4.0], "pt:c": [9.0]}
    cells = exact(numbers, metric="pt.avg")
    assert stage_spread(cells, "pt", "pt.avg", seeds=(1, 2)).degrees == 1
    assert stage_spread(cells, "pt", "pt.avg", seeds=(1, 2)).variance == pytest.approx(1.0)
    numbers["pt:c"] = [9.0, float("nan")]
    without = stage_spread(exact(numbers, metric="pt.avg"), "pt", "pt.avg", seeds=(1, 2))
    assert (without.degrees, without.variance) == (1, pytest.approx(1.0)), "nor one without number"


def test_a_pooled_spread_is_of_the_measured_numbers() -> None:
    cells = drawn({"sft:a": [[1.0, 9.0], [3.0, 0.0]], "sft:b": [[1.0, 2.0], [1.0, 4.0]]})
    assert stage_spread(cells, "sft", "sft.avg", seeds=(1, 2)).variance == pytest.approx(1.0)


def test_after_rl_a_cell_is_its_start_and_a_change() -> None:
    """What a start and its reinforced model share cancels in the change of the change."""
    rng = np.random.default_rng(2)
    start = {f"pt:{arm}>sft:SHQ": rng.normal(0, 10, 500) for arm in "abcd"}
    after = {f"{n}>rl:X": v + rng.normal(0, 1, 500) for n, v in list(start.items())[:3]}
    cells = exact({n: list(v) for n, v in (start | after).items()}, metric="flat8.avg")
    seeds = range(1, 501)
    metric = "flat8.avg"
    lead = {("pt:a>sft:SHQ>rl:X", metric): 1.0, ("pt:b>sft:SHQ>rl:X", metric): -1.0}
    growth = lead | {("pt:a>sft:SHQ", metric): -1.0, ("pt:b>sft:SHQ", metric): 1.0}
    assert pooled_spread(cells, lead, seeds=seeds).variance == pytest.approx(202, rel=0.15)
    change = pooled_spread(cells, growth, seeds=seeds)
    assert change.variance == pytest.approx(2, rel=0.15)
    assert change.degrees == 2 * 499, "three changes are all that is pooled"
    mixed = {leaf: weight for leaf, weight in growth.items() if leaf[0] != "pt:b>sft:SHQ"}
    mixed[("pt:d>sft:SHQ", metric)] = 1.0
    assert pooled_spread(cells, mixed, seeds=seeds).variance == pytest.approx(202, rel=0.15)
    alone = exact({n: list(v) for n, v in after.items()}, metric=metric)
    assert pooled_spread(alone, lead, seeds=seeds).variance == pytest.approx(202, rel=0.15)


def test_suites_pool_apart_and_their_variances_add_up() -> None:
    rng = np.random.default_rng(3)

    def draws(sd: float) -> Draws:
        values = rng.normal(0, sd, 300)[:, None] * np.ones((1, 3))
        return Draws(draws_AB=values, seeds=tuple(range(300)), questions=frozenset("ab"))

    cells = Cells.of_metrics(
        {f"pt:{arm}": {"pt.avg": draws(1)} for arm in "ab"}
        | {f"pt:{arm}>sft:X": {"sft.avg": draws(5)} for arm in "abc"}
    )
    weights = {("pt:a", "pt.avg"): -1.0, ("pt:b", "pt.avg"): 1.0}
    weights |= {("pt:a>sft:X", "sft.avg"): 1.0, ("pt:b>sft:X", "sft.avg"): -1.0}
    spread = pooled_spread(cells, weights, seeds=range(300))
    assert spread.variance == pytest.approx(52, rel=0.15)
    assert 2 * 299 * 0.9 < spread.degrees < 3 * 299, "nearly all of it comes from the SFT cells"
    alike = Cells.of_metrics(
        {cell: {metric: draws(0)} for cell in cells.names for metric in cells.metrics(cell)}
    )
    assert pooled_spread(alike, weights, seeds=range(300)) == Spread(variance=0.0, degrees=299)


def test_one_seed_has_the_spread_that_its_recipe_states() -> None:
    cells = exact({"pt:a": [1.0], "pt:b": [2.0]}, metric="pt.avg")
    assert (
        pooled_spread(cells, {("pt:a", "pt.avg"): 1.0, ("pt:b", "pt.avg"): -1.0}, seeds=(1,))
        is None
    )
    told = replace(cells, stated_spreads=stated_spreads({"pt/pt.avg": 3.0}))
    number = estimate(told, gap("pt:a", "pt:b", "pt.avg"))
    assert number.spread.variance == pytest.approx(18)
    assert number.estimate.se_seeds is None, "what is stated is no part of this study's error"
    assert number.estimate.se == 0


def test_the_spreads_of_a_study_can_be_stated_by_the_next() -> None:
    numbers = {"pt:a": [1.0, 3.0], "pt:b": [2.0, 2.0], "pt:a>sft:X": [5.0, 5.0, 5.0]}
    written = seed_spreads(exact(numbers, metric="flat8.avg"))
    assert written == {"pt/flat8.avg": {"sd": pytest.approx(1.0), "degrees": 1}}
    both = seed_spreads(exact(numbers | {"pt:b>sft:X": [5.0, 5.0, 5.0]}, metric="flat8.avg"))
    assert both["sft/flat8.avg"] == {"sd": 0.0, "degrees": 2}, "all three seeds of these two"
    assert both["pt/flat8.avg"] == written["pt/flat8.avg"]
    (stated,) = stated_spreads({name: row["sd"] for name, row in written.items()}).items()
    assert stated[0] == ("pt", "flat8.avg")
    assert stated[1].variance == pytest.approx(1.0)


def test_the_stage_of_a_cell_is_its_last() -> None:
    cells = ("pt:LMQ@60-40", "pt:base>sft:SHQ*2", "pt:base>sft:SHQ>rl:CrossThink")
    assert [stage_of(cell) for cell in cells] == ["pt", "sft", "rl"]


def test_what_guessing_gets_is_the_commonest_gold_answer_averaged_as_a_model_is() -> None:
    chain = one_file({"q0": 1.0, "q1": 1.0}, gold="7")
    add = one_file({"p0": 1.0, "p1": 0.0, "p2": 0.0, "p3": 0.0}, benchmark="add")
    keep = one_file({"k0": 1.0, "k1": 0.0}, benchmark="keep", category="ins")
    file = type(chain)(
        protocol=chain.protocol, results=(*chain.results, *add.results, *keep.results)
    )
    floors = Cells(files={"pt:a>sft:X": [file]}).floors()["sft"]
    assert (floors["bench.chain"], floors["bench.add"], floors["bench.keep"]) == (100, 25, 50)
    assert (floors["sft.math"], floors["sft.ins"], floors["sft.avg"]) == (62.5, 50, 56.25)
    assert (floors["flat8.avg"], floors["rl.avg"]) == (62.5, 62.5)
    assert floors["flat9.avg"] == pytest.approx(175 / 3)
    assert exact({"a": [1.0]}).floors() == {}
