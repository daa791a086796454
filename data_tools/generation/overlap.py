"""How much of a text is a copy: of another text, or of itself."""

from collections.abc import Sequence

SHINGLE_WORDS = 8  # ours: shorter runs of words are shared by any two texts on one subject


def shingles(text: str) -> list[tuple[str, ...]]:
    """Every run of `SHINGLE_WORDS` words, case left out, in order; none of a shorter text."""
    words = text.casefold().split()
    return [
        tuple(words[start : start + SHINGLE_WORDS])
        for start in range(len(words) - SHINGLE_WORDS + 1)
    ]


def copied_share(text: str, source: str) -> float:
    """The share of a text's runs of words that stand in the source; 0 of a text without any."""
    found = shingles(text)
    known = set(shingles(source))
    return _share([run in known for run in found])


def repeated_share(text: str) -> float:
    """The share of a text's runs of words that stood in it before."""
    seen: set[tuple[str, ...]] = set()
    again = []
    for run in shingles(text):
        again.append(run in seen)
        seen.add(run)
    return _share(again)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0
