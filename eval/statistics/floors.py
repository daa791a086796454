"""What a benchmark pays for no answer: an empty text, the question again, one constant answer."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from frontload.eval.statistics.stats import Estimate, clustered_mean


@dataclass(frozen=True, kw_only=True)
class AskedItem:
    """A question with its gold answer; `gold` is a letter where there are options."""

    id: str
    question: str
    gold: str


@dataclass(frozen=True, kw_only=True)
class Floors:
    """Scores that need no model. A checkpoint near one of them has shown nothing."""

    empty: Estimate
    echoed: Estimate
    constant: Estimate
    constant_answer: str  # the commonest gold answer, of equal ones the first in order

    @property
    def highest(self) -> float:
        """The share that a checkpoint must beat."""
        return max(self.empty.value, self.echoed.value, self.constant.value)


def measure_floors(
    items: Sequence[AskedItem],
    *,
    is_right: Callable[[AskedItem, str], bool],
    respond: Callable[[str], str],
) -> Floors:
    """Grades three texts a question; `respond` writes an answer in the form that is asked for.

    `items` are not empty. An echo is the question as it stands and is also tried in that form.
    """
    gold = Counter(item.gold for item in items)
    constant = min(gold, key=lambda answer: (-gold[answer], answer))
    echoes = [
        any(is_right(item, text) for text in (item.question, respond(item.question)))
        for item in items
    ]
    return Floors(
        empty=clustered_mean([is_right(item, "") for item in items]),
        echoed=clustered_mean(echoes),
        constant=clustered_mean([is_right(item, respond(constant)) for item in items]),
        constant_answer=constant,
    )
