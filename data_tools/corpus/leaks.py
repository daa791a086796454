"""Texts that hold a held-out question: the runs of words that `data curate` looks for."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import batched

from frontload.data_tools.curation.decontaminate import find_matches, is_leak
from frontload.data_tools.curation.items import Item, build_index
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

    def _matches(self, texts: Sequence[str]) -> set[int]:
        words = self._hasher.words(texts)
        found = find_matches(words, self._index, hasher=self._hasher)
        sizes = self._index.sizes_I
        return {
            text
            for text, matches in found.items()
            if any(is_leak(m, RULES, item_ngram_words=int(sizes[m.item])) for m in matches)
        }
