"""`frontload data preprocess`: the plain way's bytes, for any workers, encoder, packing, shards."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from tokenizers import Tokenizer

from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.preprocess import encoder as encoders
from frontload.data_tools.preprocess import run as run_module
from frontload.data_tools.preprocess.merge import merge
from frontload.data_tools.preprocess.request import EncoderChoice, Shard
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.preprocess.unit import Receipt
from frontload.data_tools.proof.checks import wrong
from frontload.data_tools.proof.prefix import prove_prefix
from frontload.data_tools.text.tokenizer import END, TextTokenizer
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


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("choice", list(EncoderChoice))
def test_any_workers_and_encoder_give_the_bytes_of_the_plain_way(
    corpus: Path, foreign: Path, tmp_path: Path, workers: int, choice: EncoderChoice
) -> None:
    request = request_for(corpus, tmp_path / "P", foreign)
    manifest = preprocess(replace(request, workers=workers, encoder=choice))
    plain = expected_pair(tmp_path / "plain", foreign, documents(700, seed=2), eod=0)
    assert pair(tmp_path / "P") == pair(plain)
    used = "tokenizers" if choice is EncoderChoice.TOKENIZERS else "gigatoken"
    assert manifest["made_by"]["encoder"] == used
    assert (manifest["made_by"]["documents_compared"] >= 700) == (used == "gigatoken")
    assert not (tmp_path / "P.work").exists()
    assert len(manifest["parts"]) > 3


def test_the_manifest_counts_and_digests(corpus: Path, foreign: Path, tmp_path: Path) -> None:
    one = preprocess(request_for(corpus, tmp_path / "one", foreign))
    two = preprocess(replace(request_for(corpus, tmp_path / "two", foreign), workers=2))
    for name in ("made_by",):  # where it says how, and nowhere else, two runs may differ
        del one[name], two[name]
    assert one == two
    texts = documents(700, seed=2)
    reader = IndexedReader(tmp_path / "one")
    assert one["num_documents"] == one["num_rows"] == reader.num_documents == 700
    assert one["num_tokens"] == reader.num_tokens == sum(part["tokens"] for part in one["parts"])
    assert one["text_bytes"] == sum(len(text.encode()) for text in texts)
    assert one["inputs"][0]["name"] == "corpus.jsonl"
    assert str(tmp_path) not in (tmp_path / "one.manifest.json").read_text()


def write_packed(corpus: Path, kind: str) -> Path:
    data = corpus.read_bytes()
    if kind == "gz":
        corpus.with_name("packed.jsonl.gz").write_bytes(gzip.compress(data))
        return corpus.with_name("packed.jsonl.gz")
    if kind == "zst":
        corpus.with_name("packed.jsonl.zst").write_bytes(zstandard.compress(data))
        return corpus.with_name("packed.jsonl.zst")
    rows = [json.loads(line) for line in data.splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), corpus.with_name("a.parquet"), row_group_size=100)
    return corpus.with_name("a.parquet")


@pytest.mark.parametrize("kind", ["gz", "zst", "parquet"])
def test_packed_files_and_tables_give_the_same_bytes(
    corpus: Path, foreign: Path, tmp_path: Path, kind: str
) -> None:
    packed = write_packed(corpus, kind)
    preprocess(request_for(corpus, tmp_path / "plain", foreign))
    request = request_for(packed, tmp_path / "packed", foreign)
    manifest = preprocess(replace(request, workers=2, part_bytes=1000))
    assert pair(tmp_path / "packed") == pair(tmp_path / "plain")
    assert (len(manifest["parts"]) > 1) == (kind == "parquet")


def test_our_tokenizers_end_documents_with_our_token(
    corpus: Path, ours: Path, tmp_path: Path
) -> None:
    request = replace(request_for(corpus, tmp_path / "P", ours), eod_token=None)
    manifest = preprocess(request)
    tokenizer = TextTokenizer.load(ours)
    reader = IndexedReader(tmp_path / "P")
    for number, text in enumerate(documents(700, seed=2)):
        assert reader.document(number).tolist() == [*tokenizer.encode(text), END]
    assert (manifest["eod_token"], manifest["eod_id"]) == ("<|end|>", END)


def test_a_tokenizer_that_gigatoken_does_not_read_falls_back_and_says_so(
    built_words: Path, tmp_path: Path, frontload: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    corpus = write_texts(tmp_path / "a.jsonl", ["w1 w2 w3", "w2 w2"])
    words = ("--input", corpus, "--output-prefix", tmp_path / "P", "--tokenizer", built_words)
    assert frontload("preprocess", *words) == 0
    printed = capsys.readouterr()
    assert "encoder tokenizers: gigatoken failed" in printed.out
    assert "Unsupported model type" in printed.out
    assert "encoder: tokenizers, since gigatoken failed" in printed.err
    with pytest.raises(RecipeError, match="write --encoder auto"):
        frontload("preprocess", *words[:3], tmp_path / "Q", *words[4:], "--encoder", "gigatoken")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("at", [0, 650])
def test_other_ids_from_gigatoken_at_any_place_fall_back_to_the_same_bytes(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, at: int
) -> None:
    """A wrong library: the gate finds it early, the check of each part later."""
    texts = documents(700, seed=2)
    texts[at] += " odd one"
    corpus = write_texts(tmp_path / "corpus.jsonl", texts)
    wrong = wrong_library(encoders.fast_encoder, lambda text: text.endswith("odd one"))
    monkeypatch.setattr(encoders, "fast_encoder", wrong)
    manifest = preprocess(replace(request_for(corpus, tmp_path / "P", foreign), workers=workers))
    assert manifest["made_by"]["encoder"] == "tokenizers"
    assert "other ids than tokenizers" in manifest["made_by"]["encoder_reason"]
    assert pair(tmp_path / "P") == pair(expected_pair(tmp_path / "plain", foreign, texts, eod=0))


def test_a_part_whose_sample_differs_late_in_the_run_falls_back(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the first 1,000 documents one document of each part is still compared."""
    texts = [*documents(1200, seed=2), *(f"odd {text}" for text in documents(400, seed=3))]
    corpus = write_texts(tmp_path / "corpus.jsonl", texts)
    wrong = wrong_library(encoders.fast_encoder, lambda text: text.startswith("odd"))
    monkeypatch.setattr(encoders, "fast_encoder", wrong)
    manifest = preprocess(request_for(corpus, tmp_path / "P", foreign))
    assert manifest["made_by"]["encoder"] == "tokenizers"
    assert pair(tmp_path / "P") == pair(expected_pair(tmp_path / "plain", foreign, texts, eod=0))


