"""Texts that hold a held-out question: the runs of words that `data curate` looks for."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import batched

from frontload.data_tools.curation.items import Item
from frontload.data_tools.curation.matches import build_index, find_matches, is_leak
from frontload.data_tools.text.words import WordHasher
from frontload.recipes.runs.curation import Decontamination

BATCH_ROWS = 256
RULES = Decontamination(  # those of recipes/curations/paper_sets.yaml
    benchmarks={},
    ngram_words=13,  # Brown et al. 2020, GPT-3, appendix C
    overlap_words=13,
    item_share=0.5,
    shortest_item_words=8,
)


class LeakFilter:
    """Knows the held-out questions, and which texts hold one."""

    def __init__(self, questions: Sequence[str]) -> None:
        self._hasher = WordHasher(0)
        items = [Item(benchmark="own", name=str(n), text=q) for n, q in enumerate(questions)]
        self._index = build_index(items, RULES, hasher=self._hasher)

    def clean[Row](
        self, rows: Iterable[Row], text: Callable[[Row], str], *, on_drop: Callable[[], object]
    ) -> Iterator[Row]:
        """The rows that hold no held-out question, in order; `on_drop` is called for each other."""
        for some in batched(rows, BATCH_ROWS):
            matches = self._matches([text(row) for row in some])
            for number, row in enumerate(some):
                if number in matches:
                    on_drop()
                else:
                    yield row

    @property
    def too_short(self) -> set[int]:
        """Questions, by number, of fewer words than are looked for: no text holds them."""
        return set((self._index.sizes_I == 0).nonzero()[0].tolist())

    def leaked(self, texts: Iterable[str]) -> set[int]:
        """The questions, by number, that some text holds."""
        return {
            question
            for some in batched(texts, BATCH_ROWS)
            for questions in self._matches(list(some)).values()
            for question in questions
        }

    def _matches(self, texts: Sequence[str]) -> dict[int, set[int]]:
        """Text -> the questions that it holds; texts that hold none have no entry."""
        words = self._hasher.words(texts)
        held = {
            text: {match.item for match in found if is_leak(match, self._index)}
            for text, found in find_matches(words, self._index, hasher=self._hasher).items()
        }
        return {text: questions for text, questions in held.items() if questions}
