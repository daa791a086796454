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

from frontload.data_tools.seeds import stream_bits

_NOT_WORD = re.compile(r"[\W_]+")
LONGEST_POWER = 4096  # ours: bytes of a word after which its powers begin again


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


class WordHasher:
    """Hashes that depend on the seed alone, not on the process or the machine."""

    def __init__(self, seed: int) -> None:
        bits = stream_bits(seed, "words").random_raw(256 + 2 + 2)
        self._value_of_byte = bits[:256]
        is_word = np.zeros(256, dtype=bool)
        is_word[128:] = True  # letters outside ASCII: everything else there is a space by now
        for byte in range(128):
            is_word[byte] = chr(byte).isalnum()
        self._is_word = is_word
        self._byte_powers = _powers(bits[256] | np.uint64(1), LONGEST_POWER)
        self._word_powers = _powers(bits[257] | np.uint64(1), 64)

    def words(self, texts: Sequence[str]) -> WordHashes:
        """The words of every text."""
        parts = [plain_words(text) for text in texts]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        joined = np.frombuffer(b"\n".join(parts) + b"\n", dtype=np.uint8)
        is_word = self._is_word[joined]
        starts = np.flatnonzero(is_word[1:] & ~is_word[:-1]) + 1
        if is_word[0]:
            starts = np.concatenate([[0], starts])
        text_starts = np.concatenate([[0], np.cumsum(lengths + 1)])
        offsets = np.searchsorted(starts, text_starts)
        places = np.flatnonzero(is_word)
        first = np.searchsorted(places, starts)
        sizes = np.diff(np.append(first, len(places)))
        within = np.arange(len(places)) - np.repeat(first, sizes)
        values = self._value_of_byte[joined[places]]
        values = values * self._byte_powers[within % LONGEST_POWER]
        hashes = np.add.reduceat(values, first) if len(first) else np.zeros(0, np.uint64)
        return WordHashes(hashes_W=mixed(hashes), offsets_N1=offsets)

    def grams(self, words: WordHashes, size: int) -> Grams:
        """Every run of `size` words that lies in one text."""
        counts = np.maximum(words.num_words - size + 1, 0)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        texts = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(texts)) - offsets[texts]
        firsts = words.offsets_N1[texts] + places
        hashes = np.zeros(len(texts), dtype=np.uint64)
        for step in range(size):
            hashes += words.hashes_W[firsts + step] * self._word_powers[step]
        return Grams(hashes_G=mixed(hashes), texts_G=texts, places_G=places, offsets_N1=offsets)


def mixed(values: np.ndarray) -> np.ndarray:
    """A permutation of 64 bits after which every bit depends on every bit.

    Source: splitmix64's finalizer, Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
            generators", section 5.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _powers(base: np.uint64, count: int) -> np.ndarray:
    return np.cumprod(np.concatenate([[np.uint64(1)], np.full(count - 1, base)]), dtype=np.uint64)
