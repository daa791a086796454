"""Texts encoded as one, with the end of document between: the same ids, or not joined at all."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from frontload.data_tools.preprocess import encoder as encoders
from frontload.data_tools.preprocess.added import stands_alone
from frontload.data_tools.preprocess.encoder import Encoder, EncoderRecipe
from frontload.data_tools.preprocess.request import EncoderChoice, SpecialText
from frontload.data_tools.preprocess.run import preprocess
from tests.unit.data_tools_preprocess.files import (
    EOD,
    documents,
    expected_pair,
    pair,
    request_for,
    write_texts,
)

PIECES = [
    "a",
    "the",
    " ",
    "  ",
    "\n",
    "\t",
    "'s",
    "'",
    "1",
    "12",
    "<",
    "<|",
    "|>",
    "<|end",
    "of",
    "-",
]
PIECES += ["\u00e9", "e\u0301", "\u4e2d", "\u00a0", "\u200b", "\U0001f642", "\r\n", "\x00"]
texts_to_join = st.lists(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join), min_size=1, max_size=8
)


def recipe_of(tokenizer: Path) -> EncoderRecipe:
    return EncoderRecipe(
        tokenizer=tokenizer,
        choice=EncoderChoice.GIGATOKEN,
        special_text=SpecialText.DROP,
        eod=(EOD, Tokenizer.from_file(str(tokenizer)).token_to_id(EOD)),
    )


def changed(tokenizer: Path, file: Path, change: Callable[[Tokenizer], object]) -> Path:
    library = Tokenizer.from_file(str(tokenizer))
    change(library)
    library.save(str(file))
    return file


@settings(max_examples=500)
@given(texts=texts_to_join)
def test_joined_texts_have_the_ids_that_they_have_alone(foreign: Path, texts: list[str]) -> None:
    apart, joined = (
        Encoder(replace(recipe_of(foreign), joins=joins)).encode(texts) for joins in (False, True)
    )
    assert joined.tokens.tolist() == apart.tokens.tolist()
    assert joined.lengths.tolist() == apart.lengths.tolist()
    assert joined.tokens.dtype == apart.tokens.dtype
    assert joined.text_bytes == apart.text_bytes == sum(len(text.encode()) for text in texts)
    reference = Encoder(recipe_of(foreign)).vocabulary.reference(texts)
    assert joined.tokens.tolist() == [token for ids in reference for token in (*ids, 0)]


def test_a_plain_tokenizer_joins(foreign: Path) -> None:
    encoder = Encoder(recipe_of(foreign))
    assert encoder.can_join(documents(100))
    assert encoder.can_join([])
    assert not Encoder(replace(recipe_of(foreign), eod=None)).can_join(documents(3))


def strip_right(library: Tokenizer) -> None:
    library.add_special_tokens([AddedToken(EOD, rstrip=True, special=True)])


def strip_left(library: Tokenizer) -> None:
    library.add_special_tokens([AddedToken(EOD, lstrip=True, special=True)])


def space_first(library: Tokenizer) -> None:
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


@pytest.mark.parametrize(
    ("change", "joins"), [(strip_right, False), (strip_left, False), (space_first, True)]
)
def test_a_tokenizer_with_its_own_ways_at_the_edges_keeps_the_bytes(
    foreign: Path, tmp_path: Path, change: Callable[[Tokenizer], None], joins: bool
) -> None:
    tokenizer = changed(foreign, tmp_path / "tokenizer.json", change)
    assert Encoder(recipe_of(tokenizer)).can_join([]) == joins  # the probes alone tell
    texts = [f"{space}{text}{space}" for text in documents(80, seed=4) for space in ("", " ", "\n")]
    corpus = write_texts(tmp_path / "corpus.jsonl", texts)
    preprocess(request_for(corpus, tmp_path / "P", tokenizer))
    plain = expected_pair(tmp_path / "plain", tokenizer, texts, eod=0)
    assert pair(tmp_path / "P") == pair(plain)


@pytest.mark.parametrize("end", ["##", "#-#", "~~"])
def test_an_end_that_could_be_found_too_early_keeps_the_bytes(
    foreign: Path, tmp_path: Path, end: str
) -> None:
    """`a#` and the end `##` are `a`, `##`, `#` from the left; past what the gate compares."""
    library = Tokenizer.from_file(str(foreign))
    library.add_special_tokens([end])
    library.save(str(tmp_path / "tokenizer.json"))
    odd = [f"{text}{end[:size]}" for text in documents(80, seed=3) for size in (0, len(end) - 1)]
    texts = [*documents(1200, seed=2), *odd, "plain", "and one that is compared"]
    corpus = write_texts(tmp_path / "corpus.jsonl", texts)
    request = request_for(corpus, tmp_path / "P", tmp_path / "tokenizer.json")
    preprocess(replace(request, eod_token=end, part_bytes=1 << 26))
    number = library.token_to_id(end)
    plain = expected_pair(tmp_path / "plain", tmp_path / "tokenizer.json", texts, eod=number)
    assert pair(tmp_path / "P") == pair(plain)


@pytest.mark.parametrize(
    ("end", "others", "alone"),
    [
        ("<|endoftext|>", ["<|pad|>", "<", "endoftext|>"], True),
        ("</s>", ["<s>", "<unk>", "##"], True),
        ("</s>", ["a<"], False),
        ("</s>", ["a</s>"], False),
        ("</s>", ["</s>\n"], False),
        ("##", [], False),
    ],
)
def test_which_ends_stand_alone(end: str, others: list[str], alone: bool) -> None:
    assert stands_alone(end, [end, *others]) == alone
    assert not stands_alone(end, others)  # no added token: a word like others


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("harm", ["lose an id", "lose an end", "one end more"])
def test_a_library_that_errs_only_when_texts_are_joined(
    foreign: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    harm: str,
) -> None:
    """Late in the run, where nothing but the texts of a part tell."""
    texts = [*documents(1200, seed=2), *(f"odd {text}" for text in documents(400, seed=3))]
    corpus = write_texts(tmp_path / "corpus.jsonl", texts)
    right = encoders.fast_encoder

    def wrong(vocabulary: object) -> Callable[[str | bytes], np.ndarray]:
        encode = right(vocabulary)  # type: ignore[arg-type]

        def harmed(text: str | bytes) -> np.ndarray:
            ids = encode(text)
            if isinstance(text, str) or b"odd" not in text:
                return ids
            if harm == "lose an id":  # the last before the last end: of the text that is compared
                return np.delete(ids, -2)
            end = np.flatnonzero(ids == 0)[0]
            return np.delete(ids, end) if harm == "lose an end" else np.insert(ids, end, 0)

        return harmed

    monkeypatch.setattr(encoders, "fast_encoder", wrong)
    request = request_for(corpus, tmp_path / "P", foreign)
    manifest = preprocess(replace(request, workers=workers))
    assert pair(tmp_path / "P") == pair(expected_pair(tmp_path / "plain", foreign, texts, eod=0))
    used = "tokenizers" if harm == "lose an id" else "gigatoken"
    assert manifest["made_by"]["encoder"] == used
