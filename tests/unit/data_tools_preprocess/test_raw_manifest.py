"""Raw inputs by name and size: planned unread, digested by the first reader, then checked."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from frontload.data_tools.preprocess.request import PreprocessRequest
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.raw import inputs, manifest
from frontload.data_tools.raw.manifest import (
    changed_since,
    check_sizes,
    list_files,
    read_digests,
    read_manifest,
    sizes_of,
    write_manifest,
)
from frontload.data_tools.raw.plain import DOCUMENT_CHARACTERS
from frontload.data_tools.raw.rows import read_rows
from frontload.recipes.errors import ArtifactError, RecipeError
from tests.unit.data_tools_preprocess.files import pair


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": f"text {name}"}) + "\n")
    return tmp_path / "a.jsonl", tmp_path / "b.jsonl"


def listed(folder: Path, revision: str = "") -> tuple[manifest.RawFile, ...]:
    return list_files([f"{folder}/*.jsonl"], revision=revision)


def test_listing_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 1 TB, whose bytes are not there, is listed at once."""
    with open(tmp_path / "huge.jsonl", "wb") as stream:
        stream.truncate(10**12)

    def no_reading(*words: object, **more: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", no_reading)
    [file] = listed(tmp_path)
    assert file.size_bytes == 10**12
    assert file.sha256 == ""


def test_the_first_reader_fills_in_and_a_later_one_checks(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    sizes: list[int] = []
    found = read_digests(listed(tmp_path, "v1"), report=sizes.append)
    assert [file.sha256 for file in found] == [
        hashlib.sha256(file.read_bytes()).hexdigest() for file in two
    ]
    assert sum(sizes) == sum(file.stat().st_size for file in two)
    write_manifest(tmp_path / "inputs.json", found)
    assert read_manifest(tmp_path / "inputs.json") == found
    assert read_digests(read_manifest(tmp_path / "inputs.json")) == found
    two[1].write_text(json.dumps({"text": "tExt b"}) + "\n")  # of the same size
    with pytest.raises(ArtifactError) as caught:
        read_digests(found)
    for part in ("b.jsonl", "revision v1", "when it was first read", "state another revision"):
        assert part in str(caught.value)
    assert read_digests([replace(file, sha256="") for file in found])  # of a new revision


def test_what_changed_since_is_seen_without_reading(two: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "inputs.json"
    write_manifest(file, read_digests(listed(tmp_path)))
    before = file.stat().st_mtime_ns
    for one in two:
        os.utime(one, ns=(before - 10**9, before - 10**9))
    files = read_manifest(file)
    assert changed_since(files, listing=file) == []
    os.utime(two[0], ns=(before + 10**9, before + 10**9))
    assert changed_since(files, listing=file) == [two[0].as_posix()]
    two[1].write_text("longer than it was, by far\n")
    os.utime(two[1], ns=(before - 10**9, before - 10**9))
    assert changed_since(files, listing=file) == [one.as_posix() for one in two]
    two[0].unlink()  # moved away: nothing can be said of it, and nothing reads it again
    assert changed_since(files, listing=file) == [two[1].as_posix()]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda sizes: sizes | {"gone.jsonl": 3}, "gone.jsonl: no such file; .*made for 3 bytes"),
        (lambda sizes: dict(list(sizes.items())[:1]), "b.jsonl: 19 bytes; .*without this file"),
        (lambda sizes: {name: 7 for name in sizes}, "a.jsonl: 19 bytes; .*made for 7 bytes"),
    ],
)
def test_files_that_are_not_those_of_the_plan_are_refused(
    two: tuple[Path, Path], tmp_path: Path, change: object, told: str
) -> None:
    files = listed(tmp_path)
    check_sizes(files, sizes_of(files), asked_by="own.files")
    with pytest.raises(RecipeError, match=told):
        check_sizes(files, change(sizes_of(files)), asked_by="own.files")  # type: ignore[operator]


def test_a_damaged_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text('{"format": 1, "files": [{"name": "a"}]}')
    with pytest.raises(ArtifactError, match="no field files.0.size_bytes"):
        read_manifest(tmp_path / "inputs.json")


def test_plain_text_is_rows_of_whole_paragraphs(tmp_path: Path, ours: Path) -> None:
    file = tmp_path / "book.txt"
    paragraphs = [f"paragraph {number}\nof two lines " + "x" * 700 for number in range(7)]
    file.write_text("\n\n \n".join(paragraphs) + "\n")
    texts = [row.value["text"] for row in read_rows(file)]  # type: ignore[union-attr]
    assert "\n\n".join(texts) == "\n\n".join(paragraphs)
    assert all(len(text) >= DOCUMENT_CHARACTERS for text in texts[:-1])
    assert len(texts) == 3
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "book.jsonl").write_text(lines)
    pairs = []
    for name in ("book.txt", "book.jsonl"):
        prefix = tmp_path / name.replace(".", "-")
        preprocess(
            PreprocessRequest(inputs=[tmp_path / name], output_prefix=prefix, tokenizer=ours)
        )
        pairs.append(pair(prefix))
    assert pairs[0] == pairs[1]
    assert inputs.file_format(tmp_path / "README.md") is inputs.Format.TEXT
    file.write_bytes(b"fine\n\ncaf\xe9\n")
    with pytest.raises(RecipeError, match="book.txt:3: byte 0xe9 at column 4; .*UTF-8.*iconv"):
        list(read_rows(file))
