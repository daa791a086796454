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
PROBES = (  # ours: beginnings and ends that a tokenizer could take for a neighbour's
    *("a", " a", "a ", "a  ", "  a", "\n", "a\n", "a \n\n", "\na", "\t", " \n ", "-", "--", "."),
    *("'s", "s'", "1", "12", "12 3", "<", "<|", "|>", "aB", "\u00e9", "\u65e5", "\u200b", "\u00a0"),
)
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
    text_bytes: int  # of the texts in UTF-8


@dataclass(frozen=True, kw_only=True)
class EncoderRecipe:
    """What a worker needs to make its encoder."""

    tokenizer: Path
    choice: EncoderChoice
    special_text: SpecialText
    eod: tuple[str, int] | None  # the token that ends a document, and its id
    joins: bool = False  # a batch is one text with that token between: `Encoder.can_join` said so


class Encoder:
    """Encodes batches of texts; remembers nothing between them but gigatoken's cache of words."""

    def __init__(self, recipe: EncoderRecipe) -> None:
        self.vocabulary = load_vocabulary(recipe.tokenizer)
        self._recipe = recipe
        self._end = np.array([recipe.eod[1]] if recipe.eod else [], dtype=self.vocabulary.dtype)
        self.refused = refused_spellings(self.vocabulary, recipe.special_text)
        self._doubtful = doubtful_spellings(self.vocabulary, recipe.special_text)
        self._fast: Callable[..., np.ndarray] | None = None
        if recipe.choice is EncoderChoice.GIGATOKEN:
            self._fast = fast_encoder(self.vocabulary)
        self._resident = _resident_bytes()  # with what a fork shares with its parent

    def encode(self, texts: Sequence[str]) -> Encoded:
        """The ids of texts that `refused` did not find.

        Raises: ParityError when gigatoken fails.
        """
        if not texts:
            nothing = np.zeros(0, self.vocabulary.dtype)
            return Encoded(tokens=nothing, lengths=np.zeros(0, np.int32), text_bytes=0)
        if self._fast is None:
            return self._end_to_end(texts, _arrays(self.vocabulary, texts))
        if self._doubtful:
            doubtful = [self._doubtful.found_in(text) for text in texts]
            if any(doubtful):
                return self._end_to_end(texts, self._encode_by_turns(texts, doubtful, self._fast))
        if self._recipe.joins and (joined := self._encode_joined(texts, self._fast)):
            return joined
        return self._end_to_end(texts, self._encode_fast(texts, self._fast))

    def _end_to_end(self, texts: Sequence[str], parts: list[np.ndarray]) -> Encoded:
        lengths = np.fromiter(map(len, parts), np.int32, len(parts)) + np.int32(len(self._end))
        if len(self._end):
            parts = list(chain.from_iterable((part, self._end) for part in parts))
        tokens = np.concatenate(parts, dtype=self.vocabulary.dtype, casting="unsafe")
        return Encoded(tokens=tokens, lengths=lengths, text_bytes=sum(map(utf8_bytes, texts)))

    def _encode_by_turns(
        self, texts: Sequence[str], doubtful: Sequence[bool], encode: Callable[..., np.ndarray]
    ) -> list[np.ndarray]:
        """A text that spells an added token by `tokenizers`, every other by gigatoken."""
        return [
            _arrays(self.vocabulary, [text])[0] if is_doubtful else _guarded(encode, text)
            for text, is_doubtful in zip(texts, doubtful, strict=True)
        ]

    def _encode_joined(
        self, texts: Sequence[str], encode: Callable[..., np.ndarray]
    ) -> Encoded | None:
        """The texts as one, which costs a fifth less; None where they cannot be told apart again.

        A text that spells the end of a document itself makes one end too many.
        """
        assert self._recipe.eod is not None, "only texts with ends are joined"
        end = self._recipe.eod[0].encode()
        joined = end.join([*map(str.encode, texts), b""])
        found = _guarded(encode, joined)
        ends = np.flatnonzero(found == self._recipe.eod[1])
        if len(ends) != len(texts):
            return None
        return Encoded(
            tokens=found.astype(self.vocabulary.dtype),
            lengths=np.diff(ends, prepend=-1).astype(np.int32),
            text_bytes=len(joined) - len(texts) * len(end),
        )

    def can_join(self, texts: Sequence[str]) -> bool:
        """Whether gigatoken gives these texts, and our probes, the same ids as one text.

        A tokenizer may strip around its end of document, or put a space before its first word.
        """
        if self._fast is None or self._recipe.eod is None:
            return False
        if not stands_alone(self._recipe.eod[0], self.vocabulary.added):
            return False
        texts = [
            text
            for text in (*PROBES, *texts)
            if not (self._doubtful.found_in(text) or self.refused.found_in(text))
        ]
        try:
            joined = self._encode_joined(texts, self._fast)
            apart = self._end_to_end(texts, self._encode_fast(texts, self._fast))
        except ParityError:
            return False  # what the gate makes of it is its own
        return joined is not None and (
            np.array_equal(joined.tokens, apart.tokens)
            and np.array_equal(joined.lengths, apart.lengths)
        )

    def _encode_fast(
        self, texts: Sequence[str], encode: Callable[..., np.ndarray]
    ) -> list[np.ndarray]:
        try:
            return [encode(text) for text in texts]
        except BaseException as error:  # a panic of the library is no Exception
            raise _as_parity_error(error) from error

    def check(self, texts: Sequence[str]) -> None:
        """Compares gigatoken with `tokenizers` on the texts that it would be given.

        Raises: ParityError at the first text whose ids differ.
        """
        if self._fast is None:
            return
        texts = [text for text in texts if not self._doubtful.found_in(text)]
        for text, expected in zip(texts, self.vocabulary.reference(texts), strict=True):
            self.compare(text, ids_digest(expected))

    def check_encoded(self, texts: Sequence[str], encoded: Encoded, *, most_characters: int) -> int:
        """Compares the ids of the last text of at most that length with those of `tokenizers`.

        Returns: how many were compared, one or none.

        Raises: ParityError when they differ.
        """
        if self._fast is None:
            return 0
        for number in range(len(texts) - 1, -1, -1):
            text = texts[number]
            if len(text) <= most_characters and not self._doubtful.found_in(text):
                stop = int(encoded.lengths[: number + 1].sum(dtype=np.int64)) - len(self._end)
                start = stop - int(encoded.lengths[number]) + len(self._end)
                [expected] = self.vocabulary.reference([text])
                _require_same(text, encoded.tokens[start:stop], ids_digest(expected))
                return 1
        return 0

    def compare(self, text: str, digest: bytes) -> None:
        """Compares gigatoken's ids of one text with the `ids_digest` of those of `tokenizers`.

        Raises: ParityError when they differ.
        """
        assert self._fast is not None, "only gigatoken is compared"
        _require_same(text, _guarded(self._fast, text), digest)

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


