"""MinHash signatures of texts by rensa, and the band keys under which near texts meet."""

from collections.abc import Sequence

import numpy as np
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] - compiled

from frontload.data_tools.text.words import WordHasher, WordHashes, mixed
from frontload.recipes.runs.curation import Duplicates


def signatures(words: WordHashes, rules: Duplicates, *, hasher: WordHasher) -> np.ndarray:
    """uint32 [texts, permutations]: signatures of the texts' sets of shingles.

    A text with fewer words than a shingle has one shingle, all of its words. A text without a word
    gets a signature of its own kind, all ones: it is no text's near duplicate (`band_keys`).
    """
    num_words = words.num_words
    grams = hasher.grams(words, rules.shingle_words)
    shingles, counts = grams.hashes_G, np.diff(grams.offsets_N1)
    short = np.flatnonzero((counts == 0) & (num_words > 0))
    if len(short):
        shingles, counts = _with_short_texts(words, short, shingles=shingles, counts=counts)
    has_words = num_words > 0
    rows = np.full((len(num_words), rules.permutations), np.iinfo(np.uint32).max, dtype=np.uint32)
    if has_words.any():
        offsets = np.concatenate([[0], np.cumsum(counts[has_words])])
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            np.ascontiguousarray(shingles),
            offsets.astype(np.uint64),
            rules.permutations,
            rules.seed,
        )
        rows[has_words] = np.array(matrix.to_rows(), dtype=np.uint32)
    return rows


def _with_short_texts(
    words: WordHashes, short: np.ndarray, *, shingles: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds one shingle for each text that has fewer words than one."""
    own = [
        np.bitwise_xor.reduce(
            mixed(words.hashes_W[start:stop] + np.arange(stop - start, dtype=np.uint64))
        )
        for start, stop in zip(words.offsets_N1[short], words.offsets_N1[short + 1], strict=True)
    ]
    before = np.concatenate([[0], np.cumsum(counts)])[short]
    counts = counts.copy()
    counts[short] = 1
    return np.insert(shingles, before, np.array(own, dtype=np.uint64)), counts


def band_keys(signatures_NP: np.ndarray, *, bands: int) -> np.ndarray:
    """uint64 [bands, texts]: texts with an equal key in a band have this part of their signatures
    equal (or are one of 2^64 accidents). Key 0 is for texts without a word, which meet nobody."""
    count, permutations = signatures_NP.shape
    parts = signatures_NP.reshape(count, bands, permutations // bands)
    keys = np.zeros((count, bands), dtype=np.uint64)
    for place in range(parts.shape[2]):
        keys = mixed(keys + parts[:, :, place] + np.uint64(place + 1))
    keys[keys == 0] = 1
    keys[(signatures_NP == np.iinfo(np.uint32).max).all(axis=1)] = 0
    return np.ascontiguousarray(keys.T)


def similarity(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of pairs: the share of equal places of their signatures."""
    return (left == right).mean(axis=-1)


def catch_probability(value: float, *, permutations: int, bands: int) -> float:
    """How likely two texts of Jaccard similarity `value` are compared at all."""
    return 1.0 - (1.0 - value ** (permutations // bands)) ** bands


def shown_probabilities(rules: Duplicates, values: Sequence[float]) -> dict[str, float]:
    """Similarity -> how likely such a pair is compared, rounded, for reports."""
    return {
        f"{value:g}": round(
            catch_probability(value, permutations=rules.permutations, bands=rules.bands), 4
        )
        for value in values
    }
