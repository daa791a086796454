"""The grammar of claims.json: sums of cells, and statements as comparisons that must all hold."""

import pytest

from frontload.eval.statistics.contrasts import Contrast
from frontload.eval.statistics.expressions import Expression, named_leaves
from frontload.eval.tables.paper import paper_claims
from frontload.recipes.errors import RecipeError

A, B, C = ((name, "sft.avg") for name in "abc")


def c(name: str) -> str:
    return f"c('{name}', 'sft.avg')"


def one(text: str) -> Contrast:
    (contrast,) = Expression(text).contrasts()
    return contrast


def gaps(text: str) -> list[Contrast]:
    return [comparison.gap for comparison in Expression(text).comparisons()]


def test_an_expression_is_a_sum_of_cells_with_weights() -> None:
    text = f"2 * ({c('a')} - {c('b')}) / 4 - mean({c('c')}, {c('a')}) + 3 - eps"
    found = one(text)
    assert found == Contrast(weights={B: -0.5, C: -0.5}, constant=3.0, eps=-1.0)
    assert one(f"{c('a')} * 3").weights == {A: 3.0}
    assert one(f"2 * ({c('a')} - mean({c('b')}, {c('c')}))").weights == {A: 2.0, B: -1.0, C: -1.0}
    assert one(f"-{c('a')}").weights == {A: -1.0}


def test_the_least_of_sums_keeps_each_of_them() -> None:
    weights = [x.weights for x in Expression(f"min({c('a')}, {c('b')}) - {c('c')}").contrasts()]
    assert weights == [{A: 1, C: -1}, {B: 1, C: -1}]
    weights = [x.weights for x in Expression(f"{c('c')} - max({c('a')}, {c('b')})").contrasts()]
    assert weights == [{C: 1, A: -1}, {C: 1, B: -1}]
    weights = [x.weights for x in Expression(f"min({c('a')}, {c('b')}) / 2").contrasts()]
    assert weights == [{A: 0.5}, {B: 0.5}]
    nested = Expression(f"min({c('a')}, min({c('b')}, {c('c')}))").contrasts()
    assert [x.weights for x in nested] == [{A: 1}, {B: 1}, {C: 1}]
    pairs = Expression(f"min({c('a')}, {c('b')}) - max({c('c')}, 5)").contrasts()
    assert [(x.weights, x.constant) for x in pairs] == [
        ({A: 1, C: -1}, 0),
        ({A: 1}, -5),
        ({B: 1, C: -1}, 0),
        ({B: 1}, -5),
    ]


def test_a_minimum_above_a_number_is_as_many_comparisons_as_it_has_parts() -> None:
    found = gaps(f"min({c('a')}, {c('b')}) - {c('c')} > eps")
    assert found == [
        Contrast(weights={A: 1, C: -1}, eps=-1.0),
        Contrast(weights={B: 1, C: -1}, eps=-1.0),
    ]


def test_an_absolute_value_below_a_number_is_two_comparisons() -> None:
    found = gaps(f"abs({c('a')} - {c('b')}) < 1.0")
    assert [(x.weights, x.constant) for x in found] == [
        ({A: -1, B: 1}, 1.0),
        ({A: 1, B: -1}, 1.0),
    ]


def test_a_statement_below_is_turned_so_that_the_gap_is_positive() -> None:
    (below,) = gaps(f"{c('a')} - {c('b')} < -eps")
    assert below == Contrast(weights={A: -1, B: 1}, eps=-1.0)
    strict = [one.is_strict for text in ("<", "<=", ">", ">=")
              for one in Expression(f"{c('a')} {text} 0").comparisons()]  # fmt: skip
    assert strict == [True, False, True, False]


def test_and_joins_and_keeps_the_order() -> None:
    found = gaps(f"{c('a')} > 1 and {c('b')} < 2 and {c('c')} >= 3")
    assert [(list(x.weights), x.constant) for x in found] == [([A], -1), ([B], 2), ([C], -3)]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "c('a')",
        "c('a', 'b', 'c')",
        "c(a, 'sft.avg')",
        "c(1, 'sft.avg')",
        "open('x')",
        "(1).real",
        "[1, 2][0]",
        "lambda: 1",
        "'text'",
        "True",
        "1 +",
        "min()",
        "mean()",
        "abs(1, 2)",
        "c('a', metric='sft.avg')",
        "1 / c('a', 'sft.avg')",
        "1 / 0",
        "c('a', 'sft.avg') * c('b', 'sft.avg')",
        "c('a', 'sft.avg') ** 2",
        "eps * eps",
        "max(c('a', 'sft.avg'), 1)",
        "abs(c('a', 'sft.avg'))",
        "abs(min(1, 2))",
        "min(1, 2) + max(1, 2)",
        "min(1, max(2, 3))",
    ],
)
def test_anything_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="allowed are c"):
        Expression(text).contrasts()


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1 < 2 < 3",
        "1 == 2",
        "1 > 0 or 2 > 1",
        "not 1 > 2",
        "max(c('a', 'sft.avg'), 1) > 0",
        "abs(c('a', 'sft.avg')) > 1",
        "root(c('a', 'sft.avg')) < 1",
        "abs(c('a', 'sft.avg'), 2) < 1",
        "min(c('a', 'sft.avg'), 1) < 0",
    ],
)
def test_a_statement_of_which_one_part_would_do_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="all parts of a statement must hold"):
        Expression(text).comparisons()


@pytest.mark.parametrize("metric", ["avg", "sft.average", "sft.avg.x", "pt.", "heldout", "rl.math"])
def test_a_metric_that_no_cell_can_have_is_refused_by_name(metric: str) -> None:
    with pytest.raises(RecipeError, match=f"the metric '{metric}', which no cell can have"):
        Expression(f"c('pt:base', '{metric}')").contrasts()


def test_every_statement_of_the_paper_is_in_the_grammar() -> None:
    for row in paper_claims()["hypotheses"]:
        effects = Expression(row["effect"]).contrasts()
        gaps = [comparison.gap for comparison in Expression(row["predicate"]).comparisons()]
        assert effects
        assert gaps
        assert all(contrast.weights for contrast in [*effects, *gaps]), "each names a cell"
    for row in paper_claims()["claims"]:
        if row["formula"] is not None:
            assert all(contrast.weights for contrast in Expression(row["formula"]).contrasts())
    parts = {
        row["id"][:3]: len(Expression(row["predicate"]).comparisons())
        for row in paper_claims()["hypotheses"]
    }
    assert {name: count for name, count in parts.items() if count > 1} == {
        "H01": 3, "H03": 3, "H06": 2, "H07": 2, "H08": 3, "H09": 2, "H12": 4,
    }  # fmt: skip


def test_plain_arithmetic_needs_no_cells() -> None:
    found = Expression("(4.8e6*10e3)/(4.8e6*336e9/268e6)").number()
    assert found == pytest.approx(7.9762, rel=1e-4)
    for text in (c("a"), "eps"):
        with pytest.raises(RecipeError, match="where a number is needed"):
            Expression(text).number()


def test_named_cells_keep_their_groups_and_stand_once() -> None:
    contrasts = Expression("c('pt:res','pt.avg') - c('pt:base','pt.avg')").contrasts()
    assert named_leaves([*contrasts, *contrasts]) == [("pt:res", "pt.avg"), ("pt:base", "pt.avg")]
