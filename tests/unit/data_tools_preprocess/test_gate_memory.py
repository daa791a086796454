"""What `tokenizers` is given at once by the parity gate is bounded, however long the rows are."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontload.data_tools.preprocess.run import LONG_CHARACTERS, preprocess
from frontload.data_tools.preprocess.vocabulary import SLICE_CHARACTERS, SLICE_TEXTS, in_slices
from frontload.data_tools.text.tokenizer import TextTokenizer
from tests.unit.data_tools_preprocess.files import documents, request_for, write_texts


def test_a_row_of_megabytes_is_compared_in_part(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 15 MB took 2 GiB: `tokenizers` takes 130 bytes for one of text."""
    right, asked = TextTokenizer.encode_batch, []

    def counted(self: TextTokenizer, texts: Sequence[str]) -> list[list[int]]:
        asked.append(sum(map(len, texts)))
        return right(self, texts)

    monkeypatch.setattr(TextTokenizer, "encode_batch", counted)
    tokenizer = tmp_path / "t.json"  # one that no test has loaded yet
    shutil.copy(foreign, tokenizer)
    texts = ["the data " * 100_000, *["the model " * 9_000] * 20, *documents(50)]
    corpus = write_texts(tmp_path / "a.jsonl", texts)
    request = replace(request_for(corpus, tmp_path / "P", tokenizer), part_bytes=None)
    manifest = preprocess(request)
    assert manifest["made_by"]["encoder"] == "gigatoken"
    assert manifest["made_by"]["documents_compared"] >= len(texts)
    assert LONG_CHARACTERS <= max(asked) <= max(LONG_CHARACTERS, SLICE_CHARACTERS)


@given(st.lists(st.integers(0, SLICE_CHARACTERS * 2).map(lambda size: size // 7), max_size=60))
def test_slices_hold_every_text_once_in_order_and_no_more_than_they_may(sizes: list[int]) -> None:
    texts = ["x" * size for size in sizes]
    slices = list(in_slices(texts))
    assert [text for some in slices for text in some] == texts
    for some in slices:
        assert 1 <= len(some) <= SLICE_TEXTS
        assert len(some) == 1 or sum(map(len, some)) <= SLICE_CHARACTERS
