"""Files in stores are read as those of a disk are: same rows, ranges only, one version."""

import gzip
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from frontload.data_tools.disk.files import file_sha256
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.raw.rows import read_rows
from frontload.data_tools.stores import stream
from frontload.data_tools.stores.path import StorePath, files_at
from frontload.recipes.errors import RecipeError, StageError
from tests.unit.data_tools_stores.servers import Hub, Shelf

ROWS = [{"text": f"row {number} " + "word " * 20} for number in range(300)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def table() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=64)
    return sink.getvalue()


FORMS = {
    "a.jsonl": LINES,
    "a.jsonl.gz": gzip.compress(LINES[:5000]) + gzip.compress(LINES[5000:]),
    "a.jsonl.zst": zstandard.compress(LINES),
    "a.parquet": table(),
}


def texts(file: Path) -> list[str]:
    return [row.value["text"] for row in read_rows(file)]  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "AHEAD_BYTES", 4096)
    monkeypatch.setattr(stream, "TABLE_BLOCK_BYTES", 2048)


@pytest.mark.parametrize("name", FORMS)
def test_every_format_has_the_rows_that_it_has_on_a_disk(
    s3: Any, web: Shelf, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(FORMS[name])
    s3.pipe_file(f"bucket/in/{name}", FORMS[name])
    web.files[f"/{name}"] = FORMS[name]
    expected = [row["text"] for row in ROWS]
    for url in (f"s3://bucket/in/{name}", f"{web.address}/{name}", str(tmp_path / name)):
        [file] = expand_inputs([url])
        assert str(file) == url
        assert texts(file) == expected
        assert file_sha256(file) == file_sha256(tmp_path / name)


def test_a_web_server_is_asked_for_ranges_alone(web: Shelf) -> None:
    web.files["/a.jsonl"] = LINES
    [file] = expand_inputs([f"{web.address}/a.jsonl"])
    texts(file)
    gets = [asked for method, _, asked in web.asked if method == "GET"]
    assert len(gets) == -(-len(LINES) // 4096)
    assert all(gets)


def test_a_glob_in_a_store_is_sorted_and_needs_one_listing(s3: Any) -> None:
    for name in ("b/2.jsonl", "b/1.jsonl", "b/deep/3.jsonl", "b/note.csv"):
        s3.pipe_file(f"bucket/glob/{name}", name.encode())
    found = files_at("s3://bucket/glob/b/*.jsonl")
    assert [str(file) for file in found] == [
        "s3://bucket/glob/b/1.jsonl",
        "s3://bucket/glob/b/2.jsonl",
    ]
    assert [str(file) for file in files_at("s3://bucket/glob/**/3.jsonl")] == [
        "s3://bucket/glob/b/deep/3.jsonl"
    ]
    s3.pipe_file("bucket/glob/b/1.jsonl", b"another")
    assert found[0].stat().st_size == len("b/1.jsonl")  # what the listing said


def test_a_path_of_a_store_is_a_path(s3: Any) -> None:
    s3.pipe_file("bucket/in/p.jsonl", LINES)
    file = StorePath("s3://bucket/in/p.jsonl")
    assert (file.name, file.suffix, file.exists()) == ("p.jsonl", ".jsonl", True)
    assert str(file.with_name("q.jsonl")) == "s3://bucket/in/q.jsonl"
    assert not file.with_name("q.jsonl").exists()
    there = pickle.loads(pickle.dumps(file))
    assert there == file
    assert there.stat().st_size == len(LINES)
    with pytest.raises(RecipeError, match="s3://bucket/in/p.jsonl: a file in a store; "):
        np.fromfile(file, dtype=np.uint8)


def test_versions_differ_in_the_time_that_a_path_tells(s3: Any) -> None:
    times = set()
    for data in (b"one", b"two"):  # of one size, within a second
        s3.pipe_file("bucket/in/v.jsonl", data)
        times.add(StorePath("s3://bucket/in/v.jsonl").stat().st_mtime_ns)
    assert len(times) == 2


def test_the_hub_is_read_at_the_commit_that_a_branch_had(hub: Hub) -> None:
    first = hub.commit({"data/a.jsonl": LINES, "data/b.parquet": table()})
    files = expand_inputs(["hf://datasets/org/set/data/*"])
    hub.commit({"data/a.jsonl": b'{"text": "moved"}\n'})
    assert [str(file) for file in files] == [
        f"hf://datasets/org/set@{first}/data/a.jsonl",
        f"hf://datasets/org/set@{first}/data/b.parquet",
    ]
    assert texts(files[0]) == texts(files[1]) == [row["text"] for row in ROWS]
    [moved] = expand_inputs(["hf://datasets/org/set/data/a.jsonl"])
    assert texts(moved) == ["moved"]
    [again] = expand_inputs([str(files[0])])
    assert texts(again) == texts(files[0])


# ------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("faults", [[503], [0, 503, 500]])
def test_a_failure_that_passes_loses_nothing(web: Shelf, faults: list[int]) -> None:
    web.files["/a.jsonl"] = LINES
    [file] = expand_inputs([f"{web.address}/a.jsonl"])
    web.faults = faults
    assert texts(file) == [row["text"] for row in ROWS]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.jsonl.gz"])
def test_a_store_that_vanishes_is_told_with_the_byte(web: Shelf, name: str) -> None:
    web.files[f"/{name}"] = FORMS[name]
    [file] = expand_inputs([f"{web.address}/{name}"])
    web.faults = [503] * 4  # one more than there are waits
    with pytest.raises(
        StageError, match=rf"reading http.*{name} at byte \d+: the store does not answer .*503.*;"
    ):
        texts(file)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "the store refuses access .*; credentials allow it from the first .*; renew"),
        (403, "the store refuses access"),
        (404, "the file is gone; .*; put it back and run the same"),
    ],
)
def test_what_will_not_pass_is_told_at_once(web: Shelf, status: int, told: str) -> None:
    web.files["/a.jsonl"] = LINES
    [file] = expand_inputs([f"{web.address}/a.jsonl?token=tell-no-one"])
    web.faults = [status, 503, 503, 503, 503]
    with pytest.raises(StageError, match=told) as caught:
        texts(file)
    assert "tell-no-one" not in str(caught.value)
    assert len(web.faults) == 4


