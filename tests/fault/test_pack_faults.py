"""A pack that is killed, torn, or run twice ends with the same bytes, or says why it does not."""

import errno
import fcntl
import os
import shutil
import signal
from pathlib import Path

import pytest

from frontload.data_tools.disk.indexed import IndexedWriter
from frontload.data_tools.packing.build import build_pack
from frontload.data_tools.packing.plan import PackRequest
from frontload.recipes.errors import RecipeError
from tests.unit.data_tools.chats import chatml_tokenizer, long_tailed
from tests.unit.data_tools.room import write_jsonl


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chatml_tokenizer(tmp_path_factory.mktemp("chatml"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of short conversations."""
    found = long_tailed(2200, mean=40, seed=2)
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", found)


def request(tokenizer: Path, rows: Path, output: Path) -> PackRequest:
    return PackRequest(
        inputs=(str(rows),), tokenizer=tokenizer, template=None, output=output,
        sequence_tokens=512, over_long="drop", source_field="source", epochs=1, seed=1, workers=1,
    )  # fmt: skip


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(tokenizer: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    output = tmp_path_factory.mktemp("whole") / "pack"
    build_pack(request(tokenizer, rows, output))
    return files_of(output)


def killed_at(asked: PackRequest, owner: object, name: str, call: int) -> None:
    """Packs in a child process that dies of kill -9 inside call number `call` of a function."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"the child ended by itself: {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        return
    calls, real = 0, getattr(owner, name)

    def counted(*given: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)

    setattr(owner, name, counted)
    try:
        build_pack(asked)
    finally:
        os._exit(3)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (os, "fsync", 1),  # nothing sealed
        (os, "fsync", 5),  # the first shard's journal line is written, not on the disk
        (os, "fsync", 8),  # in the second shard
        (IndexedWriter, "add_document", 1),
        (IndexedWriter, "add_document", 100),
        (os, "rename", 1),  # all is written, nothing published
        (shutil, "rmtree", 1),  # published, not tidied
    ],
)
def test_a_killed_pack_ends_with_the_same_bytes(
    tokenizer: Path, rows: Path, whole: dict, tmp_path: Path, owner: object, name: str, call: int
) -> None:
    asked = request(tokenizer, rows, tmp_path / "pack")
    killed_at(asked, owner, name, call)
    assert (tmp_path / "pack").exists() == (name == "rmtree")
    build_pack(asked)
    assert files_of(tmp_path / "pack") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_sealed_shards_are_not_encoded_again(
    tokenizer: Path, rows: Path, whole: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frontload.data_tools.packing.encode import SequenceEncoder

    asked = request(tokenizer, rows, tmp_path / "pack")
    killed_at(asked, IndexedWriter, "add_document", 1)
    monkeypatch.setattr(SequenceEncoder, "encode", lambda *_: pytest.fail("encoded again"))
    build_pack(asked)
    assert files_of(tmp_path / "pack") == whole


@pytest.mark.parametrize("part", ["tokens", "journal", "origin"])
def test_a_torn_spill_is_encoded_again_from_the_tear(
    tokenizer: Path, rows: Path, whole: dict, tmp_path: Path, part: str
) -> None:
    asked = request(tokenizer, rows, tmp_path / "pack")
    killed_at(asked, IndexedWriter, "add_document", 1)
    file = tmp_path / "pack.work" / "spill" / part
    os.truncate(file, file.stat().st_size * 2 // 3)
    build_pack(asked)
    assert files_of(tmp_path / "pack") == whole


def test_a_full_disk_publishes_nothing_and_goes_on_later(
    tokenizer: Path, rows: Path, whole: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tokenizer, rows, tmp_path / "pack")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            build_pack(asked)
    assert caught.value.filename == str(asked.output), "what the command line names"
    assert not (tmp_path / "pack").exists()
    build_pack(asked)
    assert files_of(tmp_path / "pack") == whole


def test_work_of_other_options_is_begun_anew(
    tokenizer: Path, rows: Path, whole: dict, tmp_path: Path
) -> None:
    asked = request(tokenizer, rows, tmp_path / "pack")
    other = PackRequest(**(vars(asked) | {"sequence_tokens": 256}))
    killed_at(other, IndexedWriter, "add_document", 1)
    build_pack(asked)
    assert files_of(tmp_path / "pack") == whole


def test_two_runs_of_one_output_are_refused(tokenizer: Path, rows: Path, tmp_path: Path) -> None:
    work = tmp_path / "pack.work"
    work.mkdir()
    with open(work / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RecipeError, match="another run is writing it"):
            build_pack(request(tokenizer, rows, tmp_path / "pack"))
    assert not (tmp_path / "pack").exists()


def test_a_cut_input_publishes_nothing(tokenizer: Path, rows: Path, tmp_path: Path) -> None:
    import gzip

    cut = tmp_path / "rows.jsonl.gz"
    cut.write_bytes(gzip.compress(rows.read_bytes())[:-2000])
    with pytest.raises(RecipeError, match="a damaged or cut gzip stream"):
        build_pack(request(tokenizer, cut, tmp_path / "pack"))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl.gz"]
