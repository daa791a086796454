"""One row of a benchmark as it is asked, whichever form wrote it. No model, no file."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from frontload.data_tools.text.messages import Message
from frontload.eval.protocol.answers import Generated, Loglikelihood
from frontload.eval.statistics.floors import Floors
from frontload.eval.statistics.gates import ScoreGate


@dataclass(frozen=True, kw_only=True)
class BenchmarkItem:
    """A prompt to answer, or options to score: exactly one of the two."""

    id: str  # benchmark/part/row, the part left out where there is one
    question: str  # for people: the row's own text, without examples
    gold: str  # as the grader and the reader see it
    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    options: tuple[tuple[str, str], ...] = ()  # (context, continuation) of each
    shown: tuple[str, ...] = ()  # the options as people read them

    @property
    def digest(self) -> str:
        """Of all that a model is given: another prompt is another sample."""
        form = [self.prompt, self.messages, self.options]
        return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class GradedAnswer:
    """What a grader found in one answer."""

    correct: bool
    answer: str  # the final answer in it, "" where there is none
    failure: str = ""  # why there is no answer, "" where there is one


class BenchmarkTask(ABC):
    """The items of one benchmark and how their answers become right or wrong."""

    def __init__(self, items: Iterable[BenchmarkItem], *, stop: Sequence[str] = ()) -> None:
        self.items = tuple(items)
        self.stop = tuple(stop)  # of generated answers

    @abstractmethod
    def grade(self, answers: Sequence[tuple[BenchmarkItem, Generated]]) -> list[GradedAnswer]:
        """The grade of each generated answer, in order."""

    def gold_answers(self) -> list[tuple[BenchmarkItem, Generated]]:
        """For each item an answer that must be graded right; () where no gold text is known."""
        return []

    @cached_property
    def has_gold(self) -> bool:
        """Whether any gold text is known."""
        return bool(self.gold_answers())

    def examples(self) -> Sequence[str]:
        """The questions of the worked examples that its prompts may show."""
        return ()

    def floors(self) -> Floors | None:
        """What needs no model; None where the grader does not say it cheaply."""
        return None

    def gates(self) -> list[ScoreGate]:
        """What a reader must know of how the answers were graded; asked after `grade`."""
        return []


class ChoiceTask(BenchmarkTask):
    """A benchmark whose items may have options, of which the likeliest is the answer."""

    @abstractmethod
    def scores(self, item: BenchmarkItem, options: Sequence[Loglikelihood]) -> tuple[float, ...]:
        """A number for each option of an item: the model answers the first of the highest."""

    @abstractmethod
    def gold_place(self, item: BenchmarkItem) -> int:
        """Which option is right."""


@dataclass(frozen=True, kw_only=True)
class MissingBenchmark:
    """A benchmark that was not asked, and why: it has no score, which is not a score of 0."""

    reason: str
