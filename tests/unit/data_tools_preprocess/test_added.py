"""Texts that spell added tokens: refused, by `tokenizers` or by gigatoken, but the same ids."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from frontload.data_tools.preprocess import encoder as encoders
from frontload.data_tools.preprocess.added import Watch, doubtful_spellings, new_watch
from frontload.data_tools.preprocess.encoder import Encoder, EncoderRecipe
from frontload.data_tools.preprocess.request import EncoderChoice, SpecialText
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.preprocess.vocabulary import load_vocabulary
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError
from tests.unit.data_tools_preprocess.files import (
    EOD,
    documents,
    expected_pair,
    pair,
    request_for,
    write_texts,
    wrong_library,
)

Added = tuple[AddedToken, ...]


def added(*contents: str, special: bool = False, **flags: bool) -> Added:
    flags = {"normalized": False, **flags}
    return tuple(AddedToken(content, special=special, **flags) for content in contents)


SETS: dict[str, Added] = {
    "plain": added("<think>", "</think>"),
    "plain, normalized": added("<think>", "</think>", normalized=True),
    "whole words only": added("<think>", "</think>", "the", single_word=True),
    "stripping": (*added("<think>", lstrip=True), *added("</think>", rstrip=True), *added("  ")),
    "overlapping in two passes": (
        *added("<think>", "thin", normalized=True),
        *added("nk>", "<th", "ink>"),
    ),
    "special": added("<s>", "</s>", "[INST]", *(f"<SPECIAL_{n}>" for n in range(20)), special=True),
    "special, ids apart": (
        *added("<s>", special=True),
        *added("<think>", "</think>"),
        *added("[INST]", "</s>", special=True),
    ),
    "special, whole words only": added("<s>", "the", special=True, single_word=True),
    "special within another": (*added("<s>", special=True), *added("<s>>", "the<s>")),
}
HOW_SPELLED = {name: sorted({token.content for token in tokens}) for name, tokens in SETS.items()}


@pytest.fixture(scope="session")
def changed(foreign: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("added")

    @cache
    def with_added(name: str) -> Path:
        library = Tokenizer.from_file(str(foreign))
        for token in SETS[name]:
            (library.add_special_tokens if token.special else library.add_tokens)([token])
        file = folder / f"{len(list(folder.iterdir()))}.json"
        library.save(str(file))
        return file

    return with_added


def recipe_of(tokenizer: Path, special_text: SpecialText) -> EncoderRecipe:
    return EncoderRecipe(
        tokenizer=tokenizer,
        choice=EncoderChoice.GIGATOKEN,
        special_text=special_text,
        eod=(EOD, 0),
    )


def texts_that_spell(contents: Sequence[str]) -> st.SearchStrategy[list[str]]:
    pieces = [*contents, *(c[:-1] for c in contents), *(c[1:] for c in contents), EOD[:-1]]
    pieces += [" ", "  ", "\n", "a", "the", "caf\u00e9", "<", ">", "1", "."]
    text = st.lists(st.sampled_from(pieces), min_size=1, max_size=10).map("".join)
    return st.lists(text.filter(bool), min_size=1, max_size=6)


@pytest.mark.parametrize("special_text", SpecialText)
@pytest.mark.parametrize("name", SETS)
def test_every_way_gives_the_ids_of_tokenizers(
    changed: Callable[[str], Path], name: str, special_text: SpecialText
) -> None:
    recipe = recipe_of(changed(name), special_text)
    is_text = special_text is SpecialText.TEXT
    if is_text and name == "special, whole words only":
        with pytest.raises(RecipeError, match="has the as a word of its own"):
            Encoder(recipe)
        return
    apart, joined = Encoder(recipe), Encoder(replace(recipe, joins=not is_text))
    reference = TextTokenizer.load(recipe.tokenizer).library
    reference.encode_special_tokens = is_text
    slow = Encoder(replace(recipe, choice=EncoderChoice.TOKENIZERS))
    apart.check_spelled()
    special = [EOD, *(token.content for token in SETS[name] if token.special)]

    @settings(max_examples=100)
    @given(texts=texts_that_spell(HOW_SPELLED[name]))
    def compare(texts: list[str]) -> None:
        refused = {
            number
            for number, text in enumerate(texts)
            if special_text is SpecialText.DROP and any(one in text for one in special)
        }
        kept = [text for number, text in enumerate(texts) if number not in refused]
        ids = [[*one.ids, 0] for one in reference.encode_batch(kept, add_special_tokens=False)]
        for encoder in (apart, joined, slow):
            encoded = encoder.encode(texts)
            assert set(encoded.refused) == refused
            assert encoded.tokens.tolist() == [number for part in ids for number in part]
            assert encoded.lengths.tolist() == [len(part) for part in ids]
            assert encoded.text_bytes == sum(len(text.encode()) for text in kept)

    compare()


@pytest.mark.parametrize(
    ("name", "doubtful", "watched"),
    [
        ("plain", (), True),
        ("plain, normalized", (), True),
        ("whole words only", ("<think>", "the"), True),
        ("stripping", ("<think>", "</think>"), True),
        ("overlapping in two passes", ("<think>", "thin", "nk>", "<th", "ink>"), True),
        ("special", (), True),
        ("special, ids apart", (), True),
        ("special within another", (), False),
    ],
)
def test_gigatoken_is_trusted_with_plain_tokens(
    changed: Callable[[str], Path], name: str, doubtful: Sequence[str], watched: bool
) -> None:
    vocabulary = load_vocabulary(changed(name))
    spellings = doubtful_spellings(vocabulary, SpecialText.DROP)
    assert bool(spellings) == bool(doubtful)
    assert all(spellings.found_in(token) for token in doubtful)
    assert not spellings.found_in("a text")
    encode = encoders.fast_encoder(vocabulary)
    assert bool(new_watch(vocabulary, SpecialText.DROP, 0, encode)) == watched


def test_the_one_token_that_is_named_as_an_end_of_text_ends_documents(
    changed: Callable[[str], Path],
) -> None:
    assert load_vocabulary(changed("plain")).eod(None) == (EOD, 0)
    two_ends = load_vocabulary(changed("special"))
    assert two_ends.eod("</s>") == ("</s>", two_ends.loaded.special_tokens["</s>"])
    with pytest.raises(RecipeError, match="another origin, with special tokens .*--eod-token"):
        two_ends.eod(None)


@pytest.mark.parametrize("numbers", [[0], [7], [0, 1, 2], [3, 9], [9, 10, 3]])
def test_a_watch_finds_its_ids_alone(numbers: list[int]) -> None:
    ids = np.array([0, 1, 2, 3, 4, 7, 9, 10, 0, 2**32 - 1, 9], dtype=np.uint32)
    expected = [place for place, number in enumerate(ids.tolist()) if number in numbers]
    assert Watch(numbers).places(ids).tolist() == expected


def test_a_spelled_token_that_gigatoken_gets_wrong_falls_back(
    changed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any document is compared: the token stands in the last ones alone."""
    tokenizer = changed("plain")
    texts = [*documents(1100, seed=2), "<think>the data</think>", "the last one is compared"]
    corpus = write_texts(tmp_path / "corpus.jsonl", texts)
    wrong = wrong_library(encoders.fast_encoder, lambda text: "<think>" in text)
    request = replace(request_for(corpus, tmp_path / "P", tokenizer), part_bytes=1 << 26)
    assert preprocess(request)["made_by"]["encoder"] == "gigatoken"
    monkeypatch.setattr(encoders, "fast_encoder", wrong)
    manifest = preprocess(replace(request, output_prefix=tmp_path / "Q"))
    assert manifest["made_by"]["encoder"] == "tokenizers"
    assert "<think>" in manifest["made_by"]["encoder_reason"]
    assert pair(tmp_path / "P") == pair(tmp_path / "Q")
    assert pair(tmp_path / "P") == pair(expected_pair(tmp_path / "R", tokenizer, texts, eod=0))


