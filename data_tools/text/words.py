"""Words of many texts as 64-bit hashes, and hashes of every run of n of them: numpy only.

A word is a run of letters, digits and their marks, in any case; what stands between words does not
count, so two texts are compared without their punctuation and layout. In scripts that put no space
between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each character is a word.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from frontload.data_tools.disk.seeds import stream_bits

LONGEST_WORD = 4096  # ours: bytes; what is longer is data
UNSPACED = (  # Unicode 16, Blocks.txt: first and last character of scripts without spaces
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
)
FIRST_UNSPACED_BYTE = 0xE0  # of their UTF-8
PIECE_BYTES = 1 << 17  # ours: hashed at a time, so that the sums stay in a core's cache


@dataclass(frozen=True, kw_only=True)
class WordHashes:
    """The words of n texts, end to end.

    Shapes: hashes_W uint64; offsets_N1 int64, text i is hashes_W[offsets[i]:offsets[i + 1]].
    """

    hashes_W: np.ndarray
    offsets_N1: np.ndarray
    begins_line_W: np.ndarray  # bool: the first word of a line

    @property
    def num_words(self) -> np.ndarray:
        return np.diff(self.offsets_N1)

    def of(self, kept: Sequence[int]) -> "WordHashes":
        """The words of some of the texts, in their order."""
        if len(kept) == len(self.offsets_N1) - 1:
            return self
        is_kept = np.zeros(len(self.offsets_N1) - 1, dtype=bool)
        is_kept[list(kept)] = True
        counts = self.num_words
        is_word_kept = np.repeat(is_kept, counts)
        return WordHashes(
            hashes_W=self.hashes_W[is_word_kept],
            offsets_N1=np.concatenate([[0], np.cumsum(counts[is_kept])]),
            begins_line_W=self.begins_line_W[is_word_kept],
        )


@dataclass(frozen=True, kw_only=True)
class Grams:
    """Hashes of the runs of words of n texts.

    Shapes: hashes_G uint64; firsts_G int64, the word that a run begins with, of all texts' words;
            offsets_N1 int64 as in WordHashes.
    """

    hashes_G: np.ndarray
    firsts_G: np.ndarray
    offsets_N1: np.ndarray

    def texts_of(self, chosen: np.ndarray) -> np.ndarray:
        """int64 [chosen]: the texts that these runs stand in."""
        return np.searchsorted(self.offsets_N1, chosen, side="right") - 1


def plain_words(text: str) -> bytes:
    """The words of a text in UTF-8, parted by what is no letter and no digit in ASCII."""
    if text.isascii():
        return text.lower().encode()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _between_words().sub(" ", folded.replace("_", " ")).encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1)
def _between_words() -> re.Pattern[str]:
    """What parts words: neither letter, digit nor _, nor a mark on one. Line breaks stay.

    A variation selector is no mark here: it changes how a character looks, not which it is.
    """
    marks = [
        one
        for one in map(chr, range(0x300, 0x1FFFF))
        if unicodedata.category(one).startswith("M") and not "\ufe00" <= one <= "\ufe0f"
    ]
    return re.compile(rf"[^\w\n{''.join(marks)}]+")


@lru_cache(maxsize=1)
def _begins_unspaced() -> np.ndarray:
    """bool [2^16]: whether two bytes of UTF-8 begin a character of a script without spaces."""
    found = np.zeros(1 << 16, dtype=bool)
    for first, last in UNSPACED:
        for number in range(first, last + 1, 64):  # the last byte of UTF-8 counts 64 characters
            lead, second = chr(number).encode()[:2]
            found[lead << 8 | second] = True
    return found


def normalise_question(question: str) -> str:
    """The form in which two questions are the same: compatibility characters, case, spaces."""
    if question.isascii():
        return " ".join(question.lower().split())
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
        starts, ends = _cut_long_words(*self._edges(joined))
        text_starts = np.concatenate([[1], 1 + np.cumsum(lengths + 1)])
        breaks = np.searchsorted(starts, np.flatnonzero(joined == ord("\n")))
        begins_line = np.zeros(len(starts) + 1, dtype=bool)
        begins_line[breaks] = True
        return WordHashes(
            hashes_W=self._hashes(joined, starts, ends),
            offsets_N1=np.searchsorted(starts, text_starts),
            begins_line_W=begins_line[:-1],
        )

    def _edges(self, joined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where words begin and end; a character of a script without spaces is a word."""
        is_word = self._is_word[joined]
        edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
        high = np.flatnonzero(joined >= FIRST_UNSPACED_BYTE)
        pairs = joined[high].astype(np.uint16) << 8 | joined[high + 1]
        alone = high[_begins_unspaced()[pairs]]
        if not len(alone):
            return edges[::2], edges[1::2]
        behind = alone + np.where(joined[alone] < 0xF0, 3, 4)  # as many bytes has the character
        is_start = np.zeros(len(joined), dtype=bool)
        is_start[edges[::2]] = is_start[alone] = True
        is_start[behind[is_word[behind]]] = True
        is_end = np.zeros(len(joined), dtype=bool)
        is_end[edges[1::2]] = is_end[behind] = True
        is_end[alone[is_word[alone - 1]]] = True
        return np.flatnonzero(is_start), np.flatnonzero(is_end)

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
        windows = max(len(words.hashes_W) - size + 1, 0)
        hashes = np.zeros(windows, dtype=np.uint64)
        term = np.empty_like(hashes)
        for step in range(size):
            np.multiply(words.hashes_W[step : step + windows], self._word_powers[step], out=term)
            hashes += term
        firsts = np.arange(offsets[-1]) + np.repeat(words.offsets_N1[:-1] - offsets[:-1], counts)
        return Grams(hashes_G=mixed(hashes[firsts]), firsts_G=firsts, offsets_N1=offsets)

    def runs(self, words: WordHashes, firsts: np.ndarray, *, size: int) -> np.ndarray:
        """The hashes of the runs of `size` words that begin with these words, as in `grams`."""
        hashes = np.zeros(len(firsts), dtype=np.uint64)
        for step in range(size):
            hashes += words.hashes_W[firsts + step] * self._word_powers[step]
        return mixed(hashes)


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
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _powers(base: int, count: int) -> np.ndarray:
    """uint64 [count]: 1, base, base^2 ... modulo 2^64."""
    return np.cumprod(np.array([1] + (count - 1) * [base], dtype=np.uint64), dtype=np.uint64)