def test_text_that_spells_special_tokens_is_dropped_or_encoded(
    foreign: Path, tmp_path: Path, frontload: Callable[..., int]
) -> None:
    texts = ["data model", f"data {EOD} model", "data"]
    corpus = write_texts(tmp_path / "a.jsonl", texts)
    words = ("preprocess", "--input", corpus, "--tokenizer", foreign, "--max-bad-rate", 0.5)
    assert frontload(*words, "--output-prefix", tmp_path / "drop") == 0
    assert frontload(*words, "--output-prefix", tmp_path / "in", "--special-text", "encode") == 0
    manifest = json.loads((tmp_path / "drop.manifest.json").read_text())
    assert manifest["dropped"] == {"spells a special token": 1}
    assert pair(tmp_path / "in") == pair(expected_pair(tmp_path / "p", foreign, texts, eod=None))


def test_added_tokens_that_are_not_special_go_through_tokenizers(
    foreign: Path, tmp_path: Path
) -> None:
    described = json.loads(foreign.read_text())
    added = {"id": 600, "content": "<think>", "special": False, "single_word": False}
    added |= {"lstrip": True, "rstrip": True, "normalized": False}
    described["added_tokens"].append(added)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(described))
    texts = ["data  <think>  model", "<think><think>", "data"] * 20
    corpus = write_texts(tmp_path / "a.jsonl", texts)
    manifest = preprocess(request_for(corpus, tmp_path / "P", file))
    assert manifest["made_by"]["encoder"] == "gigatoken"
    assert pair(tmp_path / "P") == pair(expected_pair(tmp_path / "plain", file, texts, eod=0))
    think = Tokenizer.from_file(str(file)).token_to_id("<think>")
    assert think in IndexedReader(tmp_path / "P").tokens