def test_rows_that_spell_special_tokens_are_rejected_in_their_order(
    changed: Callable[[str], Path], tmp_path: Path
) -> None:
    texts = [f"{text} <s>" if n % 7 == 0 else text for n, text in enumerate(documents(200))]
    rows = [json.dumps({"text": text}) for text in texts]
    rows[10:10] = ["{broken", "", '{"text": 3}']
    rows[151] = json.dumps({"text": f"an {EOD} within"})
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(rows) + "\n")
    kept = []
    for encoder in (EncoderChoice.GIGATOKEN, EncoderChoice.TOKENIZERS):
        prefix = tmp_path / f"{encoder}"
        request = replace(
            request_for(corpus, prefix, changed("special")),
            encoder=encoder,
            rejects=tmp_path / f"{encoder}.rejects.jsonl",
            max_bad_rate=0.5,
        )
        manifest = preprocess(request)
        lines = (tmp_path / f"{encoder}.rejects.jsonl").read_text().splitlines()
        rejects = [json.loads(line) for line in lines]
        numbers = [row["row"] for row in rejects]
        assert numbers == sorted(numbers)
        assert manifest["dropped"] == {
            "broken JSON": 1,
            "spells a special token": 30,
            "wrong type": 1,
        }
        kept.append((pair(prefix), rejects))
    assert kept[0] == kept[1]
