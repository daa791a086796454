"""Word hashes against plain Python; signatures against true Jaccard values and datasketch."""

import random
import re
from itertools import pairwise

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.data_tools.curation.clusters import NearClusters, equal_heads
from frontload.data_tools.curation.sketch import (
    band_keys,
    catch_probability,
    signatures,
    similarity,
)
from frontload.data_tools.text.words import WordHasher, plain_words
from frontload.recipes.runs.curation import Duplicates

HASHER = WordHasher(0)
RULES = Duplicates(shingle_words=5, permutations=128, bands=16, threshold=0.8, seed=1)
TEXTS = st.lists(st.text(alphabet="ab1 .,'\n_\u00e9\u2019\u4e2d", max_size=40), max_size=8)


def words_of(text: str) -> list[str]:
    return re.findall(
        r"[\u0e00-\u0eff\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+", plain_words(text).decode()
    )


@given(texts=TEXTS, size=st.integers(1, 4))
@settings(max_examples=80)
def test_grams_are_equal_just_where_the_words_are(texts: list[str], size: int) -> None:
    words = HASHER.words(texts)
    found = HASHER.grams(words, size)
    expected = [
        (number, place, tuple(words[place : place + size]))
        for number, words in enumerate(map(words_of, texts))
        for place in range(len(words) - size + 1)
    ]
    in_texts = found.texts_of(np.arange(len(expected)))
    places = found.firsts_G - words.offsets_N1[in_texts]
    assert in_texts.tolist() == [number for number, _, _ in expected]
    assert places.tolist() == [place for _, place, _ in expected]
    assert HASHER.runs(words, found.firsts_G, size=size).tolist() == found.hashes_G.tolist()
    hash_of: dict[tuple[str, ...], int] = {}
    for (_, _, gram), value in zip(expected, found.hashes_G.tolist(), strict=True):
        assert hash_of.setdefault(gram, value) == value
    assert len(set(hash_of.values())) == len(hash_of)


def test_words_do_not_depend_on_what_stands_around_them() -> None:
    texts = ["It's  A\ndog!", "it s a DOG", "it \u2019s, a-dog", "\uff29t\u2019s a dog"]
    alone = [HASHER.words([text]).hashes_W.tolist() for text in texts]
    together = HASHER.words(texts)
    assert all(words == alone[0] for words in alone)
    assert together.hashes_W.tolist() == sum(alone, [])
    assert together.num_words.tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u4eca\u5929a1\u5929\u6c14\u3002", ["\u4eca", "\u5929", "a1", "\u5929", "\u6c14"]),
        ("\U00020001x", ["\U00020001", "x"]),
        ("\u30b1\u30fc\u30ad \uc548\ub155", ["\u30b1", "\u30fc", "\u30ad", "\uc548\ub155"]),
        ("\u0e01\u0e34\u0e19", ["\u0e01", "\u0e34", "\u0e19"]),
        ("\u0928\u092e\u0938\u094d\u0924\u0947_x", ["\u0928\u092e\u0938\u094d\u0924\u0947", "x"]),
    ],
    ids=["Chinese", "beyond 16 bits", "Japanese, Korean", "Thai", "Hindi"],
)
def test_a_character_of_a_script_without_spaces_is_a_word(text: str, words: list[str]) -> None:
    """Marks belong to their letter: a Hindi word was parted at each of its vowels."""
    found = HASHER.words([text, *words])
    assert found.num_words.tolist() == [len(words), *[1] * len(words)]
    assert found.hashes_W[: len(words)].tolist() == found.hashes_W[len(words) :].tolist()


def test_words_of_some_texts_are_what_they_are_alone() -> None:
    texts = ["a b\nc", "", "d\n\ne f", "g"]
    some, alone = HASHER.words(texts).of([0, 2]), HASHER.words([texts[0], texts[2]])
    for name in ("hashes_W", "offsets_N1", "begins_line_W"):
        assert getattr(some, name).tolist() == getattr(alone, name).tolist()
    assert some.begins_line_W.tolist() == [True, False, True, True, True, False]


def test_word_hashes_are_those_of_every_machine() -> None:
    """A result must be the same wherever it is made: these numbers may only change on purpose."""
    found = HASHER.grams(HASHER.words(["the quick brown fox"]), 2).hashes_G.tolist()
    assert found == GOLDEN


GOLDEN = [9749912391055666201, 13529443609039036943, 1600702888047195867]


def test_long_words_and_long_texts_are_hashed_alike_wherever_they_stand() -> None:
    """Sums are cut every 128 KiB and words every 4 KiB: neither may show in a hash."""
    long_word = "ab" * 5000
    text = " ".join(f"word{number}" for number in range(40_000))
    alone, together = HASHER.words([long_word]), HASHER.words([text, long_word, text])
    assert alone.num_words.tolist() == [3]
    assert together.num_words.tolist() == [40_000, 3, 40_000]
    assert together.hashes_W[40_000:40_003].tolist() == alone.hashes_W.tolist()
    assert np.array_equal(together.hashes_W[:40_000], together.hashes_W[40_003:])
    assert len(np.unique(together.hashes_W)) == 40_002, "of the three parts the first two are equal"
    one = HASHER.words(["word39999"]).hashes_W
    assert together.hashes_W[39_999] == one[0]


