"""The added tokens that texts may spell: refused, left to `tokenizers`, or as good by gigatoken."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache

import numpy as np
from tokenizers import AddedToken

from frontload.data_tools.preprocess.request import SpecialText
from frontload.data_tools.preprocess.vocabulary import Spellings, Vocabulary


def refused_spellings(vocabulary: Vocabulary, special_text: SpecialText) -> Spellings:
    """What no text may spell: the special tokens, unless they are to be encoded."""
    return Spellings(_refused(vocabulary, special_text))


@lru_cache(maxsize=4)
def doubtful_spellings(vocabulary: Vocabulary, special_text: SpecialText) -> Spellings:
    """The spelled tokens for which gigatoken may give other ids than `tokenizers`.

    Seen of gigatoken 0.10: it finds a `single_word` inside words, strips less where several tokens
    strip, and does not look for `normalized` tokens after the others, which matters to overlaps.
    """
    tokens = _spelled(vocabulary, special_text)
    doubtful = {token.content for token in tokens if not _is_plain(token)}
    first = {token.content for token in tokens if not token.normalized}
    last = {token.content for token in tokens if token.normalized}
    doubtful |= _overlapping(first, last) | _overlapping(last, first)
    if special_text is SpecialText.TEXT:  # `tokenizers` finds the special one, and passes it over
        doubtful |= _overlapping(first | last, vocabulary.special)
    return Spellings(doubtful)


def probes_of_spelled(vocabulary: Vocabulary, special_text: SpecialText) -> list[str]:
    """A text for each token that gigatoken is trusted with: beside words, spaces and itself."""
    doubtful = doubtful_spellings(vocabulary, special_text)
    contents = (token.content for token in _spelled(vocabulary, special_text))
    texts = (f"a{one}b {one} \n{one}\n1{one}{one}." for one in contents)
    return [text for text in texts if not doubtful.found_in(text)]


def stands_alone(end: str, added: Collection[str]) -> bool:
    """Whether a text before `end` leaves it where it is: behind "a#", "##" is found one too early.

    A token that begins in the text and ends in `end` or behind it would be taken first. One that is
    not added is a word like others: it may melt into its neighbours.
    """
    return end in added and not any(
        (token != end and end in token)
        or any(token.endswith(end[:size]) for size in range(1, min(len(end), len(token))))
        for token in added
    )


class Watch:
    """Finds the ids of some added tokens among others, in one pass where they are neighbours."""

    def __init__(self, ids: Iterable[int]) -> None:
        numbers = sorted(set(ids))
        self._low, self._span = np.uint32(numbers[0]), np.uint32(numbers[-1] - numbers[0])
        self._is_one = np.zeros(int(self._span) + 1, bool)
        self._is_one[np.array(numbers) - numbers[0]] = True

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Where they are. Shapes: uint32 [tokens] to int64 [found], in order."""
        offsets = ids - self._low  # below the lowest it wraps to a large one
        near = np.flatnonzero(offsets <= self._span)
        return near if self._is_one.all() else near[self._is_one[offsets[near]]]


def new_watch(
    vocabulary: Vocabulary, special_text: SpecialText, end: int, encode: Callable[..., np.ndarray]
) -> Watch | None:
    """A watch for the end of document and what is refused or doubtful; None if ids do not tell.

    They tell when a spelled token always shows: gigatoken finds it between words, and no other
    token that a text may spell could take a part of it.
    """
    doubtful = doubtful_spellings(vocabulary, special_text)
    refused = set(_refused(vocabulary, special_text))
    numbers, plain = {end}, set()
    for number, token in vocabulary.loaded.added.items():
        if token.content not in refused and not doubtful.found_in(token.content):
            plain.add(token.content)
        elif number in encode(f"a{token.content}b"):
            numbers.add(number)
        else:
            return None
    watched = {vocabulary.loaded.added[number].content for number in numbers}
    return None if _overlapping(watched - plain, plain) else Watch(numbers)


def _refused(vocabulary: Vocabulary, special_text: SpecialText) -> Sequence[str]:
    return vocabulary.special if special_text is SpecialText.DROP else ()


def _spelled(vocabulary: Vocabulary, special_text: SpecialText) -> list[AddedToken]:
    is_encoded = special_text is SpecialText.ENCODE
    left_out = set() if is_encoded else set(vocabulary.special)
    tokens = vocabulary.loaded.added.values()
    return [token for token in tokens if token.content not in left_out]


def _is_plain(token: AddedToken) -> bool:
    return not (token.single_word or token.lstrip or token.rstrip)


def _overlapping(tokens: Collection[str], others: Collection[str]) -> set[str]:
    """Those of `tokens` that could share a character with one of `others` in a text."""
    heads = {other[:size] for other in others for size in range(1, len(other) + 1)}
    tails = {other[-size:] for other in others for size in range(1, len(other) + 1)}

    def overlaps(token: str) -> bool:
        sizes = range(1, len(token) + 1)
        return (
            any(token[-size:] in heads or token[:size] in tails for size in sizes)
            or any(other in token for other in others)
            or any(token in other for other in others)
        )

    return {token for token in tokens if overlaps(token)}
