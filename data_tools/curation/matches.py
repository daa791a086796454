"""The index of items' runs of words, and what a text shares with them: which rows go."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from frontload.data_tools.curation.items import Item
from frontload.data_tools.text.words import WordHasher, WordHashes, mixed
from frontload.recipes.runs.curation import Decontamination

FILTER_BITS = 24  # ours: a 16 MiB table of which 1M n-grams fill 6%, so few are looked up in vain


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a row shares with one item."""

    item: int
    overlap_words: int  # longest run of words that both have
    share: float  # of the item's n-grams that stand in the row
    jaccard: float = 0.0  # n-grams of both, of all that one of them has
    has_answer: bool = False  # the item's answer follows it in the row


class Hit(NamedTuple):
    """One n-gram that a text and an item have."""

    text: int
    place: int  # in the text
    item: int
    own_place: int  # in the item
    number: int  # of the n-gram


@dataclass(frozen=True, kw_only=True)
class GramTable:
    """Sorted hashes of runs of words, and the items and places that each stands at.

    Shapes: hashes_G uint64; owners_G1 int64, hash g stands at [owners[g], owners[g + 1]) of items_O
            and places_O int32.
    """

    hashes_G: np.ndarray
    owners_G1: np.ndarray
    items_O: np.ndarray
    places_O: np.ndarray

    @classmethod
    def of(cls, hashes: np.ndarray, *, items: np.ndarray, places: np.ndarray) -> "GramTable":
        """The table of runs given one by one."""
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))[: len(ordered)]
        return cls(
            hashes_G=ordered[firsts],
            owners_G1=np.append(firsts, len(hashes)),
            items_O=items[order].astype(np.int32),
            places_O=places[order].astype(np.int32),
        )

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(places in `hashes`, numbers of the table's hashes) of those that it has."""
        if not len(self.hashes_G):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        found = np.minimum(np.searchsorted(self.hashes_G, hashes), len(self.hashes_G) - 1)
        chosen = np.flatnonzero(self.hashes_G[found] == hashes)
        return chosen, found[chosen]

    def owners(self, number: int) -> Iterator[tuple[int, int]]:
        """(item, place in it) of each standing of a hash."""
        here = slice(int(self.owners_G1[number]), int(self.owners_G1[number + 1]))
        yield from zip(self.items_O[here].tolist(), self.places_O[here].tolist(), strict=True)


@dataclass(frozen=True, kw_only=True)
class ItemIndex:
    """What is looked for of each item.

    Shapes: words_I, grams_I, distinct_I int32: words of an item, its n-grams, its distinct ones;
            sizes_I int32: words of its n-grams, fewer than `ngram_words` for a short item that is
            looked for as a whole, 0 for one that is not looked for; is_weak_I bool.
    """

    rules: Decontamination
    grams: GramTable
    lines: GramTable  # items that are looked for as whole lines
    sizes: tuple[int, ...]  # of `grams`, ascending
    longest_line: int
    begins: np.ndarray  # bool [2^FILTER_BITS]: some n-gram's first sizes[0] words hash to this
    words_I: np.ndarray
    grams_I: np.ndarray
    distinct_I: np.ndarray
    sizes_I: np.ndarray
    is_weak_I: np.ndarray
    answers: dict[int, np.ndarray]  # item -> hashes of its answer's words


def build_index(items: Sequence[Item], rules: Decontamination, *, hasher: WordHasher) -> ItemIndex:
    """The index of the items' n-grams; an item too short to look for has no n-gram in it."""
    words = hasher.words([item.text for item in items])
    num_words = words.num_words
    sizes_I = np.minimum(num_words, rules.ngram_words)
    is_short = num_words < rules.shortest_item_words
    is_line = is_short & (num_words >= max(rules.line_item_words, 1)) & (rules.line_item_words > 0)
    sizes_I[is_short & ~is_line] = 0
    sizes = tuple(int(size) for size in np.unique(sizes_I[~is_short]) if size)
    texts = np.repeat(np.arange(len(items)), num_words)
    places = np.arange(len(texts)) - words.offsets_N1[texts]
    begins = np.zeros(1 << FILTER_BITS, dtype=bool)
    hashes, firsts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for size in sizes:
        first = np.flatnonzero((sizes_I == size)[texts] & (places + size <= num_words[texts]))
        first = first[~is_short[texts[first]]]
        hashes.append(hasher.runs(words, first, size=size))
        firsts.append(first)
        begins[_filter_place(hasher.runs(words, first, size=sizes[0]))] = True
    flat = np.concatenate(firsts)
    grams = GramTable.of(np.concatenate(hashes), items=texts[flat], places=places[flat])
    numbers = np.repeat(np.arange(len(grams.hashes_G)), np.diff(grams.owners_G1))
    pairs = np.sort(numbers * max(len(items), 1) + grams.items_O)
    is_new = np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]
    distinct = pairs[is_new] % max(len(items), 1)
    of_line = np.flatnonzero(is_line)
    return ItemIndex(
        rules=rules,
        grams=grams,
        lines=_line_table(words, of_line, hasher=hasher),
        sizes=sizes,
        longest_line=int(num_words[of_line].max(initial=0)),
        begins=begins,
        words_I=num_words.astype(np.int32),
        grams_I=np.bincount(texts[flat], minlength=len(items)).astype(np.int32),
        distinct_I=np.bincount(distinct, minlength=len(items)).astype(np.int32),
        sizes_I=sizes_I.astype(np.int32),
        is_weak_I=_weak_items(words, rules),
        answers=_answers(items, hasher=hasher),
    )