def stands_alone(end: str, added: Sequence[str]) -> bool:
    """Whether a text before `end` leaves it where it is: behind "a#", "##" is found one too early.

    A token that begins in the text and ends in `end` or behind it would be taken first. One that is
    not added is a word like others: it may melt into its neighbours.
    """
    return end in added and not any(
        (token != end and end in token)
        or any(token.endswith(end[:size]) for size in range(1, min(len(end), len(token))))
        for token in added
    )


def utf8_bytes(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _require_same(text: str, ids: np.ndarray, digest: bytes) -> None:
    if ids_digest(ids) != digest:
        raise ParityError(f"other ids than tokenizers for {text[:60]!r}")


def ids_digest(ids: Sequence[int] | np.ndarray) -> bytes:
    """Sixteen bytes that other ids would not have."""
    return xxhash.xxh3_128_digest(np.ascontiguousarray(ids, dtype=np.uint32).data)


@lru_cache(maxsize=1)
def fast_encoder(vocabulary: Vocabulary) -> Callable[..., np.ndarray]:
    """gigatoken's function from one text, or its UTF-8, to uint32 ids.

    Encoding a text at a time spares `awkward`, which takes 0.7 s to load.

    Raises: ParityError when gigatoken does not read the tokenizer.
    """
    try:
        import gigatoken

        return gigatoken.Tokenizer.from_json(vocabulary.data).backend.encode
    except BaseException as error:
        raise _as_parity_error(error) from error


def _guarded(encode: Callable[..., np.ndarray], text: str | bytes) -> np.ndarray:
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
