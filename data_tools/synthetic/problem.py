"""What a reasoning family is: random questions, solutions computed from their text alone."""

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from frontload.data_tools.synthetic.vocabulary import LABELS

HELDOUT_ONE_IN = 5
"""One question in five is for evaluation only. Ours: a level with few questions keeps enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """The worked answer of one question.

    steps: what a full trace writes, each step restating its operation; states: the bare result of
    each step, what a short trace is made of; answer: the final answer.
    """

    steps: tuple[str, ...]
    states: tuple[str, ...]
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One kind of question. `solve` reads nothing but the question, so it is also the verifier."""

    name: str
    stands_for: str  # what of the paper: math, code, science or ins
    levels: tuple[int, int]  # fewest and most operations
    draw: Callable[[random.Random, int], str]  # (random stream, level) -> question
    solve: Callable[[str], Solution]
    matter: Callable[[str], str] = str  # question -> the part of it that its answer depends on


def random_stream(seed: int, *name: str | int) -> random.Random:
    """The random stream `name` of `seed`; streams of different names are independent."""
    text = json.dumps([seed, *name], separators=(",", ":"))
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))


def is_heldout(matter: str) -> bool:
    """Whether a question is for evaluation only: decided by its matter, never by a draw.

    Two questions of one matter (other names of variables, another person in the story) ask the
    same, so both are on one side of the split.
    """
    digest = hashlib.sha256(matter.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELDOUT_ONE_IN == 0


def labelled(operations: Sequence[str]) -> str:
    """`A first B second ...`: operations with their labels."""
    return " ".join(f"{label} {text}" for label, text in zip(LABELS, operations, strict=False))


def operations_of(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(label, words) of each labelled operation; words before the first label are left out."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word in LABELS:
            found.append((word, []))
        elif found:
            found[-1][1].append(word)
    return found


def run_program(question: str, apply: Callable[[list[str], list[str]], list[str]]) -> Solution:
    """Applies the labelled operations of a question one after the other to a state of words.

    A step is `label operation = state`; the final answer is the last state. Found: answers gathered
    from several states stayed at the floor. The shared form is meant to let skills transfer between
    families; after SFT on SHQ alone the other families are forgotten all the same.
    """
    state: list[str] = []
    steps, states = [], []
    for label, operation in operations_of(question.split()):
        state = apply(state, operation)
        states.append(" ".join(state))
        steps.append(f"{label} {' '.join(operation)} = {states[-1]}")
    return Solution(steps=tuple(steps), states=tuple(states), answer=states[-1])
