"""`data preprocess` of files in stores: the bytes of a disk, pinned, resumed, nothing half done."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontload.data_tools.preprocess.request import PreprocessRequest
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.preprocess.slurm import array_script
from frontload.recipes.errors import RecipeError, StageError
from tests.unit.data_tools_stores.conftest import SECRET
from tests.unit.data_tools_stores.servers import Hub, Shelf

EOD = "<|end|>"
LINES = b"".join(
    json.dumps({"text": f"the {number} ship of that day sailed {number % 7} times"}).encode()
    + b"\n"
    for number in range(400)
)


def request(source: str | Path, prefix: Path, tokenizer: Path, **other: Any) -> PreprocessRequest:
    return PreprocessRequest(
        inputs=(str(source),),
        output_prefix=prefix,
        tokenizer=tokenizer,
        append_eod=True,
        part_bytes=4000,
        **other,
    )


def pair(prefix: Path) -> tuple[bytes, bytes]:
    return prefix.with_name(prefix.name + ".bin").read_bytes(), prefix.with_name(
        prefix.name + ".idx"
    ).read_bytes()


@pytest.fixture
def expected(tmp_path: Path, tokenizer: Path) -> tuple[bytes, bytes]:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    preprocess(request(tmp_path / "a.jsonl", tmp_path / "plain", tokenizer))
    return pair(tmp_path / "plain")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_in_a_store_gives_the_bytes_of_a_disk(
    s3: Any, tmp_path: Path, tokenizer: Path, expected: tuple[bytes, bytes], workers: int
) -> None:
    s3.pipe_file("bucket/a.jsonl", LINES)
    asked = request("s3://bucket/a.jsonl", tmp_path / "P", tokenizer, workers=workers)
    manifest = preprocess(asked)
    assert pair(tmp_path / "P") == expected
    [one] = manifest["inputs"]
    etag = s3.info("bucket/a.jsonl")["ETag"].strip('"')
    assert (one["name"], one["version"]) == ("s3://bucket/a.jsonl", etag)
    assert SECRET not in (tmp_path / "P.manifest.json").read_text()
    assert preprocess(asked) == manifest  # asked for again, it stays


def test_the_hub_and_a_disk_go_to_one_prefix_and_the_commit_is_kept(
    hub: Hub, tmp_path: Path, tokenizer: Path, expected: tuple[bytes, bytes]
) -> None:
    commit = hub.commit({"data/a.jsonl": LINES})
    asked = replace(
        request("hf://datasets/org/set/data/a.jsonl", tmp_path / "P", tokenizer),
        inputs=("hf://datasets/org/set/data/a.jsonl", str(tmp_path / "a.jsonl")),
    )
    manifest = preprocess(asked)
    assert pair(tmp_path / "P")[0] == expected[0] * 2
    assert [one["name"] for one in manifest["inputs"]] == [
        f"hf://datasets/org/set@{commit}/data/a.jsonl",
        "a.jsonl",
    ]
    assert manifest["inputs"][0]["version"] == commit
    hub.commit({"data/a.jsonl": LINES + LINES})
    with pytest.raises(RecipeError, match="of another request or origin"):
        preprocess(asked)
    pinned = (manifest["inputs"][0]["name"], asked.inputs[1])
    assert preprocess(replace(asked, inputs=pinned)) == manifest


@pytest.mark.parametrize("status", [503, 403])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_that_fails_in_mid_read_publishes_nothing_and_the_rest_is_kept(
    web: Shelf,
    tmp_path: Path,
    tokenizer: Path,
    expected: tuple[bytes, bytes],
    status: int,
    workers: int,
) -> None:
    web.files["/a.jsonl"] = LINES
    url = f"{web.address}/a.jsonl?token=tell-no-one"
    asked = request(url, tmp_path / "P", tokenizer, workers=workers)
    gets = 0

    def fail_late() -> None:
        nonlocal gets
        gets += 1
        web.faults[:] = [status] if gets > 9 else []

    web.before_get = fail_late
    with pytest.raises(
        StageError, match=rf"a.jsonl at byte \d+: .*{status}.* finished parts"
    ) as no:
        preprocess(asked)
    assert "tell-no-one" not in str(no.value)
    assert not (tmp_path / "P.manifest.json").exists()
    assert not (tmp_path / "P.bin").exists()
    work = [file for file in (tmp_path / "P.work").rglob("*") if file.is_file()]
    assert any(file.name.startswith("unit-") for file in work)
    web.before_get, web.faults = lambda: None, []
    manifest = preprocess(asked)
    assert pair(tmp_path / "P") == expected
    assert manifest["made_by"]["parts_kept_from_an_earlier_run"] > 0
    told = [*work, tmp_path / "P.manifest.json"]
    assert not any(b"tell-no-one" in file.read_bytes() for file in told if file.exists())


def test_a_file_that_moved_is_refused_and_begun_anew(
    web: Shelf, tmp_path: Path, tokenizer: Path, expected: tuple[bytes, bytes]
) -> None:
    web.files["/a.jsonl"] = LINES.replace(b"the 399 ship", b"one 399 ship")
    asked = request(f"{web.address}/a.jsonl", tmp_path / "P", tokenizer)
    gets = 0

    def move_late() -> None:
        nonlocal gets
        gets += 1
        if gets > 6:
            web.files["/a.jsonl"] = LINES

    web.before_get = move_late
    with pytest.raises(RecipeError, match="written anew since the run has looked at it: version"):
        preprocess(asked)
    assert not (tmp_path / "P.bin").exists()
    preprocess(asked)
    assert pair(tmp_path / "P") == expected


def test_a_script_holds_no_signed_url(web: Shelf, tmp_path: Path, tokenizer: Path) -> None:
    url = f"{web.address}/a.jsonl?token=tell-no-one"
    with pytest.raises(RecipeError, match="a signed URL; a script is kept") as caught:
        array_script(request(url, tmp_path / "P", tokenizer), shards=2)
    assert "tell-no-one" not in str(caught.value)
