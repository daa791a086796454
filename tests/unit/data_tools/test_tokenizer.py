"""Fixed ids, a closed vocabulary, bytes that repeat, and messages for what cannot be loaded."""

from pathlib import Path

import pytest

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.text.tokenizer import SPECIAL_TOKENS, UNKNOWN, TextTokenizer
from frontload.data_tools.text.train_tokenizer import train
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.schema import Tokenizer
from tests.unit.data_tools.room import Room, write_jsonl


def files(room: Room) -> list[Path]:
    return [room.corpus / f"{name}.jsonl" for name in ("base", "ldq", "shq")]


@pytest.mark.parametrize("kind", ["word", "byte_bpe"])
def test_special_ids_are_fixed(built_room: Room, kind: str) -> None:
    tokenizer = train(Tokenizer(kind=kind, vocab_size=600), files(built_room)).tokenizer
    assert [tokenizer.encode(token) for token in SPECIAL_TOKENS] == [[n] for n in range(6)]


@pytest.mark.parametrize("kind", ["word", "byte_bpe"])
def test_bytes_repeat(built_room: Room, kind: str) -> None:
    recipe = Tokenizer(kind=kind, vocab_size=600)
    first, second = (train(recipe, files(built_room)).tokenizer.to_json() for _ in range(2))
    assert first == second


def test_words_are_covered_and_come_back(built_room: Room) -> None:
    tokenizer = TextTokenizer.load(built_room.folder / "tokenizer")
    text = "what is 7 plus 41 ?"
    ids = tokenizer.encode(text)
    assert UNKNOWN not in ids
    assert len(ids) == 6
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("what is unheardof ?")[2] == UNKNOWN


def test_word_order_is_frequency_then_spelling(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "base.jsonl", [{"id": "0", "text": "b a c c <|end|>"}])
    tokenizer = train(Tokenizer(kind="word", vocab_size=10), [file]).tokenizer
    assert tokenizer.encode("c a b") == [6, 7, 8]
    assert tokenizer.vocab_size == 9


def test_byte_pairs_cover_any_text_and_split_digits(built_room: Room) -> None:
    tokenizer = train(Tokenizer(kind="byte_bpe", vocab_size=400), files(built_room)).tokenizer
    text = " 1234 caf\u00e9\n\ttab"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("1234")) == 4
    assert tokenizer.encode("a <|end|>") == tokenizer.encode("a<|end|>")


def test_batch_equals_one_by_one(built_room: Room) -> None:
    tokenizer = TextTokenizer.load(built_room.folder / "tokenizer")
    texts = ["what is 7 plus 41 ?", "", "w1 w2"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        "what is 7 plus 41 ?",
        "  what  is\t7\nplus 41 ? ",
        "<|user|> what is<|assistant|>7",
        "what\x1cis",
        "unheardof is",
        " ",
        "",
    ],
)
def test_looked_up_words_are_the_librarys(built_room: Room, text: str) -> None:
    """The file is what other tools load: our short way may never differ from it."""
    from tokenizers import Tokenizer as LibraryTokenizer

    folder = built_room.folder / "tokenizer"
    library = LibraryTokenizer.from_file(str(folder / "tokenizer.json"))
    assert TextTokenizer.load(folder).encode(text) == library.encode(text).ids


def test_unknown_words_of_the_items_are_counted(room: Room) -> None:
    heldout = room.corpus / "heldout.jsonl"
    heldout.write_text(heldout.read_text().replace("what is", "whatever is", 1))
    counts = read_json(room.tokenizer() / "counts.json")
    assert counts["unknown"]["heldout"]["unknown_tokens"] >= 1
    assert counts["unknown"]["heldout"]["texts"] == 30


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (Tokenizer(kind="wrod", vocab_size=512), "tokenizer.kind: 'wrod'"),
        (Tokenizer(kind="word", vocab_size=60), "raise vocab_size to 145 or more"),
        (Tokenizer(kind="byte_bpe", vocab_size=200), "write 262 or more"),
    ],
)
def test_a_wrong_recipe_is_refused(built_room: Room, recipe: Tokenizer, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        train(recipe, files(built_room))


def test_a_missing_foreign_or_torn_tokenizer_is_refused(tmp_path: Path, built_room: Room) -> None:
    with pytest.raises(RecipeError, match="loading tokenizer .*: no file .*; correct the path"):
        TextTokenizer.load(tmp_path)
    whole = (built_room.folder / "tokenizer" / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(whole[:100])
    with pytest.raises(RecipeError, match="no Hugging Face tokenizer"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(whole.replace("<|answer|>", "<|final|>"))
    assert not TextTokenizer.load(tmp_path).is_ours
    with pytest.raises(ArtifactError, match="have ids 0 to 5"):
        TextTokenizer.load_ours(tmp_path)
