"""Weights of the members of a mix, as exact integers or fractions: by temperature, and UniMax."""

from collections.abc import Sequence
from fractions import Fraction

ROOT_BITS = 64  # behind the point of a root: an error under 2^-64 of a weight


def as_shares(weights: Sequence[int | Fraction]) -> list[Fraction]:
    """Weights as shares that sum to 1; equal ones where all are 0."""
    total = Fraction(sum(weights))
    if not total:
        return [Fraction(1, len(weights))] * len(weights)
    return [weight / total for weight in weights]


def tempered(sizes: Sequence[int], temperature: Fraction) -> list[int]:
    """floor(2^64 n^(1 / temperature)) of each size n: no float decides, so no machine does.

    Source: Arivazhagan et al. 2019, Massively Multilingual Neural Machine Translation in the Wild,
            section 3.2.
    """
    power, root = temperature.denominator, temperature.numerator
    return [integer_root((size**power) << (ROOT_BITS * root), root) for size in sizes]


def integer_root(value: int, degree: int) -> int:
    """The largest whole number whose power of `degree` is at most `value`, which is 0 or more."""
    if value == 0 or degree == 1:
        return value
    guess = 1 << -(-value.bit_length() // degree)  # not below the root; Newton's steps fall to it
    while True:
        step = ((degree - 1) * guess + value // guess ** (degree - 1)) // degree
        if step >= guess:
            return guess
        guess = step


def unimax(budget: int, most: Sequence[int]) -> list[Fraction]:
    """An equal part of a budget for each, but at most `most` of each: the rest goes to the others.

    Where all of them together are smaller than the budget, each gets its most.

    Source: Chung et al. 2023, UniMax: Fairer and More Effective Language Sampling for Large-Scale
            Multilingual Pretraining, alg. 1.
    """
    parts = [Fraction(0)] * len(most)
    left = Fraction(budget)
    ascending = sorted(range(len(most)), key=lambda place: most[place])
    for taken, place in enumerate(ascending):
        parts[place] = min(left / (len(most) - taken), Fraction(most[place]))
        left -= parts[place]
    return parts