def changed_copies(seed: int, *, changes: list[int]) -> list[str]:
    """A text of 300 words, then copies with that many words changed."""
    random_words = random.Random(seed)
    base = [f"w{random_words.randrange(5000)}" for _ in range(300)]
    texts = [" ".join(base)]
    for count in changes:
        copy = list(base)
        for place in random_words.sample(range(300), count):
            copy[place] = f"x{random_words.randrange(10**9)}"
        texts.append(" ".join(copy))
    return texts


def shingles(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[place : place + 5]) for place in range(len(words) - 4)}


def jaccard(left: str, right: str) -> float:
    one, other = shingles(left), shingles(right)
    return len(one & other) / len(one | other)


def signed(texts: list[str]) -> np.ndarray:
    return signatures(HASHER.words(texts), RULES, hasher=HASHER)


def test_the_estimate_is_unbiased_and_as_sharp_as_datasketch() -> None:
    """Of n equal places of 128, the standard error is sqrt(J (1 - J) / 128): 0.044 at most. Over
    60 pairs the mean error has one of 0.006; four of them are allowed."""
    errors, theirs = [], []
    for seed in range(12):
        texts = changed_copies(seed, changes=[2, 5, 10, 20, 40])
        found = signed(texts)
        sketches = []
        for text in texts:
            sketches.append(MinHash(num_perm=128))
            sketches[-1].update_batch([" ".join(part).encode() for part in shingles(text)])
        for place in range(1, len(texts)):
            true = jaccard(texts[0], texts[place])
            errors.append(float(similarity(found[0], found[place])) - true)
            theirs.append(sketches[0].jaccard(sketches[place]) - true)
    assert abs(np.mean(errors)) < 0.024
    assert np.std(errors) < 0.044
    assert np.std(errors) < 1.5 * np.std(theirs)


def near_groups(texts: list[str]) -> list[int]:
    found = signed(texts)
    clusters = NearClusters(len(texts), threshold=0.8, gather=lambda rows: found[rows])
    for keys in band_keys(found, bands=RULES.bands):
        clusters.add_band(keys)
    return clusters.heads().tolist()


def test_clusters_are_those_of_datasketch_on_planted_copies() -> None:
    """Copies are well above the threshold (3 changed words: 0.9) or well below (60: under 0.3)."""
    texts: list[str] = []
    for seed in range(20):
        texts += changed_copies(100 + seed, changes=[3, 1, 60])
    order = random.Random(3).sample(range(len(texts)), len(texts))
    texts = [texts[place] for place in order]
    lsh = MinHashLSH(num_perm=128, params=(16, 8))
    sketches = []
    for number, text in enumerate(texts):
        sketches.append(MinHash(num_perm=128))
        sketches[-1].update_batch([" ".join(part).encode() for part in shingles(text)])
        lsh.insert(number, sketches[-1])
    theirs = [
        min(other for other in lsh.query(own) if own.jaccard(sketches[other]) >= 0.8)
        for own in sketches
    ]
    assert near_groups(texts) == theirs
    assert len(set(theirs)) == 40


def test_short_texts_are_near_only_when_their_words_are_equal_and_empty_ones_never() -> None:
    texts = ["Yes.", "yes", "no", "", "!!", "yes no", "no yes"]
    assert near_groups(texts) == [0, 0, 2, 3, 4, 5, 6]


@given(values=st.lists(st.integers(0, 6), max_size=30))
@settings(max_examples=50)
def test_equal_heads_name_the_first_row(values: list[int]) -> None:
    keys = np.array([[value, value % 2] for value in values], np.uint64).reshape(-1, 2)
    assert equal_heads(keys).tolist() == [values.index(value) for value in values]


@given(
    values=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=24),
    bands=st.permutations(range(2)),
)
@settings(max_examples=40)
def test_clusters_are_connected_and_do_not_depend_on_the_order_of_bands(
    values: list[tuple[int, int]], bands: list[int]
) -> None:
    """With a signature of two places and one place a band, rows are near if either is equal."""
    rows = np.array(values, dtype=np.uint32).reshape(-1, 2)
    keys = rows.T.astype(np.uint64) + 1
    clusters = NearClusters(len(rows), threshold=0.5, gather=lambda numbers: rows[numbers])
    for band in bands:
        clusters.add_band(keys[band])
    heads = list(range(len(rows)))
    for _ in values:
        for one in range(len(rows)):
            for other in range(len(rows)):
                if (rows[one] == rows[other]).any():
                    heads[one] = heads[other] = min(heads[one], heads[other])
    assert clusters.heads().tolist() == heads


def test_catch_probabilities_of_the_page() -> None:
    values = [catch_probability(at, permutations=128, bands=16) for at in (0.5, 0.7, 0.8, 0.9)]
    assert values == pytest.approx([0.0607, 0.6133, 0.9470, 0.9999], abs=1e-4)
    assert all(low < high for low, high in pairwise(values))
