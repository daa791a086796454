"""The commands of the data room: exit codes, what they print, bytes for any number of workers."""

import argparse
import gzip
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.cli import add_commands
from frontload.data_tools.indexed import IndexedReader
from frontload.data_tools.tokenizer import END, TextTokenizer
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.schema import Blend, Window
from tests.unit.data_tools.room import Room, write_jsonl


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args([str(word) for word in words])
    return arguments.run(arguments)


def blend_of_base(phase: str, *, start: int, tokens: int) -> Blend:
    window = Window(source="base", start_tokens=start, tokens=tokens)
    max_epochs = {"base": 1.0}
    return Blend(phase=phase, windows=(window,), sequence_tokens=64, max_epochs=max_epochs, seed=1)


@pytest.fixture(scope="module")
def store(built_room: Room) -> Path:
    """A trunk, two arms that branch from it, and their index, as the store lays them out."""
    base = built_room.folder / "index-base"
    trunk = blend_of_base("general", start=0, tokens=640)
    blend = built_room.run("blend", trunk, name="store/blend/general-0", base=base)
    for arm, tokens in (("one", 640), ("two", 1280)):
        recipe = blend_of_base("second", start=640, tokens=tokens)
        inputs = {"base": base, "before": blend}
        built_room.run("blend", recipe, name=f"store/blend/{arm}-0", **inputs)
    shutil.copytree(base, blend.parents[1] / "index" / "base-0")
    return blend.parents[1]


def test_verify_compares_phases_of_one_run_and_not_two_arms(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", *sorted((store / "blend").iterdir())) == 0
    printed = capsys.readouterr().out
    assert printed.count("base: disjoint from phase general: 0 stream tokens in both") == 2
    assert "disjoint from phase second" not in printed


def test_verify_finds_the_index_in_the_store(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", store / "blend" / "general-0", store / "index" / "base-0") == 0
    printed = capsys.readouterr().out
    assert "ok    base: samples tile the window in order" in printed
    assert "all statements hold" in printed


def test_verify_says_1_when_a_statement_is_wrong(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "store"
    shutil.copytree(store, copied)
    samples = copied / "blend" / "general-0" / "samples.npy"
    np.save(samples, np.load(samples)[::-1])
    assert run("verify", copied / "blend" / "general-0") == 1
    assert "WRONG base: samples tile the window" in capsys.readouterr().out


def test_verify_refuses_what_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="none of the files that tell a kind"):
        run("verify", tmp_path)
    with pytest.raises(RecipeError, match="no such folder"):
        run("verify", tmp_path / "nowhere")


def test_peek_shows_counts_and_text(built_room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = built_room.folder / "tokenizer"
    index = built_room.folder / "index-ldq"
    assert run("peek", index, "--rows", 1, "--tokenizer", tokenizer) == 0
    printed = capsys.readouterr().out
    assert '"num_documents": 300' in printed
    assert "0: <|user|> what is" in printed
    assert run("peek", built_room.folder / "mix-lmq") == 0
    assert '{"id": "ldq-0"' in capsys.readouterr().out


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    rng = random.Random(2)
    rows = [
        {"body": " ".join(f"w{rng.randrange(40)}" for _ in range(rng.randrange(1, 30)))}
        for _ in range(2500)
    ]
    rows[7]["body"] = "  "
    rows[8]["body"] = "w1 <|end|> w2"
    return write_jsonl(tmp_path / "raw.jsonl", rows)


def preprocess(room: Room, raw: Path, prefix: Path, *more: object) -> int:
    tokenizer = room.folder / "tokenizer"
    words = ("--input", raw, "--output-prefix", prefix, "--tokenizer", tokenizer)
    return run("preprocess", *words, "--json-key", "body", *more)


def test_preprocess_writes_the_tokens_of_every_row(
    built_room: Room, raw: Path, tmp_path: Path
) -> None:
    assert preprocess(built_room, raw, tmp_path / "P", "--append-eod") == 0
    reader = IndexedReader(tmp_path / "P")
    tokenizer = TextTokenizer.load(built_room.folder / "tokenizer")
    texts = [json.loads(line)["body"] for line in raw.open()]
    kept = [text for text in texts if text.strip() and "<|end|>" not in text]
    assert reader.num_documents == len(kept) == 2498
    for number in (0, 6, 7, 2497):
        assert reader.document(number).tolist() == [*tokenizer.encode(kept[number]), END]
    manifest = json.loads((tmp_path / "P.manifest.json").read_text())
    assert manifest["dropped"] == {"empty text": 1, "spells a special token": 1}
    assert manifest["num_tokens"] == reader.num_tokens
    assert str(tmp_path) not in (tmp_path / "P.manifest.json").read_text()


@pytest.mark.parametrize("workers", [2, 3])
def test_preprocess_gives_the_same_bytes_for_any_workers_and_packing(
    built_room: Room, raw: Path, tmp_path: Path, workers: int
) -> None:
    packed = tmp_path / "raw.jsonl.gz"
    packed.write_bytes(gzip.compress(raw.read_bytes()))
    preprocess(built_room, raw, tmp_path / "one")
    preprocess(built_room, packed, tmp_path / "many", "--workers", workers)
    for suffix in ("bin", "idx"):
        one, many = (tmp_path / f"{name}.{suffix}" for name in ("one", "many"))
        assert one.read_bytes() == many.read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_preprocess_names_the_bad_row_and_leaves_nothing(
    built_room: Room, raw: Path, tmp_path: Path, workers: int
) -> None:
    with open(raw, "a") as stream:
        stream.write('{"text": "w1"}\n')
    with pytest.raises(RecipeError, match="raw.jsonl:2501: field 'body' .--json-key.: fields text"):
        preprocess(built_room, raw, tmp_path / "P", "--workers", workers)
    assert not list(tmp_path.glob("P.*"))


def test_preprocess_refuses_what_it_cannot_read(
    built_room: Room, raw: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="--input .*nowhere.jsonl: there is no such file"):
        preprocess(built_room, tmp_path / "nowhere.jsonl", tmp_path / "P")
    with pytest.raises(RecipeError, match="--workers: 0"):
        preprocess(built_room, raw, tmp_path / "P", "--workers", 0)
    with pytest.raises(RecipeError, match="the prefix's folder exists"):
        preprocess(built_room, raw, tmp_path / "no" / "P")
    words = ("--input", raw, "--output-prefix", tmp_path / "P", "--tokenizer", tmp_path)
    with pytest.raises(ArtifactError, match="run the tokenizer stage"):
        run("preprocess", *words, "--json-key", "body")
    empty = write_jsonl(tmp_path / "empty.jsonl", [])
    with pytest.raises(RecipeError, match="no row to write"):
        preprocess(built_room, empty, tmp_path / "P")
