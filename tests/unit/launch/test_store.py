"""The store: its locks, checks and refusals, and what a look at it leaves behind."""

import errno
import fcntl
import hashlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.store import (
    CHUNK_BYTES,
    Store,
    Ticket,
    check_content,
    check_sizes,
    digest_file,
    read_manifest,
)
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.schema import Tokenizer
from frontload.recipes.stage import Stage

STAGE = Stage(kind="tokenizer", label="x", recipe=Tokenizer(kind="word", vocab_size=9))
OTHER = Stage(kind="tokenizer", label="y", recipe=Tokenizer(kind="word", vocab_size=8))
TICKET = Ticket.of(STAGE)


def published(store: Store, stage: Stage = STAGE) -> Path:
    """A finished artifact of two files."""
    path = store.workspace(Ticket.of(stage)) / "path"
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "one").write_bytes(b"12345")
    (path / "two").write_bytes(b"")
    return store.publish(Ticket.of(stage))


def test_every_file_of_an_artifact_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename finds whole files, the manifest among them."""
    synced: set[int] = set()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.add(os.fstat(fd).st_ino), fsync(fd)))
    made = published(Store(tmp_path))
    files = [path for path in made.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"manifest.json", "one", "two"}
    assert {path.stat().st_ino for path in files} <= synced


def test_looking_makes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = Store(root)
    assert store.find(STAGE.kind, STAGE.key) is None
    assert list(store.manifests("tokenizer")) == []
    assert not store.is_locked("run")
    assert not root.exists()


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="it is not a folder; .* --store"):
        Store(tmp_path / "file")


# ---------------------------------------------------------------- locks


@pytest.mark.parametrize(
    ("name", "what"), [("run", "another run"), ("0" * 12, f"the making of {'0' * 12}")]
)
def test_a_held_lock_is_refused_with_its_holder(tmp_path: Path, name: str, what: str) -> None:
    store, here = Store(tmp_path), f"{os.getpid()} on {socket.gethostname()}"
    with store.lock(name):
        assert store.is_locked(name)
        assert not store.is_locked("other")
        with pytest.raises(RecipeError, match=f"{what} holds it .process {here}"):  # noqa: SIM117
            with store.lock(name):
                raise AssertionError("two hold it")
        assert store.is_locked(name), "a look takes it from nobody"
    assert not store.is_locked(name)
    with store.lock(name):
        assert (tmp_path / ".locks" / f"{name}.lock").read_text() == f"{here}\n"


def test_one_who_waits_gets_a_lock_that_is_freed_in_time(tmp_path: Path) -> None:
    store, held, got = Store(tmp_path), threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock("run"):
            held.set()
            time.sleep(0.3)
            assert not got.is_set(), "two hold it"

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with store.lock("run", wait_seconds=60.0):
        got.set()
    holder.join()


def test_one_who_waits_in_vain_is_refused_when_the_time_is_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock("run"):
        began = time.monotonic()
        with pytest.raises(RecipeError), store.lock("run", wait_seconds=0.3):
            pass
        assert time.monotonic() - began >= 0.3


def test_a_store_that_cannot_be_written_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / ".locks").write_text("a file where the folder of locks belongs")
    with pytest.raises(RecipeError, match="cannot be written"), Store(tmp_path).lock("run"):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks_is_refused_with_the_option_that_gives_them(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """NFS without lockd, Lustre mounted without flock: they answer with these numbers."""

    def refuse(_handle: int, _kind: int) -> None:
        raise OSError(code, "no such service")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="has no locks .*Lustre: option flock; NFS: without"):  # noqa: SIM117
        with Store(tmp_path).lock("run"):
            raise AssertionError("nobody holds it")
    with pytest.raises(RecipeError, match="has no locks"):
        Store(tmp_path).is_locked("run")
    assert cli.main(["run", "smoke"]) == 2
    told = capsys.readouterr().err
    assert "option flock" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_one(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the stage has the message for it: the rights of the folder are not the cause."""

    def full(_path: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(OSError) as caught, Store(tmp_path).lock("run"):
        pass
    assert caught.value.errno == code


# ---------------------------------------------------------------- finding and checking


def test_an_artifact_is_found_by_its_whole_key_and_kind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder, other = published(store), published(store, OTHER)
    assert store.find("tokenizer", STAGE.key) == folder
    assert store.find("tokenizer", OTHER.key) == other
    assert store.find("index", STAGE.key) is None
    assert store.find("tokenizer", STAGE.key[1:]) is None
    found = {path: manifest["key"] for path, manifest in store.manifests("tokenizer")}
    assert found == {folder: STAGE.key, other: OTHER.key}


@pytest.mark.parametrize(
    ("size", "said"), [(None, "is missing, not 5"), (4, "has 4 bytes, not 5"), (6, "has 6 bytes")]
)
def test_a_file_of_another_size_is_named(tmp_path: Path, size: int | None, said: str) -> None:
    folder = published(Store(tmp_path))
    check_sizes(folder, STAGE.key)
    (folder / "deep" / "one").unlink()
    if size is not None:
        (folder / "deep" / "one").write_bytes(b"x" * size)
    with pytest.raises(ArtifactError, match=f"deep/one {said}.*rm -r {folder}"):
        Store(tmp_path).find("tokenizer", STAGE.key)


def test_a_file_of_terabytes_is_compared_by_size_before_a_stage_and_whole_when_asked(
    tmp_path: Path,
) -> None:
    folder = published(Store(tmp_path))
    file = folder / "deep" / "one"
    file.write_bytes(b"y" * file.stat().st_size)
    check_content(folder, largest_bytes=file.stat().st_size - 1)
    for largest in (None, file.stat().st_size):
        with pytest.raises(ArtifactError, match="not those that were published"):
            check_content(folder, largest_bytes=largest)


def test_bytes_are_checked_file_by_file(tmp_path: Path) -> None:
    folder = published(Store(tmp_path))
    check_content(folder)
    (folder / "deep" / "one").write_bytes(b"12346")
    check_sizes(folder, STAGE.key)
    with pytest.raises(ArtifactError, match="the bytes of deep/one are not those"):
        check_content(folder)


@pytest.mark.parametrize("text", [None, "", "{"])
def test_a_manifest_that_does_not_read_is_a_torn_artifact(tmp_path: Path, text: str | None) -> None:
    folder = published(Store(tmp_path))
    (folder / "manifest.json").unlink()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match="manifest.json cannot be read"):
        read_manifest(folder)


