"""Ids and counts of texts: the same by both libraries, and a fallback that says why."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from frontload.data_tools.preprocess.encoder import Encoder, ParityError
from frontload.data_tools.preprocess.request import EncoderChoice
from frontload.data_tools.preprocess.text_encoder import TextEncoder, choose_encoder
from tests.unit.data_tools_curation.workbench import word_tokenizer

TEXTS = ["", " ", "abc  abc\n", "caf\u00e9 \u4e2d\u6587 \U0001f600", "a <|im_end|> b", "x" * 3000]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=alphabet,
        special_tokens=["<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["abc abc abcd"] * 9, trainer)
    file = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


def test_both_encoders_count_alike(bpe: Path) -> None:
    library = Tokenizer.from_file(str(bpe))
    expected = [len(library.encode(text, add_special_tokens=False).ids) for text in TEXTS]
    assert choose_encoder(bpe, TEXTS) == (EncoderChoice.GIGATOKEN, "")
    for choice in (EncoderChoice.GIGATOKEN, EncoderChoice.TOKENIZERS):
        assert TextEncoder(bpe, choice).counts(TEXTS) == expected
    assert expected[4] == 5


def test_both_encoders_give_the_same_ids(bpe: Path) -> None:
    library = Tokenizer.from_file(str(bpe))
    expected = [library.encode(text, add_special_tokens=False).ids for text in TEXTS]
    for choice in (EncoderChoice.GIGATOKEN, EncoderChoice.TOKENIZERS):
        encoder = TextEncoder(bpe, choice)
        assert [ids.tolist() for ids in encoder.ids(TEXTS)] == expected
        assert encoder.ids([]) == []
        assert encoder.counts([]) == []


def test_a_tokenizer_that_gigatoken_cannot_read_is_counted_by_tokenizers(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    word_tokenizer().save(str(file))
    choice, reason = choose_encoder(file, ["one two"])
    assert choice is EncoderChoice.TOKENIZERS
    assert reason
    assert TextEncoder(file, choice).counts(["one two", ""]) == [2, 0]


def test_a_text_on_which_gigatoken_fails_is_counted_by_tokenizers(
    bpe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = TextEncoder(bpe, EncoderChoice.GIGATOKEN)
    expected = counter.counts(TEXTS)
    real = Encoder.encode

    def fail(encoder: Encoder, texts: list[str]) -> object:
        if encoder._fast is not None:
            raise ParityError("a panic")
        return real(encoder, texts)

    monkeypatch.setattr(Encoder, "encode", fail)
    assert counter.counts(TEXTS) == expected
