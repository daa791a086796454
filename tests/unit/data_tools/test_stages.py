"""Stages as the runner calls them: same bytes again, also over a half-filled workspace."""

import os
import shutil
from pathlib import Path

import pytest

from frontload.data_tools import stages
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedWriter
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.schema import Blend, Index, Mix, Pack, Tokenizer, Window
from tests.unit.data_tools.room import Room

RECIPES = {
    "train_tokenizer": Tokenizer(kind="word", vocab_size=512),
    "curate": Mix(
        name="lmq",
        members=("ldq", "shq"),
        min_answer_tokens=0,
        share_of_member={"ldq": 0.5},
        seed=3,
    ),
    "index": Index(append_eod=True),
    "blend": Blend(
        phase="reasoning",
        windows=(Window(source="lmq", start_tokens=64, tokens=1280),),
        sequence_tokens=64,
        max_epochs={"lmq": 2.0},
        seed=1,
    ),
    "pack": Pack(sequence_tokens=64, tokens=6400, over_long="drop", seed=4),
}


def inputs_of(room: Room, stage: str) -> dict[str, Path]:
    folder = room.folder
    return {
        "train_tokenizer": {"corpus": room.corpus},
        "curate": {"corpus": room.corpus, "tokenizer": folder / "tokenizer"},
        "index": {"documents": folder / "mix-lmq", "tokenizer": folder / "tokenizer"},
        "blend": {"lmq": folder / "index-lmq"},
        "pack": {"documents": folder / "mix-lmq", "tokenizer": folder / "tokenizer"},
    }[stage]


@pytest.mark.parametrize("stage", RECIPES)
def test_a_killed_stage_ends_with_the_same_bytes(
    built_room: Room, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies at its n-th rename, for every n, and is called again over what it left."""
    import os

    def made(name: str) -> dict[str, bytes]:
        folder = built_room.run(stage, RECIPES[stage], name=name, **inputs_of(built_room, stage))
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    clean = made(f"clean-{stage}")
    replace = os.replace
    for survived in range(len(clean)):
        renames = 0

        def dying(*names: Path) -> None:
            nonlocal renames
            renames += 1
            if renames > survived:  # noqa: B023 - called inside this turn of the loop only
                raise KeyboardInterrupt
            replace(*names)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            with pytest.raises(KeyboardInterrupt):
                made(f"killed-{stage}-{survived}")
        again = made(f"killed-{stage}-{survived}")
        assert again == clean


def test_an_input_that_was_made_again_is_read_again(
    built_room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes at another time: what a killed run left of them is no hindrance."""
    inputs = inputs_of(built_room, "index")
    again = built_room.workspace("documents-again").path
    shutil.copytree(inputs["documents"], again, dirs_exist_ok=True)
    work = built_room.workspace("index-again")

    def dying(*words: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("frontload.data_tools.preprocess.run._Run._publish", dying)
        with pytest.raises(KeyboardInterrupt):
            stages.index(Index(append_eod=True), inputs | {"documents": again}, work)
    assert list(work.scratch.glob("documents.work/unit-*"))
    os.utime(again / "documents.jsonl", ns=(1, 1))
    stages.index(Index(append_eod=True), inputs | {"documents": again}, work)
    for path in (built_room.folder / "index-lmq").iterdir():
        assert path.read_bytes() == (work.path / path.name).read_bytes()


def test_index_counts_documents_and_tokens(built_room: Room) -> None:
    counts = read_json(built_room.folder / "index-lmq" / "index.json")
    assert counts["num_documents"] == 380
    assert counts["dtype"] == "uint16"
    assert counts["unknown_tokens"] == 0


def test_base_text_may_be_indexed_without_its_end(built_room: Room) -> None:
    inputs = {
        "documents": built_room.folder / "mix-base",
        "tokenizer": built_room.folder / "tokenizer",
    }
    folder = built_room.run("index", Index(append_eod=False), name="index-bare", **inputs)
    with_end = read_json(built_room.folder / "index-base" / "index.json")
    bare = read_json(folder / "index.json")
    assert bare["num_tokens"] == with_end["num_tokens"] - with_end["num_documents"]


def test_a_missing_tokenizer_stops_a_stage_before_it_writes(built_room: Room) -> None:
    inputs = inputs_of(built_room, "index") | {"tokenizer": built_room.folder / "gone"}
    work = built_room.workspace("index-gone")
    with pytest.raises(RecipeError, match="tokenizer .*gone: no file"):
        stages.index(Index(append_eod=True), inputs, work)
    assert not list(work.path.iterdir())


def test_a_truncated_index_stops_the_blend_before_it_writes(built_room: Room) -> None:
    torn = built_room.workspace("index-torn").path
    for path in (built_room.folder / "index-lmq").iterdir():
        (torn / path.name).write_bytes(path.read_bytes()[: -5 if path.suffix == ".bin" else None])
    work = built_room.workspace("blend-torn")
    with pytest.raises(ArtifactError, match="documents.bin at byte"):
        stages.blend(RECIPES["blend"], {"lmq": torn}, work)  # type: ignore[arg-type]
    assert not list(work.path.iterdir())


def test_an_empty_index_is_refused_by_the_blend(built_room: Room) -> None:
    import numpy as np

    empty = built_room.workspace("index-empty").path
    with IndexedWriter(empty / "documents", np.dtype(np.uint16)):
        pass
    with pytest.raises(RecipeError, match="an index without tokens"):
        built_room.run("blend", RECIPES["blend"], name="blend-empty", lmq=empty)


def test_a_corpus_without_sets_has_no_tokenizer(tmp_path: Path, built_room: Room) -> None:
    with pytest.raises(RecipeError, match="none of its training sets"):
        built_room.run("train_tokenizer", RECIPES["train_tokenizer"], name="t", corpus=tmp_path)