def test_the_manifest_of_another_key_is_refused(tmp_path: Path) -> None:
    folder = published(Store(tmp_path))
    with pytest.raises(ArtifactError, match=f"its manifest is of key {STAGE.key}"):
        check_sizes(folder, OTHER.key)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 5])
def test_a_digest_is_of_all_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    assert digest_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------- publishing


def test_a_half_written_manifest_is_no_content_and_a_file_of_that_name_below_is(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    path = store.workspace(TICKET) / "path"
    (path / "deep").mkdir(parents=True)
    (path / "manifest.json.partial").write_text("{")
    (path / "deep" / "manifest.json").write_text("mine")
    (store.workspace(TICKET) / "scratch").mkdir()
    folder = store.publish(TICKET)
    assert set(read_manifest(folder)["files"]) == {"deep/manifest.json"}
    assert not store.workspace(TICKET).exists(), "what was scratch is gone"


def test_every_byte_is_on_the_disk_before_the_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename must not leave a finished folder with empty files."""
    synced: list[str] = []

    def sync(path: Path) -> None:
        synced.append(path.name)

    usual = os.rename

    def rename(one: Path, two: Path) -> None:
        synced.append("-> renamed")
        usual(one, two)

    monkeypatch.setattr("frontload.launch.store.sync_path", sync)
    monkeypatch.setattr("frontload.launch.store.os.rename", rename)
    published(Store(tmp_path))
    before, after = synced[: synced.index("-> renamed")], synced[synced.index("-> renamed") + 1 :]
    assert {"one", "two", "deep", "path"} <= set(before)
    assert after == ["tokenizer"], "and its name is"
