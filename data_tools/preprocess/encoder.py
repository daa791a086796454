"""Texts to one array of token ids, by `tokenizers` or by gigatoken, the same ids either way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from frontload.data_tools.preprocess.request import EncoderChoice, SpecialText
from frontload.data_tools.preprocess.vocabulary import Spellings, Vocabulary, load_vocabulary

GROWTH_BYTES = 256 << 20  # ours: two workers and the parent stay under 1 GiB
PAGE_BYTES = 4096  # of /proc/self/statm on x86 and on most ARM kernels; larger pages renew later


class ParityError(Exception):
    """gigatoken failed, or gave other ids than `tokenizers`. Never shown: the run falls back."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Documents end to end.

    Shapes: tokens in the vocabulary's dtype; lengths int32 [documents], with the end of document.
    """

    tokens: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True, kw_only=True)
class EncoderRecipe:
    """What a worker needs to make its encoder."""

    tokenizer: Path
    choice: EncoderChoice
    special_text: SpecialText
    eod_id: int | None


class Encoder:
    """Encodes batches of texts; remembers nothing between them but gigatoken's cache of words."""

    def __init__(self, recipe: EncoderRecipe) -> None:
        self.vocabulary = load_vocabulary(recipe.tokenizer)
        self._recipe = recipe
        self._end = np.array(
            [] if recipe.eod_id is None else [recipe.eod_id], dtype=self.vocabulary.dtype
        )
        self.refused = refused_spellings(self.vocabulary, recipe.special_text)
        self._doubtful = doubtful_spellings(self.vocabulary, recipe.special_text)
        self._fast: Callable[[str], np.ndarray] | None = None
        if recipe.choice is EncoderChoice.GIGATOKEN:
            self._fast = fast_encoder(self.vocabulary)
        self._resident = _resident_bytes()  # with what a fork shares with its parent

    def encode(self, texts: Sequence[str]) -> Encoded:
        """The ids of texts that `refused` did not find.

        Raises: ParityError when gigatoken fails.
        """
        if not texts:
            return Encoded(tokens=np.zeros(0, self.vocabulary.dtype), lengths=np.zeros(0, np.int32))
        if self._fast is None:
            parts = _arrays(self.vocabulary, texts)
        elif self._doubtful:
            parts = [
                _arrays(self.vocabulary, [text])[0]
                if self._doubtful.found_in(text)
                else _guarded(self._fast, text)
                for text in texts
            ]
        else:
            parts = self._encode_fast(texts, self._fast)
        lengths = np.fromiter(map(len, parts), np.int32, len(parts)) + np.int32(len(self._end))
        if len(self._end):
            parts = list(chain.from_iterable((part, self._end) for part in parts))
        tokens = np.concatenate(parts, dtype=self.vocabulary.dtype, casting="unsafe")
        return Encoded(tokens=tokens, lengths=lengths)

    def _encode_fast(
        self, texts: Sequence[str], encode: Callable[[str], np.ndarray]
    ) -> list[np.ndarray]:
        try:
            return [encode(text) for text in texts]
        except BaseException as error:  # a panic of the library is no Exception
            raise _as_parity_error(error) from error

    def check(self, texts: Sequence[str]) -> int:
        """Compares gigatoken with `tokenizers` on the texts that it would be given; how many.

        Raises: ParityError at the first text whose ids differ.
        """
        if self._fast is None:
            return 0
        texts = [text for text in texts if not self._doubtful.found_in(text)]
        for text, expected in zip(texts, self.vocabulary.reference(texts), strict=True):
            self.compare(text, ids_digest(expected))
        return len(texts)

    def compare(self, text: str, digest: bytes) -> None:
        """Compares gigatoken's ids of one text with the `ids_digest` of those of `tokenizers`.

        Raises: ParityError when they differ.
        """
        assert self._fast is not None, "only gigatoken is compared"
        if ids_digest(_guarded(self._fast, text)) != digest:
            raise ParityError(f"other ids than tokenizers for {text[:60]!r}")

    def renew(self) -> None:
        """Drops gigatoken's cache of words when the process has grown."""
        if self._fast is not None and _resident_bytes() - self._resident > GROWTH_BYTES:
            fast_encoder.cache_clear()
            self._fast = None
            self._fast = fast_encoder(self.vocabulary)


def refused_spellings(vocabulary: Vocabulary, special_text: SpecialText) -> Spellings:
    """What no text may spell: the special tokens, unless they are to be encoded."""
    return Spellings(vocabulary.special if special_text is SpecialText.DROP else ())


def doubtful_spellings(vocabulary: Vocabulary, special_text: SpecialText) -> Spellings:
    """The added tokens that a text may spell: gigatoken does not strip around them as asked."""
    dropped = vocabulary.special if special_text is SpecialText.DROP else ()
    return Spellings(set(vocabulary.added) - set(dropped))


def ids_digest(ids: Sequence[int] | np.ndarray) -> bytes:
    """Sixteen bytes that other ids would not have."""
    return xxhash.xxh3_128_digest(np.ascontiguousarray(ids, dtype=np.uint32).data)


@lru_cache(maxsize=1)
def fast_encoder(vocabulary: Vocabulary) -> Callable[[str], np.ndarray]:
    """gigatoken's function from one text to uint32 ids.

    Encoding one by one costs 2 us a text and spares `awkward`, which takes 0.7 s to load.

    Raises: ParityError when gigatoken does not read the tokenizer.
    """
    try:
        import gigatoken

        return gigatoken.Tokenizer.from_json(vocabulary.data).backend.encode
    except BaseException as error:
        raise _as_parity_error(error) from error


def _guarded(encode: Callable[[str], np.ndarray], text: str) -> np.ndarray:
    try:
        return encode(text)
    except BaseException as error:
        raise _as_parity_error(error) from error


def _as_parity_error(error: BaseException) -> BaseException:
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
        return error
    return ParityError(f"gigatoken failed: {' '.join(str(error).split())[:200]}")


def _arrays(vocabulary: Vocabulary, texts: Sequence[str]) -> list[Any]:
    return [np.array(ids, dtype=vocabulary.dtype) for ids in vocabulary.reference(texts)]


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0  # no /proc: nothing is renewed
