"""Whether what a program returned is what was expected: outside of its process, on plain values.

No `__eq__` of a stranger is ever called.
"""

from decimal import Decimal
from typing import Any

LIVECODE_TOLERANCE = 1e-6  # absolute or relative, as AtCoder's and Codeforces' checkers mostly ask


def is_same_value(found: Any, expected: Any, *, tolerance: float) -> bool:
    """Equality of values as JSON has them; of a float that is expected, within `tolerance`."""
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(
                is_same_value(one, other, tolerance=tolerance)
                for one, other in zip(found, expected, strict=True)
            )
        )
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(
                is_same_value(found[key], expected[key], tolerance=tolerance) for key in expected
            )
        )
    if isinstance(expected, float) and isinstance(found, int | float):
        return found == expected or _is_near(found, expected, tolerance=tolerance)
    return bool(found == expected)


def is_same_text(found: str, expected: str, *, tolerance: float) -> bool:
    """Equality of two standard outputs, by line and word.

    LiveCodeBench compares lines without the space around them, and the words of unequal lines as
    decimal numbers. Differs: where the expected word has a point, a number within `tolerance` will
    do; LiveCodeBench asks for every digit that its own solution printed. 0 asks so, too.
    """
    found_lines, expected_lines = found.strip().split("\n"), expected.strip().split("\n")
    if len(found_lines) != len(expected_lines):
        return False
    return all(
        is_same_line(one.strip(), other.strip(), tolerance=tolerance)
        for one, other in zip(found_lines, expected_lines, strict=True)
    )


def is_same_line(found: str, expected: str, *, tolerance: float) -> bool:
    """The rule of `is_same_text` for one line."""
    if found == expected:
        return True
    found_words, expected_words = found.split(), expected.split()
    if len(found_words) != len(expected_words):
        return False
    try:
        return all(
            is_same_number(one, other, tolerance=tolerance)
            for one, other in zip(found_words, expected_words, strict=True)
        )
    except ArithmeticError:
        return False  # a word that is no number


def is_same_number(found: str, expected: str, *, tolerance: float) -> bool:
    """Whether two words are the same number. Raises: ArithmeticError for a word that is none."""
    one, other = Decimal(found), Decimal(expected)
    if one == other:
        return True
    has_point = "." in expected or "e" in expected.lower()
    return has_point and _is_near(float(one), float(other), tolerance=tolerance)


def _is_near(found: float, expected: float, *, tolerance: float) -> bool:
    try:
        return abs(found - expected) <= tolerance * max(1.0, abs(expected))
    except OverflowError:
        return False  # a whole number beyond every float