@pytest.mark.parametrize("of", [2, 3, 5])
def test_shards_merge_to_the_bytes_of_the_whole(
    corpus: Path, foreign: Path, tmp_path: Path, frontload: Callable[..., int], of: int
) -> None:
    packed = write_packed(corpus, "gz")
    request = replace(request_for(corpus, tmp_path / "P", foreign), inputs=[corpus, packed])
    request = replace(request, part_bytes=3000)
    whole = preprocess(request)
    shards = [replace(request, shard=Shard(number=number, of=of)) for number in range(1, of + 1)]
    documents_in = [preprocess(shard)["num_documents"] for shard in shards]
    assert min(documents_in) > 0
    prefixes = [shard.prefix for shard in shards]
    assert [prefix.name for prefix in prefixes][0] == f"P-00001-of-{of:05d}"
    assert frontload("merge", *reversed(prefixes), "--output-prefix", tmp_path / "M") == 0
    assert pair(tmp_path / "M") == pair(tmp_path / "P")
    merged = json.loads((tmp_path / "M.manifest.json").read_text())
    assert {**merged, "made_by": 0} == {**whole, "made_by": 0}
    assert not (tmp_path / "M.work").exists()


def test_rows_are_judged_by_sums_that_do_not_go_over_all_parts_each_time(
    corpus: Path, foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3,000 packed files took three times as long as they do, 100,000 would have taken hours."""
    right, visited = run_module.drop_counts, []

    def counted(receipts: Sequence[Receipt]) -> Counter[str]:
        visited.append(len(receipts))
        return right(receipts)

    monkeypatch.setattr(run_module, "drop_counts", counted)
    monkeypatch.setattr(run_module, "ROWS_TO_JUDGE", 1)
    request = replace(request_for(corpus, tmp_path / "P", foreign), part_bytes=500)
    parts = len(preprocess(request)["parts"])
    assert parts > 50
    assert sum(visited) <= 3 * parts


def test_each_shard_is_judged_by_its_own_rows_and_merge_tells_the_whole(
    foreign: Path,
    tmp_path: Path,
    frontload: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Six bad rows of the last third are too many for it, and few for the whole."""
    corpus = write_texts(tmp_path / "a.jsonl", documents(600))
    with open(corpus, "a") as stream:
        stream.write("no json\n" * 4 + '{"other": 1}\n' * 2)
    request = replace(request_for(corpus, tmp_path / "P", foreign), max_bad_rate=0.02)
    assert preprocess(replace(request, output_prefix=tmp_path / "whole"))["num_rows"] == 606
    shards = [replace(request, shard=Shard(number=number, of=3)) for number in (1, 2, 3)]
    for shard in shards[:2]:
        preprocess(shard)
    with pytest.raises(RecipeError, match="6 of [12].. rows of this shard cannot be used"):
        preprocess(shards[2])
    preprocess(replace(shards[2], max_bad_rate=0.1))
    prefixes = [shard.prefix for shard in shards]
    assert frontload("merge", *prefixes, "--output-prefix", tmp_path / "M") == 0
    shown = capsys.readouterr().out
    assert "6 of 606 rows dropped" in shown
    assert "dropped 4 (0.66%): broken JSON" in shown
    assert "dropped 2 (0.33%): missing key" in shown
    assert pair(tmp_path / "M") == pair(tmp_path / "whole")


def test_a_shard_without_a_document_is_one_of_the_whole(
    corpus: Path, foreign: Path, tmp_path: Path
) -> None:
    """It was refused, so its whole could not be merged, though the run without shards passes."""
    blank = tmp_path / "z.jsonl"
    blank.write_text("\n" * 60_000)
    request = replace(request_for(corpus, tmp_path / "P", foreign), inputs=[corpus, blank])
    preprocess(replace(request, output_prefix=tmp_path / "whole"))
    shards = [replace(request, shard=Shard(number=number, of=9)) for number in range(1, 10)]
    assert [preprocess(shard)["num_documents"] for shard in shards][-1] == 0
    merge([shard.prefix for shard in shards], output_prefix=tmp_path / "M")
    assert pair(tmp_path / "M") == pair(tmp_path / "whole")
    assert not wrong(prove_prefix(shards[-1].prefix))
    alone = replace(request, inputs=[blank], output_prefix=tmp_path / "Q")
    with pytest.raises(RecipeError, match="no row to write"):
        preprocess(alone)
    only = replace(alone, shard=Shard(number=1, of=1))
    preprocess(only)
    with pytest.raises(RecipeError, match="no document in any of them"):
        merge([only.prefix], output_prefix=tmp_path / "N")


def test_shards_that_do_not_belong_together_are_refused(
    corpus: Path, foreign: Path, tmp_path: Path, frontload: Callable[..., int]
) -> None:
    request = replace(request_for(corpus, tmp_path / "P", foreign), part_bytes=3000)
    shards = [replace(request, shard=Shard(number=number, of=3)) for number in (1, 2, 3)]
    other = replace(shards[2], append_eod=False, output_prefix=tmp_path / "Q")
    of_two = replace(shards[0], shard=Shard(number=1, of=2), output_prefix=tmp_path / "R")
    for one in [*shards, other, of_two, replace(request, output_prefix=tmp_path / "W")]:
        preprocess(one)
    first, second, third = (shard.prefix for shard in shards)
    out = ("--output-prefix", tmp_path / "M")
    for prefixes, told in (
        ([first, third], "no shard 2 of 3"),
        ([first, second, third, first.with_name(f"{first.name}.manifest.json")], ""),
        ([first, second, other.prefix], "append_eod False, not True"),
        ([first, second, of_two.prefix], "shards of 2 and of 3"),
        ([first, second, tmp_path / "nowhere"], "no file nowhere.manifest.json"),
        ([first, tmp_path / "W"], "an output that is no shard"),
    ):
        with pytest.raises(RecipeError, match=told or "shard 1 twice"):
            frontload("merge", *prefixes, *out)
    data = bytearray(second.with_name(f"{second.name}.bin").read_bytes())
    data[100] ^= 1
    second.with_name(f"{second.name}.bin").write_bytes(data)
    with pytest.raises(Exception, match="its manifest says") as caught:
        frontload("merge", first, second, third, *out)
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]
    assert not list(tmp_path.glob("M*"))


def test_more_shards_than_parts_are_refused(corpus: Path, foreign: Path, tmp_path: Path) -> None:
    request = replace(request_for(corpus, tmp_path / "P", foreign), part_bytes=None)
    with pytest.raises(RecipeError, match="inputs that fall into 1 parts"):
        preprocess(replace(request, shard=Shard(number=2, of=2)))
    assert not list(tmp_path.glob("P*"))


def test_ids_are_those_of_the_library_for_hard_text(foreign: Path, tmp_path: Path) -> None:
    texts = [
        "\u0130\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "a\u0000b\u2028c",
        " " * 999,
        "\t\n" * 50 + "x",
    ]
    texts = [text for text in texts if not text.isspace()] * 5
    corpus = write_texts(tmp_path / "a.jsonl", texts)
    preprocess(request_for(corpus, tmp_path / "P", foreign))
    assert pair(tmp_path / "P") == pair(expected_pair(tmp_path / "plain", foreign, texts, eod=0))
    library = Tokenizer.from_file(str(foreign))
    library.no_truncation()
    library.no_padding()
    first = IndexedReader(tmp_path / "P").document(0)[:-1].tolist()
    assert library.decode(first) == texts[0]
