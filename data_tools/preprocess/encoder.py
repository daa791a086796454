"""Texts to one array of token ids, by `tokenizers` or by gigatoken, the same ids either way."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from frontload.data_tools.preprocess.added import (
    Watch,
    doubtful_spellings,
    new_watch,
    probes_of_spelled,
    refused_spellings,
    stands_alone,
)
from frontload.data_tools.preprocess.request import EncoderChoice, SpecialText
from frontload.data_tools.preprocess.vocabulary import Vocabulary, in_slices, load_vocabulary
from frontload.data_tools.text.code_points import CodePoints

GROWTH_BYTES = 256 << 20  # ours: two workers and the parent stay under 1 GiB
PROBES = (  # ours: beginnings and ends that a tokenizer could take for a neighbour's
    *("a", " a", "a ", "a  ", "  a", "\n", "a\n", "a \n\n", "\na", "\t", " \n ", "-", "--", "."),
    *("'s", "s'", "1", "12", "12 3", "<", "<|", "|>", "aB", "\u00e9", "\u65e5", "\u200b", "\u00a0"),
)
CHECKED_CHARACTERS = 20_000  # ours: at most so long is a text that is compared later, 10 ms
MOST_IDS = 10**7  # ours: no vocabulary is near; gigatoken takes 16 bytes an id, used or not
HUGE_ID = re.compile(rb'"id"\s*:\s*\d{8}')  # of an added token; all of the JSON takes 25 ms
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
    refused: tuple[int, ...] = ()  # the texts, counted from 0, that spell what they may not
    empty: tuple[int, ...] = ()  # and those without an id: neither gave a document


@dataclass(frozen=True, kw_only=True)
class EncoderRecipe:
    """What a worker needs to make its encoder."""

    tokenizer: Path
    choice: EncoderChoice
    special_text: SpecialText
    eod: tuple[str, int] | None  # the token that ends a document, and its id
    around: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # ids before and behind each text
    keeps_empty: bool = False  # whether a text that gives no id is one of no tokens
    joins: bool = False  # a batch is one text with that token between: `Encoder.can_join` said so

    def vocabulary(self) -> Vocabulary:
        """The tokenizer, which knows no special token where their letters are text."""
        return load_vocabulary(self.tokenizer, special_text=self.special_text)


class Encoder:
    """Encodes batches of texts; remembers nothing between them but gigatoken's cache of words."""

    def __init__(self, recipe: EncoderRecipe) -> None:
        self.vocabulary = recipe.vocabulary()
        self._recipe = recipe
        self._end = np.array([recipe.eod[1]] if recipe.eod else [], dtype=self.vocabulary.dtype)
        self._refused = refused_spellings(self.vocabulary, recipe.special_text)
        self._doubtful = doubtful_spellings(self.vocabulary, recipe.special_text)
        self._code_points = CodePoints(self.vocabulary.reference, self._all_fast)
        self._fast: Callable[..., np.ndarray] | None = None
        self._watch: Watch | None = None
        if recipe.choice is EncoderChoice.GIGATOKEN:
            self._fast = fast_encoder(self.vocabulary)
        if recipe.joins:
            self._watch = self._new_watch()
        self._resident = _resident_bytes()  # with what a fork shares with its parent

    def encode(self, texts: Sequence[str]) -> Encoded:
        """The ids of the texts that spell no token that they may not spell.

        Raises: ParityError when gigatoken fails.
        """
        if self._watch and texts and (joined := self._encode_joined(texts, self._watch)):
            return self._framed(joined)
        return self._framed(self._encode_apart(texts))

    def _encode_apart(self, texts: Sequence[str]) -> Encoded:
        refused = [number for number, text in enumerate(texts) if self._refused.found_in(text)]
        kept = _without(range(len(texts)), refused)
        texts = _without(texts, refused)
        if self._fast is None:
            parts = _arrays(self.vocabulary, texts)
        else:
            parts = [self._encode_one(text, self._fast) for text in texts]
        bare = [number for number, part in enumerate(parts) if not len(part)]
        if bare and not self._recipe.keeps_empty:
            parts, texts = _without(parts, bare), _without(texts, bare)
        else:
            bare = []
        if len(self._end):
            parts = [np.concatenate([part, self._end]) for part in parts]
        empty = [kept[number] for number in bare]
        return self._end_to_end(parts, texts=texts, refused=refused, empty=empty)

    def _end_to_end(
        self,
        parts: Sequence[np.ndarray],
        *,
        texts: Sequence[str],
        refused: Sequence[int],
        empty: Sequence[int],
    ) -> Encoded:
        dtype = self.vocabulary.dtype
        nothing = np.zeros(0, dtype)
        return Encoded(
            tokens=np.concatenate(parts or [nothing], dtype=dtype, casting="unsafe"),
            lengths=np.fromiter(map(len, parts), np.int32, len(parts)),
            text_bytes=sum(map(utf8_bytes, texts)),
            refused=tuple(refused),
            empty=tuple(empty),
        )

    def _framed(self, encoded: Encoded) -> Encoded:
        """The documents with the ids that stand around each of them, the end of document last."""
        before, behind = self._recipe.around
        if not (before or behind):
            return encoded
        stops = np.cumsum(encoded.lengths, dtype=np.int64)
        inner_stops = stops - len(self._end)
        starts = stops - encoded.lengths
        places = np.concatenate(
            [np.repeat(inner_stops, len(behind)), np.repeat(starts, len(before))]
        )
        ids = np.concatenate([np.tile(behind, len(stops)), np.tile(before, len(stops))])
        tokens = np.insert(encoded.tokens, places, ids.astype(encoded.tokens.dtype))
        lengths = encoded.lengths + np.int32(len(before) + len(behind))
        return replace(encoded, tokens=tokens, lengths=lengths)

    def _encode_one(self, text: str, encode: Callable[..., np.ndarray]) -> np.ndarray:
        if self._is_doubtful(text):
            return _arrays(self.vocabulary, [text])[0]
        return _guarded(encode, text)

    def _is_doubtful(self, text: str) -> bool:
        """Whether gigatoken is not asked: a token is spelled, or a character known otherwise."""
        if self._doubtful.found_in(text):
            return True
        return not text.isascii() and bool(self._code_points.doubtful(text.encode()))

    def _all_fast(self, texts: Sequence[str]) -> list[list[int]]:
        assert self._fast is not None, "characters are tried with gigatoken"
        return [_guarded(self._fast, text).tolist() for text in texts]

    def _encode_joined(self, texts: Sequence[str], watch: Watch) -> Encoded | None:
        """The texts as one, which costs a fifth less; None where they cannot be told apart again.

        A text that spells the end of a document itself makes one end too many.
        """
        assert self._recipe.eod is not None, "only texts with ends are joined"
        assert self._fast is not None, "only gigatoken is given texts as one"
        end = self._recipe.eod[0].encode()
        joined = end.join([*map(str.encode, texts), b""])
        ids = _guarded(self._fast, joined)
        places = watch.places(ids)
        is_end = ids[places] == self._recipe.eod[1]
        ends = places[is_end]
        if len(ends) != len(texts):
            return None
        encoded = Encoded(
            tokens=ids.astype(self.vocabulary.dtype),
            lengths=np.diff(ends, prepend=-1).astype(np.int32),
            text_bytes=len(joined) - len(texts) * len(end),
        )
        suspects = set(np.searchsorted(ends, places[~is_end]).tolist())
        suspects.update(np.flatnonzero(encoded.lengths == len(self._end)).tolist())
        beyond = "".join(text for text in texts if not text.isascii()).encode()
        if odd := self._code_points.doubtful(beyond):
            suspects.update(n for n, text in enumerate(texts) if not odd.isdisjoint(text))
        return self._look_again(texts, encoded, sorted(suspects)) if suspects else encoded

    def _look_again(
        self, texts: Sequence[str], encoded: Encoded, suspects: Sequence[int]
    ) -> Encoded:
        """Leaves out what is refused or empty, and replaces what gigatoken is not trusted with."""
        refused = [number for number in suspects if self._refused.found_in(texts[number])]
        doubtful = [number for number in suspects if self._is_doubtful(texts[number])]
        bare = encoded.lengths[suspects] == len(self._end)
        if not (refused or doubtful or bare.any()):
            return encoded
        parts = np.split(encoded.tokens, np.cumsum(encoded.lengths)[:-1])
        for number in doubtful:
            ids = _arrays(self.vocabulary, [texts[number]])[0]
            parts[number] = np.concatenate([ids, self._end])
        is_bare = (n for n in suspects if len(parts[n]) == len(self._end) and n not in refused)
        empty = [] if self._recipe.keeps_empty else list(is_bare)
        parts, texts = _without(parts, [*refused, *empty]), _without(texts, [*refused, *empty])
        return self._end_to_end(parts, texts=texts, refused=refused, empty=empty)

    def can_join(self, texts: Sequence[str]) -> bool:
        """Whether gigatoken gives these texts, and our probes, the same ids as one text.

        A tokenizer may strip around its end of document, or put a space before its first word.
        """
        if self._fast is None or self._recipe.eod is None:
            return False
        if not stands_alone(self._recipe.eod[0], self.vocabulary.added):
            return False
        texts = [*PROBES, *texts]
        try:
            watch = self._new_watch()
            joined = self._encode_joined(texts, watch) if watch else None
            apart = self._encode_apart(texts)
        except ParityError:
            return False  # what the gate makes of it is its own
        return joined is not None and (
            np.array_equal(joined.tokens, apart.tokens)
            and np.array_equal(joined.lengths, apart.lengths)
            and joined.refused == apart.refused
            and joined.empty == apart.empty
        )

    def _new_watch(self) -> Watch | None:
        assert self._recipe.eod is not None, "only texts with ends are joined"
        assert self._fast is not None, "only gigatoken is given texts as one"
        encode = partial(_guarded, self._fast)
        return new_watch(self.vocabulary, self._recipe.special_text, self._recipe.eod[1], encode)

    def check_spelled(self) -> None:
        """Compares gigatoken with `tokenizers` on the added tokens that it is trusted with.

        Raises: ParityError.
        """
        self.check(probes_of_spelled(self.vocabulary, self._recipe.special_text))

    def check(self, texts: Sequence[str]) -> None:
        """Compares gigatoken with `tokenizers` on the texts that it would be given.

        Raises: ParityError at the first text whose ids differ.
        """
        if self._fast is None:
            return
        texts = [text for text in texts if not self._is_doubtful(text)]
        for some in in_slices(texts):
            for text, expected in zip(some, self.vocabulary.reference(some), strict=True):
                self.compare(text, ids_digest(expected))

    def check_encoded(self, texts: Sequence[str], encoded: Encoded) -> int:
        """Compares the ids of the last text that is not too long with those of `tokenizers`.

        Returns: how many were compared, one or none.

        Raises: ParityError when they differ.
        """
        if self._fast is None:
            return 0
        texts = _without(texts, [*encoded.refused, *encoded.empty])
        before, behind = self._recipe.around
        for number in range(len(texts) - 1, -1, -1):
            text = texts[number]
            if len(text) <= CHECKED_CHARACTERS and not self._is_doubtful(text):
                stop = int(encoded.lengths[: number + 1].sum(dtype=np.int64))
                start = stop - int(encoded.lengths[number])
                [expected] = self.vocabulary.reference([text])
                whole = [*before, *expected, *behind, *self._end]
                _require_same(text, encoded.tokens[start:stop], ids_digest(whole))
                return 1
        return 0

    def compare(self, text: str, digest: bytes) -> None:
        """Compares the ids of one text with the `ids_digest` of those of `tokenizers`.

        Raises: ParityError when they differ.
        """
        assert self._fast is not None, "only gigatoken is compared"
        _require_same(text, self._encode_one(text, self._fast), digest)

    def renew(self) -> None:
        """Drops gigatoken's cache of words when the process has grown."""
        if self._fast is not None and _resident_bytes() - self._resident > GROWTH_BYTES:
            fast_encoder.cache_clear()
            self._fast = None
            self._fast = fast_encoder(self.vocabulary)


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
    _check_ids(vocabulary)
    try:
        import gigatoken

        return gigatoken.Tokenizer.from_json(vocabulary.data).backend.encode
    except BaseException as error:
        raise _as_parity_error(error) from error


def _check_ids(vocabulary: Vocabulary) -> None:
    """Keeps files from gigatoken for which it would ask for more memory than there is, and abort.

    Raises: ParityError for ids that no vocabulary reaches; of added tokens `tokenizers` may take
            others than are stated.
    """
    if vocabulary.vocab_size > MOST_IDS or HUGE_ID.search(vocabulary.data):
        raise ParityError(f"its file states an id of {MOST_IDS} or more")


def _guarded(encode: Callable[..., np.ndarray], text: str | bytes) -> np.ndarray:
    try:
        return encode(text)
    except BaseException as error:
        raise _as_parity_error(error) from error


def _as_parity_error(error: BaseException) -> BaseException:
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
        return error
    return ParityError(f"gigatoken failed: {' '.join(str(error).split())[:200]}")


def _without(items: Sequence[Any], numbers: Collection[int]) -> Sequence[Any]:
    if not numbers:
        return items
    left_out = set(numbers)
    return [item for number, item in enumerate(items) if number not in left_out]


def _arrays(vocabulary: Vocabulary, texts: Sequence[str]) -> list[Any]:
    return [np.array(ids, dtype=vocabulary.dtype) for ids in vocabulary.reference(texts)]


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0  # no /proc: nothing is renewed