def _filter_place(hashes: np.ndarray) -> np.ndarray:
    return (hashes >> np.uint64(64 - FILTER_BITS)).astype(np.int64)


def _line_table(words: WordHashes, items: np.ndarray, *, hasher: WordHasher) -> GramTable:
    firsts, sizes = words.offsets_N1[items], words.num_words[items]
    return GramTable.of(
        _line_hashes(words, firsts, sizes=sizes, hasher=hasher),
        items=items,
        places=np.zeros(len(items), np.int64),
    )


def _line_hashes(
    words: WordHashes, firsts: np.ndarray, *, sizes: np.ndarray, hasher: WordHasher
) -> np.ndarray:
    """The hashes of lines of so many words each: lines of other sizes are never equal."""
    found = np.zeros(len(firsts), dtype=np.uint64)
    for size in np.unique(sizes).tolist():
        own = sizes == size
        found[own] = mixed(hasher.runs(words, firsts[own], size=size) + np.uint64(size))
    return found


def _weak_items(words: WordHashes, rules: Decontamination) -> np.ndarray:
    """bool [items]: fewer than `rare_words` of its words stand in few items."""
    count = len(words.num_words)
    if not rules.rare_words:
        return np.zeros(count, dtype=bool)
    texts = np.repeat(np.arange(count), words.num_words)
    numbers = np.unique(words.hashes_W, return_inverse=True)[1]
    pairs = np.unique(numbers * count + texts)  # each word once an item
    of_word, of_text = np.divmod(pairs, max(count, 1))
    is_rare = np.bincount(of_word)[of_word] <= rules.rare_word_items
    rare = np.bincount(of_text[is_rare], minlength=count)
    return rare < rules.rare_words


def _answers(items: Sequence[Item], *, hasher: WordHasher) -> dict[int, np.ndarray]:
    words = hasher.words([item.answer for item in items])
    return {
        number: words.hashes_W[words.offsets_N1[number] : words.offsets_N1[number + 1]]
        for number in np.flatnonzero(words.num_words).tolist()
    }


def find_matches(
    words: WordHashes, index: ItemIndex, *, hasher: WordHasher
) -> dict[int, list[Match]]:
    """Text -> what it shares with items, in the order of the items; texts that share nothing have
    no entry."""
    hits: dict[int, dict[int, list[Hit]]] = defaultdict(lambda: defaultdict(list))
    for found in (_gram_hits, _line_hits):
        for hit in found(words, index, hasher=hasher):
            hits[hit.text][hit.item].append(hit)
    found = _Row(words, index, hasher=hasher)
    return {
        text: [found.match(of_item) for _, of_item in sorted(of_text.items())]
        for text, of_text in sorted(hits.items())
    }


def _gram_hits(words: WordHashes, index: ItemIndex, *, hasher: WordHasher) -> Iterator[Hit]:
    """The items' n-grams in the texts: looked for where a text has the first words of one."""
    if not index.sizes:
        return
    grams = hasher.grams(words, index.sizes[0])
    maybe = np.flatnonzero(index.begins[_filter_place(grams.hashes_G)])
    texts, firsts = grams.texts_of(maybe), grams.firsts_G[maybe]
    left = words.offsets_N1[texts + 1] - firsts
    for size in index.sizes:
        fits = np.flatnonzero(left >= size)
        chosen, numbers = index.grams.find(hasher.runs(words, firsts[fits], size=size))
        yield from _hits(
            words,
            index.grams,
            texts=texts[fits[chosen]],
            numbers=numbers,
            firsts=firsts[fits[chosen]],
        )


