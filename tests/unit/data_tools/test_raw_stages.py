"""The stages of a study on raw files, one after the other: sets, indexes and packs with origins."""

import json
import shutil
from pathlib import Path

import pytest

from frontload.data_tools import raw_stages, stages
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.proof.checks import wrong
from frontload.data_tools.proof.pack import verify_pack
from frontload.data_tools.proof.prefix import prove_index_folder
from frontload.data_tools.shown.provenance import Trail, origins
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.data_tools.text.train_tokenizer import train_byte_pairs
from frontload.recipes.artifact import index_prefix
from frontload.recipes.errors import ArtifactError
from frontload.recipes.grammar.load import RECIPES, load_recipe
from frontload.recipes.runs.curation import CuratedSet, Curation, Source
from frontload.recipes.schema import GivenTokenizer, Index, Pack, RawFiles
from tests.unit.data_tools.room import Room, write_jsonl


def question(number: int) -> dict[str, str]:
    return {"question": f"What is {number} + 1?", "answer": f"Add one.\n#### {number + 1}"}


@pytest.fixture
def raw(room: Room) -> Room:
    """A room with raw files: base text in two files, questions, items, a tokenizer."""
    files = room.folder / "files"
    for name, first in (("a", 0), ("b", 30)):
        texts = [{"text": f"Some text, number {n}. " * 3} for n in range(first, first + 30)]
        write_jsonl(files / "base" / f"{name}.jsonl", texts)
    write_jsonl(files / "questions.jsonl", [question(n) for n in range(50)])
    write_jsonl(files / "items.jsonl", [question(n) for n in range(3)])
    (files / "tokenizer").mkdir()
    trained = train_byte_pairs(["What is 1 + 1? Add one. Some text, number"] * 9, vocab_size=300)
    (files / "tokenizer" / "tokenizer.json").write_text(trained.tokenizer.to_json())
    recipe = RawFiles(
        revision="v1",
        groups={
            "base": (f"{files}/base/*.jsonl",),
            "items": (f"{files}/items.jsonl",),
            "heldout": (f"{files}/items.jsonl",),
            "source/sums": (f"{files}/questions.jsonl",),
        },
    )
    run(room, "import_raw", recipe, name="import_raw")
    given = GivenTokenizer(file=str(files / "tokenizer"), revision="v1")
    run(room, "import_tokenizer", given, name="tokenizer")
    return room


def run(room: Room, stage: str, recipe: object, *, name: str, **inputs: Path) -> Path:
    work = room.workspace(name)
    getattr(raw_stages, stage)(recipe, inputs, work)
    shutil.rmtree(work.scratch)
    return work.path


def curation(room: Room) -> Curation:
    found = load_recipe(RECIPES / "curations" / "defaults.yaml", Curation).value
    files = (str(room.folder / "files" / "questions.jsonl"),)
    sets = {"sums": CuratedSet(members=("sums",), text_copy=True)}
    sources = {"sums": Source(files=files, adapter="gsm8k", domain="math")}
    return Curation(**(vars(found) | {"sources": sources, "sets": sets}))


def curate(room: Room, *, name: str = "sets") -> Path:
    inputs = {"raw": room.folder / "import_raw", "tokenizer": room.folder / "tokenizer"}
    return run(room, "curate_sets", curation(room), name=name, **inputs)


def index(room: Room, documents: Path, source: str, *, name: str = "index") -> Path:
    recipe = Index(append_eod=True, source=source, text_field="text")
    inputs = {"documents": documents, "tokenizer": room.folder / "tokenizer"}
    return room.run("index", recipe, name=f"{name}-{source}", **inputs)


def test_raw_files_become_indexes_and_packs_that_are_proven(raw: Room) -> None:
    base = index(raw, raw.folder / "import_raw", "base")
    sets = curate(raw)
    for folder, documents in ((base, 60), (index(raw, sets, "sums"), 50)):
        assert wrong(prove_index_folder(folder)) == []
        assert IndexedReader(folder / "documents").num_documents == documents
        counts = read_json(folder / "index.json")
        assert (counts["num_rows"], counts["dropped"]) == (documents, {})
        assert sorted(path.name for path in folder.iterdir()) == [
            "documents.bin", "documents.idx", "documents.manifest.json", "index.json",
        ]  # fmt: skip
    trail = Trail(prefix=index_prefix(base), documents=raw.folder / "import_raw")
    found = origins(trail, {31}, TextTokenizer.load(raw.folder / "tokenizer"))[31]
    assert (found.file, found.row) == ("b.jsonl", 2)
    recipe = Pack(
        sequence_tokens=256, tokens=256 * 20, over_long="split_at_turn", seed=1, source="sums"
    )
    inputs = {"documents": sets, "tokenizer": raw.folder / "tokenizer"}
    folder = raw.run("pack", recipe, name="pack", **inputs)
    assert wrong(verify_pack(folder)) == []
    pack = read_json(folder / "pack.json")
    assert (pack["conversations_packed"], pack["num_samples"]) == (50, 20)
    assert list(pack["sources"]) == ["sums"]
    assert pack["budget_tokens"] == 256 * 20


def test_a_later_reader_finds_other_bytes_of_the_same_size(raw: Room) -> None:
    """The first one reads what is there; names and sizes tell the next one nothing."""
    index(raw, raw.folder / "import_raw", "base")
    curate(raw)
    for name, old, again in (
        ("base/b.jsonl", "number 31", lambda: index(
            raw, raw.folder / "import_raw", "base", name="again")),
        ("questions.jsonl", "What is 7", lambda: curate(raw, name="again")),
    ):  # fmt: skip
        file = raw.folder / "files" / name
        text = file.read_text()
        file.write_text(text.replace(old, old.replace("1", "9").replace("7", "8")))
        assert file.stat().st_size == len(text)
        with pytest.raises(ArtifactError, match=f"{name}: .*revision v1 of it had .*another rev"):
            again()
        file.write_text(text)
        again_folder = raw.workspace(f"{name.replace('/', '-')}-whole")
        assert not list(again_folder.path.iterdir())


def test_a_file_of_another_size_is_refused_before_it_is_read(raw: Room) -> None:
    file = raw.folder / "files" / "base" / "a.jsonl"
    with open(file, "a") as stream:
        stream.write(json.dumps({"text": "more"}) + "\n")
    with pytest.raises(ArtifactError, match="a.jsonl: has 2,.* bytes; it was listed with 2,"):
        index(raw, raw.folder / "import_raw", "base")
    file.unlink()
    with pytest.raises(ArtifactError, match="a.jsonl: is gone"):
        stages.index(
            Index(append_eod=True, source="base", text_field="text"),
            {"documents": raw.folder / "import_raw", "tokenizer": raw.folder / "tokenizer"},
            raw.workspace("index-gone"),
        )
