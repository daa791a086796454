"""How expressions are compared before math-verify simplifies them: values, and decimals exactly."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.eval.grading.algebra import differs_at_a_point, with_exact_decimals

sympy: Any = pytest.importorskip("sympy")
x, y = sympy.symbols("x y", real=True)


def number(text: str) -> Any:
    """As latex2sympy reads it: fractions and powers stay as they are written."""
    return sympy.sympify(text, evaluate=False)


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        ("2**-60", "2**-61"),
        ("exp(-40)", "exp(-41)"),
        ("1 - 2**-80", "1 - 2**-79"),
        ("1/factorial(1998)", "1/factorial(2000)"),
        ("0", "exp(-40)"),
        ("sqrt(2)", "1414213562373095048801/10**21"),
        ("sqrt(2)", "sqrt(3)"),
        ("1 + 2*I", "1 - 2*I"),
        ("1 + exp(-40)*I", "1 - exp(-40)*I"),
        ("10**30", "10**30 + 1"),
        ("-1", "1"),
    ],
)
def test_values_that_differ_are_seen_at_any_size(gold: str, prediction: str) -> None:
    for first, second in ((gold, prediction), (prediction, gold)):
        assert differs_at_a_point(number(first), number(second))


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        ("2**-60", "1/2**60"),
        ("exp(-40)", "1/exp(40)"),
        ("sqrt(5 + 2*sqrt(6))", "sqrt(2) + sqrt(3)"),
        ("0", "sqrt(5 + 2*sqrt(6)) - sqrt(2) - sqrt(3)"),  # noise is no value
        ("sqrt(-4)", "2*I"),
        ("(1 + sqrt(5))/2", "2/(sqrt(5) - 1)"),
    ],
)
def test_equal_values_are_left_to_algebra(gold: str, prediction: str) -> None:
    assert not differs_at_a_point(number(gold), number(prediction))


def test_expressions_are_compared_at_one_point_of_all_their_names() -> None:
    assert differs_at_a_point(x / 2**30, x / 2**31)
    assert differs_at_a_point(x + 2 * y, 2 * x + y)
    assert differs_at_a_point(x**2 + 1, x**2 + y)
    assert not differs_at_a_point((x + 1) ** 2, x**2 + 2 * x + 1)
    other = sympy.Symbol("x")  # another assumption, the same name
    assert not differs_at_a_point(2 * x, 2 * other)


@pytest.mark.parametrize(
    "gold",
    [x, sympy.Interval(0, 1), sympy.Matrix([1, 2]), sympy.Eq(x, 1), sympy.zoo, sympy.nan],
    ids=str,
)
def test_what_has_no_value_is_never_decided(gold: Any) -> None:
    for other in (sympy.Integer(5), sympy.sqrt(2)):
        assert not differs_at_a_point(gold, other)
        assert not differs_at_a_point(other, gold)


@settings(max_examples=100)
@given(value=st.decimals(min_value=-1000, max_value=1000, places=6, allow_nan=False))
def test_a_decimal_is_the_fraction_of_its_digits(value: Any) -> None:
    found = with_exact_decimals(sympy.Float(str(value)))
    assert found.is_Rational
    assert Fraction(int(found.p), int(found.q)) == Fraction(value)


def test_decimals_are_exact_wherever_they_stand() -> None:
    half, third = sympy.Rational(1, 2), sympy.Float("0.3333333333333333333333333")
    assert with_exact_decimals(0.5 * x + 1) == half * x + 1
    assert with_exact_decimals(sympy.Interval(0.5, 2)) == sympy.Interval(half, 2)
    assert with_exact_decimals(sympy.Matrix([[0.5], [x]])) == sympy.Matrix([[half], [x]])
    assert with_exact_decimals(sympy.Tuple(2.5, 1)) == sympy.Tuple(sympy.Rational(5, 2), 1)
    digits = with_exact_decimals(third)
    assert digits == sympy.Rational(3333333333333333333333333, 10**25)
    whole = x + sympy.Rational(1, 3)
    assert with_exact_decimals(whole) is whole
    assert with_exact_decimals("no expression") == "no expression"


def test_an_equation_of_numbers_stays_an_equation() -> None:
    equation = sympy.Eq(sympy.Add(2.5, 2, evaluate=False), 4.5, evaluate=False)
    found = with_exact_decimals(equation)
    assert isinstance(found, sympy.Eq)
    assert found.rhs == sympy.Rational(9, 2)


def test_the_order_of_a_list_is_kept() -> None:
    """latex2sympy's set knows in which order it was written, for a gold answer that is a point."""
    from latex2sympy2_extended.sets import FiniteSet

    found = with_exact_decimals(FiniteSet(sympy.Float("2.5"), sympy.Integer(1)))
    assert list(found._unsorted_args) == [sympy.Rational(5, 2), 1]
