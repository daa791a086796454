"""Outputs in a store: the bytes of a disk, whole or not at all, and no file uploaded twice."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontload.data_tools.packing.build import build_pack
from frontload.data_tools.packing.plan import PackRequest
from frontload.data_tools.preprocess.merge import merge
from frontload.data_tools.preprocess.request import Shard
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.stores.path import StorePath
from frontload.recipes.errors import RecipeError, StageError
from tests.unit.data_tools_stores.test_preprocess import LINES, request

FILES = ("P.bin", "P.idx", "P.manifest.json")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are typed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(LINES)
    return tmp_path


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    yield "s3://bucket/out"
    s3.invalidate_cache()
    if s3.exists("bucket/out"):
        s3.rm("bucket/out", recursive=True)


class Refusing:
    """A store of which the uploads that come behind some fail; it notes all of them."""

    def __init__(self, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uploaded: list[str] = []
        self.left = 100
        for name in ("put_file", "pipe_file"):
            monkeypatch.setattr(s3, name, self._noted(getattr(s3, name)))

    def _noted(self, real: Any) -> Any:
        def noted(first: str, second: Any, **other: Any) -> None:
            url = first if first.startswith("s3") else second
            if not self.left:
                raise ConnectionError("gone")
            self.left -= 1
            real(first, second, **other)
            self.uploaded.append(url.rpartition("/")[2])

        return noted


def test_a_pair_in_a_store_has_the_bytes_of_a_disk(
    s3: Any, bucket: str, folder: Path, tokenizer: Path
) -> None:
    on_disk = preprocess(request("a.jsonl", folder / "P", tokenizer))
    asked = request("a.jsonl", StorePath(f"{bucket}/P"), tokenizer)
    assert preprocess(asked) == on_disk
    for name in FILES:
        assert s3.cat_file(f"bucket/out/{name}") == (folder / name).read_bytes()
    assert not (folder / "P.work").exists()
    assert preprocess(asked) == on_disk  # finished: it stays
    with pytest.raises(RecipeError, match="P.manifest.json is there, of another request"):
        preprocess(replace(asked, append_eod=False))


@pytest.mark.parametrize("done", [0, 1, 2])
def test_an_upload_that_is_cut_goes_on_and_publishes_last_what_describes(
    s3: Any,
    bucket: str,
    folder: Path,
    tokenizer: Path,
    monkeypatch: pytest.MonkeyPatch,
    done: int,
) -> None:
    preprocess(request("a.jsonl", folder / "P", tokenizer))
    store = Refusing(s3, monkeypatch)
    store.left = done
    asked = request("a.jsonl", StorePath(f"{bucket}/P"), tokenizer)
    with pytest.raises(StageError, match=r"writing s3://bucket/out/P\..*: the store does not"):
        preprocess(asked)
    assert not s3.exists("bucket/out/P.manifest.json")
    store.left = 100
    preprocess(asked)
    assert store.uploaded == list(FILES)
    for name in FILES[:2]:
        assert s3.cat_file(f"bucket/out/{name}") == (folder / name).read_bytes()


def test_what_came_meanwhile_is_not_replaced(
    s3: Any, bucket: str, folder: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = s3.put_file

    def with_a_rival(first: str, second: str) -> None:
        real(first, second)
        s3.pipe_file("bucket/out/P.manifest.json", b"{}")

    monkeypatch.setattr(s3, "put_file", with_a_rival)
    with pytest.raises(RecipeError, match="something that came while it was made"):
        preprocess(request("a.jsonl", StorePath(f"{bucket}/P"), tokenizer))
    assert s3.cat_file("bucket/out/P.manifest.json") == b"{}"


def test_shards_of_a_disk_are_merged_into_a_store(
    s3: Any, bucket: str, folder: Path, tokenizer: Path
) -> None:
    preprocess(request("a.jsonl", folder / "P", tokenizer))
    asked = request("a.jsonl", folder / "S", tokenizer)
    for number in (1, 2):
        preprocess(replace(asked, shard=Shard(number=number, of=2)))
    shards = sorted(folder.glob("S-*.manifest.json"))
    merge(shards, output_prefix=StorePath(f"{bucket}/P"))
    for name in FILES[:2]:
        assert s3.cat_file(f"bucket/out/{name}") == (folder / name).read_bytes()


def test_a_pack_goes_from_a_store_to_a_store(
    s3: Any, bucket: str, folder: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"question": f"{n} and 1?", "trace": "", "answer": f"{n + 1}"} for n in range(40)]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / "sft.jsonl").write_bytes(data)
    s3.pipe_file("bucket/sft.jsonl", data)
    asked = PackRequest(
        inputs=("sft.jsonl",),
        tokenizer=tokenizer,
        template=None,
        output=folder / "pack",
        sequence_tokens=128,
        over_long="drop",
        source_field="source",
        epochs=1,
        seed=1,
        workers=1,
    )
    on_disk = build_pack(asked)
    stored = replace(asked, inputs=("s3://bucket/sft.jsonl",), output=StorePath(f"{bucket}/pack"))
    store = Refusing(s3, monkeypatch)
    store.left = 3
    with pytest.raises(StageError, match="writing s3://bucket/out/pack/"):
        build_pack(stored)
    store.left = 100
    pack = build_pack(stored)
    assert store.uploaded[-1] == "pack.json"
    assert sorted(store.uploaded) == sorted([*on_disk["files"], "pack.json"])
    assert pack["files"] == on_disk["files"]
    for name in on_disk["files"]:
        assert s3.cat_file(f"bucket/out/pack/{name}") == (folder / "pack" / name).read_bytes()
    assert build_pack(stored) == pack
    assert pack["inputs"][0]["url"] == "s3://bucket/sft.jsonl"


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("https://host/P", "a place at https://; outputs go to s3:// or gs://, or to a disk"),
        ("hf://datasets/org/set/P", "a place at hf://"),
        ("s3://bucket", "a bucket without a name in it"),
    ],
)
def test_places_that_nothing_is_written_to_are_refused(
    folder: Path, tokenizer: Path, place: str, told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        preprocess(request("a.jsonl", StorePath(place), tokenizer))
    assert not list(folder.glob("*.work"))


def test_a_bucket_that_is_not_there_is_told_and_the_parts_stay(
    s3: Any, folder: Path, tokenizer: Path
) -> None:
    with pytest.raises(StageError, match=r"no such bucket|does not exist"):
        preprocess(request("a.jsonl", StorePath("s3://nowhere/P"), tokenizer))
    assert (folder / "P.work").exists()
