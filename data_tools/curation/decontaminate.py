"""The report of the rows that share text with evaluation items, benchmark by benchmark."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from frontload.data_tools.curation.items import Item
from frontload.data_tools.curation.matches import ItemIndex, Match, is_leak

EXAMPLES = 5  # ours: shown a benchmark
OVERLAP_BOUNDS = (20, 32, 50)  # words; 32: Shao et al. 2024, MassiveDS, drops longer overlaps


@dataclass(kw_only=True)
class RemovalReport:
    """What was found for each benchmark, over all rows."""

    items: Sequence[Item]
    index: ItemIndex
    items_hit: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    rows_found: Counter[str] = field(default_factory=Counter)
    rows_with_answer: Counter[str] = field(default_factory=Counter)
    weak_matches_kept: Counter[str] = field(default_factory=Counter)
    rows_by_source: Counter[tuple[str, str]] = field(default_factory=Counter)
    matches_kept: Counter[str] = field(default_factory=Counter)
    overlaps: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, matches: list[Match], *, source: str, file: str, row: int) -> None:
        """Counts one row that shares something with an item: once a benchmark."""
        best: dict[str, Match] = {}
        for match in matches:
            benchmark = self.items[match.item].benchmark
            if not is_leak(match, self.index):
                self.matches_kept[benchmark] += 1
                self.weak_matches_kept[benchmark] += bool(self.index.is_weak_I[match.item])
                continue
            self.items_hit[benchmark].add(match.item)
            if benchmark not in best or best[benchmark].overlap_words < match.overlap_words:
                best[benchmark] = match
        for benchmark, match in best.items():
            self.rows_found[benchmark] += 1
            self.rows_with_answer[benchmark] += match.has_answer
            self.rows_by_source[benchmark, source] += 1
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
                        "jaccard": round(match.jaccard, 4),
                        "has_answer": match.has_answer,
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
        weak = Counter(
            item.benchmark
            for item, is_weak in zip(self.items, self.index.is_weak_I.tolist(), strict=True)
            if is_weak
        )
        removes = self.index.rules.remove
        return {
            benchmark: {
                "items": counts[benchmark],
                "items_too_short": too_short[benchmark],
                "items_weak": weak[benchmark],
                "items_hit": len(self.items_hit[benchmark]),
                "rows_found": self.rows_found[benchmark],
                "rows_with_answer": self.rows_with_answer[benchmark],
                "rows_removed": self.rows_found[benchmark] * removes,
                "rows_removed_by_source": {
                    source: count * removes
                    for (name, source), count in sorted(self.rows_by_source.items())
                    if name == benchmark
                },
                "matches_kept": self.matches_kept[benchmark],
                "weak_matches_kept": self.weak_matches_kept[benchmark],
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
