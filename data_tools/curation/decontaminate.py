"""Rows that hold an evaluation item: shared runs of words, the longest overlap, what goes."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from frontload.data_tools.curation.items import FILTER_BITS, Item, ItemIndex, Match
from frontload.data_tools.text.words import WordHasher, WordHashes
from frontload.recipes.runs.curation import Decontamination

EXAMPLES = 5  # ours: shown a benchmark
OVERLAP_BOUNDS = (20, 32, 50)  # words; 32: Shao et al. 2024, MassiveDS, drops longer overlaps


def find_matches(
    words: WordHashes, index: ItemIndex, *, hasher: WordHasher
) -> dict[int, list[Match]]:
    """Text -> what it shares with items, in the order of the items; texts that share nothing have
    no entry."""
    hits: dict[int, list[tuple[int, int]]] = defaultdict(list)  # text -> (place, n-gram)
    for size in index.sizes:
        grams = hasher.grams(words, size)
        top = (grams.hashes_G >> np.uint64(64 - FILTER_BITS)).astype(np.int64)
        maybe = np.flatnonzero(index.is_present[top])
        found = np.searchsorted(index.hashes_G, grams.hashes_G[maybe])
        found = np.minimum(found, len(index.hashes_G) - 1)
        is_hit = index.hashes_G[found] == grams.hashes_G[maybe]
        chosen, numbers = maybe[is_hit], found[is_hit]
        for text, place, number in zip(
            grams.texts_G[chosen].tolist(),
            grams.places_G[chosen].tolist(),
            numbers.tolist(),
            strict=True,
        ):
            hits[text].append((place, number))
    return {text: _matches(found, index) for text, found in sorted(hits.items())}


def _matches(hits: list[tuple[int, int]], index: ItemIndex) -> list[Match]:
    """Hits of one text as matches: on a diagonal, places in a row are one longer overlap."""
    by_item: dict[int, set[tuple[int, int]]] = defaultdict(set)  # item -> (place, item's place)
    for place, number in hits:
        for owner in range(int(index.owners_G1[number]), int(index.owners_G1[number + 1])):
            by_item[int(index.items_O[owner])].add((place, int(index.places_O[owner])))
    return [
        Match(
            item=item,
            overlap_words=longest_run(pairs) + int(index.sizes_I[item]) - 1,
            share=len({own for _, own in pairs}) / int(index.grams_I[item]),
        )
        for item, pairs in sorted(by_item.items())
    ]


def longest_run(pairs: set[tuple[int, int]]) -> int:
    """The longest chain of pairs of which each is one further in both places."""
    longest = 0
    for first, second in pairs:
        if (first - 1, second - 1) in pairs:
            continue
        length = 1
        while (first + length, second + length) in pairs:
            length += 1
        longest = max(longest, length)
    return longest


def is_leak(match: Match, rules: Decontamination, *, item_ngram_words: int) -> bool:
    """Whether a row with this match goes: a long overlap, or much of the item.

    A short item is one n-gram, so it is either wholly there or not.
    """
    is_short = item_ngram_words < rules.ngram_words
    return is_short or match.overlap_words >= rules.overlap_words or match.share >= rules.item_share


@dataclass(kw_only=True)
class RemovalReport:
    """What was found for each benchmark, over all rows."""

    items: list[Item]
    index: ItemIndex
    rules: Decontamination
    items_hit: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    rows_removed: Counter[str] = field(default_factory=Counter)
    rows_removed_by_source: Counter[tuple[str, str]] = field(default_factory=Counter)
    matches_kept: Counter[str] = field(default_factory=Counter)
    overlaps: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, matches: list[Match], *, source: str, file: str, row: int) -> None:
        """Counts one row that shares something with an item: once a benchmark."""
        best: dict[str, Match] = {}
        for match in matches:
            if not is_leak(match, self.rules, item_ngram_words=int(self.index.sizes_I[match.item])):
                self.matches_kept[self.items[match.item].benchmark] += 1
                continue
            benchmark = self.items[match.item].benchmark
            self.items_hit[benchmark].add(match.item)
            if benchmark not in best or best[benchmark].overlap_words < match.overlap_words:
                best[benchmark] = match
        for benchmark, match in best.items():
            self.rows_removed[benchmark] += 1
            self.rows_removed_by_source[benchmark, source] += 1
            self.overlaps[benchmark][_bound(match.overlap_words)] += 1
            if len(self.examples[benchmark]) < EXAMPLES:
                self.examples[benchmark].append(
                    {
                        "source": source,
                        "file": file,
                        "row": row,
                        "item": self.items[match.item].name,
                        "overlap_words": match.overlap_words,
                        "item_share": round(match.share, 4),
                        "item_text": self.items[match.item].text[:200],
                    }
                )

    def to_json(self) -> dict[str, Any]:
        """Benchmark -> items, items hit, rows removed, longest overlaps, examples."""
        too_short = Counter(
            item.benchmark
            for item, size in zip(self.items, self.index.sizes_I.tolist(), strict=True)
            if size == 0
        )
        counts = Counter(item.benchmark for item in self.items)
        return {
            benchmark: {
                "items": counts[benchmark],
                "items_too_short": too_short[benchmark],
                "items_hit": len(self.items_hit[benchmark]),
                "rows_removed": self.rows_removed[benchmark],
                "rows_removed_by_source": {
                    source: count
                    for (name, source), count in sorted(self.rows_removed_by_source.items())
                    if name == benchmark
                },
                "matches_kept": self.matches_kept[benchmark],
                "longest_overlap_words": [
                    {"from": low, "rows": self.overlaps[benchmark][low]}
                    for low in (0, *OVERLAP_BOUNDS)
                ],
                "examples": self.examples[benchmark],
            }
            for benchmark in counts
        }


def _bound(words: int) -> int:
    return max((bound for bound in OVERLAP_BOUNDS if bound <= words), default=0)
