"""Characters that two libraries may encode otherwise: their tables are of other Unicode versions.

A character is tried once, when a text first holds it: between letters, digits, blanks and its own
kind, and beside marks of every combining class. So what is said of a text depends on its characters
alone, never on the texts before it.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

Ids = Callable[[Sequence[str]], Sequence[Sequence[int]]]
"""The ids of each text."""

CONTEXTS = (  # ours: for the classes that pre-tokenizers tell apart, and for their ends
    *(
        "a{0}b {0} {0}{0} 1{0}2 {0}A",
        "A{0} \n{0}\n",
        "{0}",
        "  {0}  {0}a",
        "a'{0} .{0}!",
        "{0}1 {0}.",
    ),
)
MARK_CONTEXTS = ("a{0}{1}b", "a{1}{0}b")
FIRST_SUPPLEMENTARY, LAST_COMPOSED = 0x10000, 0x1FFFF


class CodePoints:
    """Tells texts for which one library's ids are in doubt, by the ids of the other."""

    def __init__(self, reference: Ids, tried: Ids) -> None:
        self._reference, self._tried = reference, tried
        self._known: set[str] = set()  # tried: both give the same
        self._doubtful: set[str] = set()

    def doubtful(self, utf8: bytes) -> frozenset[str]:
        """The characters of a text, given in UTF-8, for which the libraries differ."""
        signed = np.frombuffer(utf8, np.int8)  # below 0: a byte of what is not ASCII
        found = set(signed[signed < 0].tobytes().decode())
        if unknown := found - self._known - self._doubtful:
            self._try(sorted(unknown))
        return frozenset(found & self._doubtful) if self._doubtful else frozenset()

    def _try(self, characters: Sequence[str]) -> None:
        texts: list[str] = []
        owners: list[str] = []
        for one in characters:
            if unicodedata.category(one) == "Cn":  # of a newer Unicode than this Python knows
                self._doubtful.add(one)
                continue
            found = probes(one)
            texts += found
            owners += [one] * len(found)
        pairs = zip(owners, self._reference(texts), self._tried(texts), strict=True)
        self._doubtful.update(one for one, ids, others in pairs if list(ids) != list(others))
        self._known.update(set(characters) - self._doubtful)


def probes(character: str) -> list[str]:
    """Texts in which a character of another class than expected shows."""
    texts = [context.format(character) for context in CONTEXTS]
    if unicodedata.category(character).startswith("M"):
        texts += [
            context.format(character, mark)
            for mark in _marks_of_every_class()
            for context in MARK_CONTEXTS
        ]
    return texts + _compositions().get(character, [])


@lru_cache(maxsize=1)
def _marks_of_every_class() -> tuple[str, ...]:
    """One mark of each canonical combining class, of those in the oldest Unicode that is known."""
    of_class: dict[int, str] = {}
    for number in range(0x300, FIRST_SUPPLEMENTARY):
        mark = chr(number)
        combining = unicodedata.combining(mark)
        if combining and unicodedata.ucd_3_2_0.combining(mark) == combining:
            of_class.setdefault(combining, mark)
    return tuple(of_class.values())


@lru_cache(maxsize=1)
def _compositions() -> dict[str, list[str]]:
    """Character -> what it composes with; only of planes where composed characters were added."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for number in range(FIRST_SUPPLEMENTARY, LAST_COMPOSED + 1):
        parts = unicodedata.decomposition(chr(number)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            pair = "".join(chr(int(part, 16)) for part in parts)
            for part in set(pair):
                found[part].append(f"a{pair}b")
    return dict(found)
