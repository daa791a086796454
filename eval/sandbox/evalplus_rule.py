"""EvalPlus' rule for one test: its tolerances, and its own code for the tasks with many answers.

Values come decoded, so they are built-in types: no `__eq__` of a stranger is ever called.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from evalplus.eval import is_floats
from evalplus.eval._special_oracle import (
    MBPP_OUTPUT_NOT_NONE_TASKS,
    MBPP_OUTPUT_SET_EQ_TASKS,
    _digit_distance_nums,
    _poly,
    _surface_Area,
)

FLOAT_ATOL = 1e-6  # EvalPlus 0.3.1, eval/__init__.py: of tests whose expected value is a float
FLOAT_RTOL = 1e-7  # as there


def evalplus_tolerances(expected: Sequence[Any], atol: float) -> list[float]:
    """The absolute tolerance of each test of a row.

    EvalPlus keeps the tolerance that the first float sets for all tests after it; so do we, as its
    published numbers hold this.
    """
    tolerances: list[float] = []
    for value in expected:
        if atol == 0 and is_floats(value):
            atol = FLOAT_ATOL
        tolerances.append(atol)
    return tolerances


def is_same_in_evalplus(
    found: Any, expected: Any, *, entry: str, arguments: Sequence[Any], atol: float
) -> bool:
    """EvalPlus 0.3.1's rule for one test (eval/__init__.py, unsafe_execute), on plain values."""
    try:
        if entry == "find_zero":  # HumanEval/32: any zero of the polynomial
            return bool(abs(_poly(arguments[0], found)) <= atol)
        if _matches(found, expected, entry=entry, arguments=arguments, atol=atol):
            return True
        if atol == 0 or type(found) is not type(expected):
            return False
        if isinstance(expected, list | tuple) and len(found) != len(expected):
            return False
        return bool(np.allclose(found, expected, rtol=FLOAT_RTOL, atol=atol))
    except (TypeError, ValueError, ArithmeticError, RecursionError, IndexError):
        return False  # not even comparable


def _matches(
    found: Any, expected: Any, *, entry: str, arguments: Sequence[Any], atol: float
) -> bool:
    if entry in MBPP_OUTPUT_SET_EQ_TASKS:
        return set(found) == set(expected)
    if entry in MBPP_OUTPUT_NOT_NONE_TASKS:  # the gold program's own value is "is not None"
        return found == expected if isinstance(found, bool) else expected == (found is not None)
    if found == expected or entry == "are_equivalent":  # Mbpp/164: EvalPlus takes any value
        return True
    if entry == "sum_div":  # Mbpp/295
        return found == 0
    if entry == "surface_Area":  # Mbpp/581
        return abs(found - _surface_Area(*arguments)) <= atol
    if entry == "digit_distance_nums":  # Mbpp/558
        return found == _digit_distance_nums(*arguments)
    return False
