"""A tokenizer.json of any kind, whole or damaged: the ids of `tokenizers`, or a message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from frontload.data_tools.preprocess.encoder import fast_encoder
from frontload.recipes.errors import RecipeError
from tests.unit.data_tools_preprocess.files import (
    EOD,
    documents,
    expected_pair,
    pair,
    write_texts,
)

TEXTS = [
    *documents(60, seed=5),
    *(
        "\u00c4rger \uff26\uff35 \ufb01 e\u0301",
        " a",
        "b ",
        "a  b\t\n\nc",
        "\U0001f389",
        "UPPER Case",
    ),
    *("\u200bzero\u00a0nbsp", "\u2581under", "\r\nwin\r\n", "\x00nul\x01", "<0x41>", "a" * 2000),
]


def train(library: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    library.train_from_iterator(documents(300), trainer)
    return library


def byte_level(*special: str) -> Tokenizer:
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[EOD, *special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    return train(library, trainer)


def that_begins() -> Tokenizer:
    library = byte_level("<s>", "</s>")
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return library


def that_normalizes() -> Tokenizer:
    library = byte_level()
    library.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return library


def byte_fallback() -> Tokenizer:
    library = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    special = ["<unk>", EOD, *(f"<0x{byte:02X}>" for byte in range(256))]
    train(library, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False))
    stated = json.loads(library.to_str())
    stated["added_tokens"] = stated["added_tokens"][:2]  # bytes are no added tokens
    return Tokenizer.from_str(json.dumps(stated))


def word_piece() -> Tokenizer:
    library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[UNK]", EOD], show_progress=False
    )
    return train(library, trainer)


def unigram() -> Tokenizer:
    library = Tokenizer(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", EOD], unk_token="<unk>", show_progress=False
    )
    return train(library, trainer)


KINDS = (that_begins, that_normalizes, byte_fallback, word_piece, unigram)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_the_ids_are_those_of_the_library(
    tmp_path: Path, frontload: Callable[..., int], make: Callable[[], Tokenizer]
) -> None:
    """Whatever it puts around a text: the ids are those of the text alone, and the end."""
    make().save(str(tmp_path / "t.json"))
    assert preprocess(frontload, tmp_path) == 0
    eod = make().token_to_id(EOD)
    wanted = expected_pair(tmp_path / "wanted", tmp_path / "t.json", TEXTS, eod=eod)
    assert pair(tmp_path / "P") == pair(wanted)


def preprocess(frontload: Callable[..., int], folder: Path) -> int:
    file = write_texts(folder / "rows.jsonl", TEXTS)
    words = ["--input", file, "--output-prefix", folder / "P", "--tokenizer", folder / "t.json"]
    more = ["--append-eod", "--eod-token", EOD, "--special-text", "encode", "--workers", 1]
    return frontload("preprocess", *words, *more)


def edited(**model: Any) -> str:
    stated = json.loads(byte_level().to_str())
    stated["model"] |= model
    return json.dumps(stated)


def far_id(number: int) -> str:
    vocabulary = json.loads(byte_level().to_str())["model"]["vocab"]
    rarest = max(vocabulary, key=lambda token: vocabulary[token])
    return edited(vocab=vocabulary | {rarest: number})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "no Hugging Face tokenizer (Model missing"),
        ("", "no Hugging Face tokenizer (EOF"),
        ("[]", "no Hugging Face tokenizer (invalid type"),
        (byte_level().to_str()[:2000], "no Hugging Face tokenizer (EOF"),
        (edited(dropout=0.25), "dropout 0.25: merges are left out at random"),
        (edited(vocab={}, merges=[]), "a model without a token"),
        (far_id(4_000_000_000), "a token with id 4000000000; ids are stored in 32 bits"),
    ],
    ids=["object", "nothing", "list", "cut", "dropout", "no vocabulary", "id above int32"],
)
def test_a_damaged_one_is_told(
    tmp_path: Path, frontload: Callable[..., int], text: str, told: str
) -> None:
    (tmp_path / "t.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        preprocess(frontload, tmp_path)
    assert told in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"t.json", "rows.jsonl"}


def far_added(number: int) -> str:
    stated = json.loads(byte_level().to_str())
    stated["added_tokens"].append(stated["added_tokens"][0] | {"id": number, "content": "<far>"})
    return json.dumps(stated)


@pytest.mark.parametrize(
    "text", [far_id(2_000_000_000), far_added(900_000_000)], ids=["own", "added"]
)
def test_ids_far_apart_are_kept_from_gigatoken_which_would_end_the_process(
    tmp_path: Path,
    frontload: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    text: str,
) -> None:
    (tmp_path / "t.json").write_text(text, encoding="utf-8")
    calls = fast_encoder.cache_info().misses
    assert preprocess(frontload, tmp_path) == 0
    assert fast_encoder.cache_info().misses > calls
    assert (
        "encoder tokenizers: its file states an id of 10000000 or more" in capsys.readouterr().out
    )
