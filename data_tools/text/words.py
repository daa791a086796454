"""Words of many texts as 64-bit hashes, and hashes of every run of n of them: numpy only.

A word is a run of letters and digits, in any case; what stands between words does not count, so two
texts are compared without their punctuation and layout. Scripts without spaces (Chinese, Thai) come
out as few, long words.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frontload.data_tools.disk.seeds import stream_bits

_NOT_WORD = re.compile(r"[\W_]+")
LONGEST_WORD = 4096  # ours: bytes; what is longer is data, or text without spaces
PIECE_BYTES = 1 << 17  # ours: hashed at a time, so that the sums stay in a core's cache


@dataclass(frozen=True, kw_only=True)
class WordHashes:
    """The words of n texts, end to end.

    Shapes: hashes_W uint64; offsets_N1 int64, text i is hashes_W[offsets[i]:offsets[i + 1]].
    """

    hashes_W: np.ndarray
    offsets_N1: np.ndarray

    @property
    def num_words(self) -> np.ndarray:
        return np.diff(self.offsets_N1)


@dataclass(frozen=True, kw_only=True)
class Grams:
    """Hashes of the runs of words of n texts, with the place of each run's first word in its text.

    Shapes: hashes_G uint64; texts_G, places_G int64; offsets_N1 int64 as in WordHashes.
    """

    hashes_G: np.ndarray
    texts_G: np.ndarray
    places_G: np.ndarray
    offsets_N1: np.ndarray


def plain_words(text: str) -> bytes:
    """The words of a text in UTF-8, parted by what is no letter and no digit in ASCII."""
    if text.isascii():
        return text.lower().encode()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _NOT_WORD.sub(" ", folded).encode("utf-8", "surrogatepass")


def normalise_question(question: str) -> str:
    """The form in which two questions are the same: compatibility characters, case, spaces."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def question_key(question: str) -> str:
    """The form in which two questions ask the same: normalised, punctuation left out.

    A sign between digits stays, and one before a digit: `2 - 3` is not `2 + 3`, `2.5` is not `25`.
    """
    text = normalise_question(question)
    kept = [_kept_sign(text, at) if _is_punctuation(char) else char for at, char in enumerate(text)]
    return " ".join("".join(kept).split())


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P")


def _kept_sign(text: str, at: int) -> str:
    """What stays of a punctuation mark."""
    before, after = text[:at].rstrip()[-1:], text[at + 1 :].lstrip()[:1]
    is_tight = text[at - 1 : at].isdigit() and text[at + 1 : at + 2].isdigit()
    if text[at] in "-*/%":
        return text[at] if before.isdigit() or after.isdigit() else " "
    if is_tight and text[at] in ".:":
        return text[at]
    return "" if is_tight and text[at] == "," else " "


class WordHasher:
    """Hashes that depend on the seed alone, not on the process or the machine."""

    def __init__(self, seed: int) -> None:
        bits = stream_bits(seed, "words").random_raw(256 + 2)
        self._value_of_byte = bits[:256]
        self._is_word = np.array([byte >= 128 or chr(byte).isalnum() for byte in range(256)])
        base = int(bits[256]) | 1
        self._powers = _powers(base, PIECE_BYTES)
        self._undone = _powers(pow(base, -1, 1 << 64), PIECE_BYTES)
        self._word_powers = _powers(int(bits[257]) | 1, 64)

    def words(self, texts: Sequence[str]) -> WordHashes:
        """The words of every text."""
        parts = [plain_words(text) for text in texts]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        joined = np.frombuffer(b"\n" + b"\n".join(parts) + b"\n", dtype=np.uint8)
        is_word = self._is_word[joined]
        edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
        starts, ends = _cut_long_words(edges[::2], edges[1::2])
        text_starts = np.concatenate([[1], 1 + np.cumsum(lengths + 1)])
        return WordHashes(
            hashes_W=self._hashes(joined, starts, ends),
            offsets_N1=np.searchsorted(starts, text_starts),
        )

    def _hashes(self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The polynomial of each word's bytes: a difference of two sums, its power undone.

        Source: Karp, Rabin 1987, modulo 2^64; the base is odd, so its powers have inverses.
        """
        hashes = np.empty(len(starts), dtype=np.uint64)
        first = 0
        while first < len(starts):
            base = int(starts[first])
            last = int(np.searchsorted(ends, base + PIECE_BYTES, side="right"))
            values = self._value_of_byte[data[base : int(ends[last - 1])]]
            sums = np.zeros(len(values) + 1, dtype=np.uint64)
            np.cumsum(values * self._powers[: len(values)], out=sums[1:])
            here = starts[first:last] - base
            hashes[first:last] = sums[ends[first:last] - base] - sums[here]
            hashes[first:last] *= self._undone[here]
            first = last
        return mixed(hashes)

    def grams(self, words: WordHashes, size: int) -> Grams:
        """Every run of `size` words that lies in one text."""
        counts = np.maximum(words.num_words - size + 1, 0)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        texts = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(texts)) - offsets[texts]
        windows = max(len(words.hashes_W) - size + 1, 0)
        hashes = np.zeros(windows, dtype=np.uint64)
        for step in range(size):
            hashes += words.hashes_W[step : step + windows] * self._word_powers[step]
        firsts = words.offsets_N1[texts] + places
        return Grams(
            hashes_G=mixed(hashes[firsts]), texts_G=texts, places_G=places, offsets_N1=offsets
        )


def _cut_long_words(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words of at most LONGEST_WORD bytes: a longer one counts as several."""
    counts = (ends - starts + LONGEST_WORD - 1) // LONGEST_WORD
    if counts.max(initial=1) == 1:
        return starts, ends
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(starts, counts) + within * LONGEST_WORD
    return starts, np.minimum(np.repeat(ends, counts), starts + LONGEST_WORD)


def mixed(values: np.ndarray) -> np.ndarray:
    """A permutation of 64 bits after which every bit depends on every bit.

    Source: splitmix64's finalizer, Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
            generators", section 5.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _powers(base: int, count: int) -> np.ndarray:
    """uint64 [count]: 1, base, base^2 ... modulo 2^64."""
    return np.cumprod(np.array([1] + (count - 1) * [base], dtype=np.uint64), dtype=np.uint64)
