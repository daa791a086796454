"""Characters of newer Unicode versions: the ids of `tokenizers`, wherever they stand."""

import random
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from frontload.data_tools.preprocess.encoder import Encoder, EncoderRecipe, fast_encoder
from frontload.data_tools.preprocess.merge import merge
from frontload.data_tools.preprocess.request import (
    EncoderChoice,
    PreprocessRequest,
    Shard,
    SpecialText,
)
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.preprocess.vocabulary import load_vocabulary
from tests.unit.data_tools_preprocess.families import FAMILIES, every_character, tokenizer_of
from tests.unit.data_tools_preprocess.files import documents, pair, write_texts

NEW_EMOJI = " \U0001faea\U0001facd"  # of Unicode 17
NEW_MARKS = " \u07ca\u07fd\u07eb a\u0c3c\u0301"  # N'Ko and Telugu: of Unicode 11 and 14
DEEPSEEK_END = "<\uff5cend\u2581of\u2581sentence\uff5c>"


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def texts_of_all_unicode(*, seed: int, size: int) -> list[str]:
    """Marks in any order, beside letters, digits, blanks and whatever else there is."""
    draw = random.Random(seed)
    characters = every_character()
    assigned = [one for one in characters if unicodedata.category(one) not in ("Cn", "Co")]
    some = draw.sample(assigned, size) + draw.sample(characters, size // 8)
    marks = [one for one in assigned if unicodedata.category(one)[0] == "M"]
    marks = [*"\u07fd\u0c3c\u0301\u0327\u3099", *draw.sample(marks, size // 40)]
    pieces = [*"ab 1.\n'", " ", "\n\n"]

    def piece() -> str:
        return draw.choice(draw.choice([pieces, some, marks, marks]))

    return ["".join(piece() for _ in range(draw.randrange(1, 30))) for _ in range(size)]


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_over_all_of_unicode_are_those_of_the_library(shipped: Path, family: str) -> None:
    """Joined or apart; and most texts go the quick way."""
    tokenizer = tokenizer_of(family, shipped)
    texts = texts_of_all_unicode(seed=3, size=800)
    library = Tokenizer.from_file(str(tokenizer))
    expected = [library.encode(text, add_special_tokens=False).ids for text in texts]
    end = DEEPSEEK_END if family == "deepseek" else "</s>"
    end = end if library.token_to_id(end) is not None else "<|endoftext|>"
    number = library.token_to_id(end)
    recipe = EncoderRecipe(
        tokenizer=tokenizer,
        choice=EncoderChoice.GIGATOKEN,
        special_text=SpecialText.ENCODE,
        eod=(end, number),
        keeps_empty=True,
    )
    for joins in (False, Encoder(recipe).can_join(["a"])):
        found = Encoder(replace(recipe, joins=joins)).encode(texts)
        assert found.tokens.tolist() == [one for ids in expected for one in (*ids, number)]
    assert not Encoder(recipe)._is_doubtful(
        "plain \u2014 caf\u00e9 \u4e2d\u6587 \U0001f642 e\u0301"
    )


def test_gigatoken_alone_would_give_other_ids(shipped: Path) -> None:
    """What the two above are for: when a version mends it, this says so."""
    for family, text in (("deepseek", NEW_EMOJI), ("qwen", NEW_MARKS)):
        vocabulary = load_vocabulary(tokenizer_of(family, shipped))
        quick = fast_encoder(vocabulary)(text).tolist()
        assert quick != vocabulary.reference([text])[0]


def test_bytes_hang_on_no_order_shard_or_worker(shipped: Path, tmp_path: Path) -> None:
    """1,200 plain rows before rare ones: past the documents that the gate compares, and parts."""
    texts = [*documents(1200, seed=1, longest=20), *(f"some {NEW_EMOJI}{n}" for n in range(40))]
    texts += ["plain again"] * 3
    asked = PreprocessRequest(
        inputs=[write_texts(tmp_path / "rows.jsonl", texts)],
        output_prefix=tmp_path / "P",
        tokenizer=tokenizer_of("deepseek", shipped),
        append_eod=True,
        eod_token=DEEPSEEK_END,
        part_bytes=1 << 16,
    )
    made_by = preprocess(asked)["made_by"]
    assert made_by["encoder"] == "gigatoken"
    slow = replace(asked, output_prefix=tmp_path / "slow", encoder=EncoderChoice.TOKENIZERS)
    preprocess(slow)
    assert pair(tmp_path / "P") == pair(tmp_path / "slow")
    preprocess(replace(asked, output_prefix=tmp_path / "two", workers=2))
    assert pair(tmp_path / "two") == pair(tmp_path / "slow")
    parts = [replace(asked, shard=Shard(number=number, of=2)) for number in (1, 2)]
    for part in parts:
        preprocess(part)
    merge([part.prefix for part in parts], output_prefix=tmp_path / "merged")
    assert pair(tmp_path / "merged") == pair(tmp_path / "slow")