def _line_hits(words: WordHashes, index: ItemIndex, *, hasher: WordHasher) -> Iterator[Hit]:
    """The lines that are an item."""
    if not index.longest_line:
        return
    firsts = np.flatnonzero(words.begins_line_W)
    sizes = np.diff(np.append(firsts, len(words.hashes_W)))
    is_short = sizes <= index.longest_line
    firsts, sizes = firsts[is_short], sizes[is_short]
    chosen, numbers = index.lines.find(_line_hashes(words, firsts, sizes=sizes, hasher=hasher))
    texts = np.searchsorted(words.offsets_N1, firsts[chosen], side="right") - 1
    yield from _hits(words, index.lines, texts=texts, numbers=numbers, firsts=firsts[chosen])


def _hits(
    words: WordHashes,
    table: GramTable,
    *,
    texts: np.ndarray,
    numbers: np.ndarray,
    firsts: np.ndarray,
) -> Iterator[Hit]:
    places = firsts - words.offsets_N1[texts]
    for text, place, number in zip(texts.tolist(), places.tolist(), numbers.tolist(), strict=True):
        for item, own in table.owners(number):
            yield Hit(text, place, item, own, number)


class _Row:
    """Hits of one item in one text as a match."""

    def __init__(self, words: WordHashes, index: ItemIndex, *, hasher: WordHasher) -> None:
        self._words, self._index, self._hasher = words, index, hasher

    def match(self, hits: list[Hit]) -> Match:
        """On a diagonal, places in a row are one longer overlap."""
        text, item, index = hits[0].text, hits[0].item, self._index
        size = int(index.sizes_I[item])
        if is_line := not index.grams_I[item]:
            size = int(index.words_I[item])
        pairs = {(hit.place, hit.own_place) for hit in hits}
        shared = len({hit.own_place for hit in hits})
        both = len({hit.number for hit in hits})
        return Match(
            item=item,
            overlap_words=longest_run(pairs) + size - 1,
            share=1.0 if is_line else shared / int(index.grams_I[item]),
            jaccard=both
            / (self._distinct(text, size) + max(int(index.distinct_I[item]), 1) - both),
            has_answer=self._has_answer(text, item, begins={place - own for place, own in pairs}),
        )

    def _distinct(self, text: int, size: int) -> int:
        """The distinct n-grams of a text."""
        start, stop = self._words.offsets_N1[text : text + 2].tolist()
        firsts = np.arange(start, stop - size + 1)
        return len(np.unique(self._hasher.runs(self._words, firsts, size=size)))

    def _has_answer(self, text: int, item: int, *, begins: set[int]) -> bool:
        """Whether the answer's words stand soon behind the item, which begins at these places."""
        answer = self._index.answers.get(item)
        if answer is None:
            return False
        start, stop = self._words.offsets_N1[text : text + 2].tolist()
        for begin in begins:
            first = max(start + begin + int(self._index.words_I[item]), start)
            last = min(first + self._index.rules.answer_within_words, stop) - len(answer)
            behind = self._words.hashes_W[first : last + len(answer)]
            if any(
                np.array_equal(behind[at : at + len(answer)], answer)
                for at in np.flatnonzero(behind == answer[0]).tolist()
            ):
                return True
        return False


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


def is_leak(match: Match, index: ItemIndex) -> bool:
    """Whether a row with this match holds the item: a long overlap, or much of it.

    A short item is one n-gram, so it is either wholly there or not. Where an answer is needed, an
    item that states none counts by its text, unless it is weak.
    """
    rules, is_weak = index.rules, bool(index.is_weak_I[match.item])
    is_short = index.sizes_I[match.item] < rules.ngram_words
    is_much = 0 < rules.item_share <= match.share
    is_like = 0 < rules.item_jaccard <= match.jaccard
    if not (is_short or match.overlap_words >= rules.overlap_words or is_much or is_like):
        return False
    if is_weak:
        return rules.needs_answer != "never" and match.has_answer
    return rules.needs_answer != "always" or match.has_answer or match.item not in index.answers