def test_a_signed_url_is_used_and_never_shown(web: Shelf) -> None:
    web.files["/a.jsonl"] = LINES
    [file] = expand_inputs([f"{web.address}/a.jsonl?X-Amz-Signature=tell-no-one&b=2"])
    assert texts(pickle.loads(pickle.dumps(file))) == [row["text"] for row in ROWS]
    assert all(path == "/a.jsonl?X-Amz-Signature=tell-no-one&b=2" for _, path, _ in web.asked)
    assert str(file) == f"{file}" == f"{web.address}/a.jsonl"
    assert "tell-no-one" not in repr(file)
    web.files.clear()
    with pytest.raises(RecipeError, match="there is no such file") as caught:
        expand_inputs([f"{web.address}/a.jsonl?X-Amz-Signature=tell-no-one"])
    assert "tell-no-one" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["s3://bucket/in/m.jsonl", "web", "s3://bucket/in/m.parquet", "web.parquet"]
)
def test_a_file_that_is_written_anew_while_it_is_read_is_refused(
    s3: Any, web: Shelf, url: str
) -> None:
    is_table = url.endswith("parquet")
    before = table() if is_table else LINES
    after = before.replace(b"row 299", b"ROW 299") + b" " * (not is_table)
    name = "/m.parquet" if is_table else "/m.jsonl"

    def write(data: bytes) -> None:
        web.files[name] = data
        s3.pipe_file(f"bucket/in{name}", data)

    write(before)
    [file] = expand_inputs([url if url.startswith("s3") else f"{web.address}{name}"])
    rows = iter(read_rows(file))
    next(rows)
    write(after)
    with pytest.raises(RecipeError, match="written anew since the run has looked at it"):
        list(rows)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://bucket/none.jsonl", "reading s3://bucket/none.jsonl: there is no such file"),
        ("s3://no-bucket/none.jsonl", "there is no such file"),
        ("s3://bucket/none*.jsonl", "no file; every pattern"),
        ("ftp://host/a.jsonl", "a URL of ftp://; stores are those of s3://, gs://, hf://"),
        ("gs://bucket/a.jsonl", "no package gcsfs; .*pip install gcsfs"),
        ("https://me:tell-no-one@host/a.jsonl", "https://host/a.jsonl: .*a password in it"),
        ("s3://bucket/in/a.csv", "the suffix tells the format"),
    ],
)
def test_urls_that_cannot_be_read_are_refused(s3: Any, url: str, told: str) -> None:
    s3.pipe_file("bucket/in/a.csv", b"a")
    with pytest.raises(RecipeError, match=told) as caught:
        expand_inputs([url])
    assert "tell-no-one" not in str(caught.value)


def test_a_hub_that_wants_a_token_refuses_access(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit({"a.jsonl": LINES})
    hub.token = "hf_secret"
    with pytest.raises(RecipeError, match="hf://datasets/org/set/a.jsonl"):
        expand_inputs(["hf://datasets/org/set/a.jsonl"])


def test_a_folder_in_a_store_is_no_input(s3: Any) -> None:
    s3.pipe_file("bucket/folder.jsonl/a.jsonl", LINES)
    with pytest.raises(RecipeError, match="a folder; .*name the files in it"):
        expand_inputs(["s3://bucket/folder.jsonl"])
