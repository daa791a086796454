"""Store: key -> finished folder. Locks, workspaces, publishing by one rename, checksums.

store/<kind>/<label>-<key>/            a finished artifact: exists <=> is complete
store/.work/<kind>/<label>-<key>/      path/ (becomes the artifact) and scratch/ (never published)
store/.locks/<key>.lock                held by whoever makes the artifact; freed by any death
store/provenance/<kind>/<label>-<key>.json   when, where, how long: what bytes must not hold
store/telemetry/<kind>/<label>-<key>.*       clock-bound metrics and the stage's own output
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.recipes.artifact import sync_path, write_json
from frontload.recipes.errors import ArtifactError, FrontloadError, RecipeError
from frontload.recipes.stage import Stage

MANIFEST = "manifest.json"
FORMAT = 1
CHUNK_BYTES = 1 << 20
LARGEST_INPUT_BYTES = 64 << 30  # ours: half a minute of reading; a larger input is compared by size
DIGEST_THREADS = 8  # ours: sha256 lets other threads run, and disks read several files at once
SAY_SECONDS = 10.0
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
ENOTSUPP = 524  # linux/errno.h; Python has no name for it
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, ENOTSUPP)


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What a worker needs to know of a stage: its identity without the graph below it."""

    kind: str
    label: str
    key: str
    folder: str
    payload: Mapping[str, Any]

    @classmethod
    def of(cls, stage: Stage) -> "Ticket":
        """The identity of `stage`."""
        return cls(
            kind=stage.kind,
            label=stage.label,
            key=stage.key,
            folder=stage.folder,
            payload=stage.payload(),
        )


class Store:
    """A folder of finished artifacts. Paths are made when needed, never by looking.

    Raises: RecipeError if `root` is there and is no folder.
    """

    flag = "--store"
    """The option that names it."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise RecipeError(
                f"store {root}",
                found="it is not a folder",
                rule="a store is a folder of artifacts, which a run makes if it is missing",
                do=f"name another with {self.flag}",
            )
        self.root = root

    def find(self, kind: str, key: str) -> Path | None:
        """The finished folder of a key, whatever its label.

        Raises: ArtifactError if the folder is there but is not what its manifest says.
        """
        for folder in sorted((self.root / kind).glob(f"*-{key}")):
            check_sizes(folder, key)
            return folder
        return None

    def find_made(self, ticket: Ticket) -> Path | None:
        """The finished folder of a stage.

        Raises: ArtifactError as `find`.
        """
        return self.find(ticket.kind, ticket.key)

    def find_all(self, stages: Iterable[Stage]) -> dict[str, Path]:
        """Key -> finished folder of those that are built; looks into each kind's folder once.

        Raises: ArtifactError as `find`.
        """
        by_kind: dict[str, dict[str, Path]] = {}
        found: dict[str, Path] = {}
        for stage in stages:
            if stage.kind not in by_kind:
                folders = sorted((self.root / stage.kind).glob("*-*"), reverse=True)
                by_kind[stage.kind] = {one.name.rpartition("-")[2]: one for one in folders}
            folder = by_kind[stage.kind].get(stage.key)
            if folder is not None:
                check_sizes(folder, stage.key)
                found[stage.key] = folder
        return found

    def workspace(self, ticket: Ticket) -> Path:
        """The folder that holds `path` and `scratch` of a stage in the making."""
        return self.root / ".work" / ticket.folder

    def provenance_file(self, ticket: Ticket) -> Path:
        return self.root / "provenance" / f"{ticket.folder}.json"

    def telemetry_file(self, ticket: Ticket, suffix: str) -> Path:
        return self.root / "telemetry" / f"{ticket.folder}.{suffix}"

    @contextmanager
    def lock(self, name: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
        """Holds the lock `name` of this store; any death of the holder frees it.

        Raises: RecipeError if another process holds it after `wait_seconds`, if the store cannot
        be written, or if its file system has no locks.
        """
        path = self.root / ".locks" / f"{name}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            if error.errno in FULL_DISK:
                raise
            raise _unwritable(self.root, error) from error
        with open(path, "a+", encoding="utf-8") as file:
            end = time.monotonic() + wait_seconds
            while not _try_lock(file.fileno(), root=self.root):
                if time.monotonic() >= end:
                    raise self._held(name, path)
                time.sleep(0.05)
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

    def is_locked(self, name: str) -> bool:
        """Whether a living process holds the lock `name`."""
        path = self.root / ".locks" / f"{name}.lock"
        if not path.is_file():
            return False
        with open(path, encoding="utf-8") as file:
            return not _try_lock(file.fileno(), fcntl.LOCK_SH, root=self.root)

    def check_input(self, path: Path) -> None:
        """Compares what a stage is about to read with its checksums; above 64 GiB, with its size.

        Raises: ArtifactError naming the file that differs.
        """
        check_content(path, largest_bytes=LARGEST_INPUT_BYTES)

    def error_file(self, ticket: Ticket) -> Path:
        """The message of the last failed attempt, until the next one begins."""
        return self.workspace(ticket) / "error.txt"

    def note_failure(self, ticket: Ticket, error: FrontloadError) -> None:
        """Keeps the message for `frontload status`; a full disk must not hide it from the run."""
        path = self.error_file(ticket)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{error}\n", encoding="utf-8")

    def forget(self, ticket: Ticket) -> None:
        """Removes what a stage leaves in the making."""
        shutil.rmtree(self.workspace(ticket), ignore_errors=True)

    def publish(self, ticket: Ticket) -> Path:
        """Turns the workspace's `path` into the artifact: manifest last, then one rename."""
        path, target = self.workspace(ticket) / "path", self.root / ticket.folder
        files = describe_files(path)
        manifest = {"format": FORMAT, "key": ticket.key, "files": files, **ticket.payload}
        write_json(path / MANIFEST, manifest, is_synced=True)
        for name in files:
            sync_path(path / name)
        for folder, _, _ in os.walk(path):
            sync_path(Path(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, target)
        sync_path(target.parent)
        self.forget(ticket)
        return target

    def manifests(self, kind: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """Every finished folder of a kind with its manifest."""
        for path in sorted((self.root / kind).glob(f"*/{MANIFEST}")):
            yield path.parent, read_manifest(path.parent)

    def _held(self, name: str, path: Path) -> RecipeError:
        holder = path.read_text(encoding="utf-8").strip() or "unknown"
        what = "another run" if name == "run" else f"the making of {name}"
        return RecipeError(
            f"{self.flag} {self.root}",
            found=f"{what} holds it (process {holder})",
            rule="one run at a time writes to a folder",
            do=f"wait for it, stop it, or name another folder with {self.flag}",
        )


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """The manifest of a finished folder.

    Raises: ArtifactError if there is none or it cannot be read.
    """
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _torn(folder, "its manifest.json cannot be read") from error


def check_sizes(folder: Path, key: str) -> None:
    """Cheap check of a finished folder: the manifest is whole, every file has its size.

    Raises: ArtifactError naming the file.
    """
    manifest = read_manifest(folder)
    if manifest.get("format") != FORMAT:
        raise ArtifactError(
            f"artifact {folder}",
            found=f"its manifest is of format {manifest.get('format')}",
            rule=f"this version reads format {FORMAT}",
            do="use the version that wrote it, or another folder with --store",
        )
    if manifest.get("key") != key:
        raise _torn(folder, f"its manifest is of key {manifest.get('key')}")
    for name, entry in manifest["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != entry["size_bytes"]:
            was = "is missing" if size is None else f"has {size} bytes"
            raise _torn(folder, f"{name} {was}, not {entry['size_bytes']} bytes")


def check_content(folder: Path, *, largest_bytes: int | None = None) -> None:
    """Full check: the sha256 of every file is the manifest's.

    Files above `largest_bytes` are compared by size alone: an index of terabytes takes hours.

    Raises: ArtifactError naming the file.
    """
    manifest = read_manifest(folder)
    check_sizes(folder, manifest["key"])
    for name, entry in manifest["files"].items():
        if largest_bytes is not None and entry["size_bytes"] > largest_bytes:
            continue
        if digest_file(folder / name) != entry["sha256"]:
            raise _torn(folder, f"the bytes of {name} are not those that were published")


def check_given(folder: Path, *, largest_bytes: int | None = None) -> None:
    """A folder that a user names: its files are those of its manifest, if it has one.

    A folder of another maker may state sizes only, or nothing; `largest_bytes` as in
    `check_content`.

    Raises: ArtifactError naming the file.
    """
    if not (folder / MANIFEST).is_file():
        return
    stated = read_manifest(folder)
    files = stated.get("files") if isinstance(stated, Mapping) else None
    for name, entry in files.items() if isinstance(files, Mapping) else ():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        is_same = size == entry.get("size_bytes", size)
        is_read = "sha256" in entry and (largest_bytes is None or (size or 0) <= largest_bytes)
        if not is_same or is_read and digest_file(path) != entry["sha256"]:
            raise ArtifactError(
                f"folder {folder}",
                found=f"{name} is not the file that its {MANIFEST} states",
                rule="what is given is read only as its maker left it",
                do="fetch the folder again from where it was made",
            )


def digest_file(path: Path) -> str:
    """sha256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def describe_files(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> digest and size of every file, several at a time; a long wait is told in lines."""
    names = [
        file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()
    ]
    names = [name for name in names if name not in (MANIFEST, MANIFEST + ".partial")]
    sizes = {name: (path / name).stat().st_size for name in names}
    found: dict[str, dict[str, Any]] = {}
    done, said = 0, time.monotonic()
    with ThreadPoolExecutor(DIGEST_THREADS) as pool:
        digests = pool.map(digest_file, map(path.joinpath, names))
        for name, digest in zip(names, digests, strict=True):
            found[name] = {"sha256": digest, "size_bytes": sizes[name]}
            done += sizes[name]
            if time.monotonic() - said >= SAY_SECONDS:
                said = time.monotonic()
                whole = sum(sizes.values())
                print(f"publishing {path.parent.name}: {done:,} of {whole:,} bytes", flush=True)
    return found


def _try_lock(handle: int, kind: int = fcntl.LOCK_EX, *, root: Path) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise RecipeError(
            f"store {root}",
            found=f"its file system has no locks ({error.strerror})",
            rule="one run at a time writes to a folder, which flock ensures",
            do="mount it with locks (Lustre: option flock; NFS: without nolock, with lockd or "
            "version 4), or name a folder on another file system",
        ) from error
    return True


def _unwritable(root: Path, error: OSError) -> RecipeError:
    return RecipeError(
        f"store {root}",
        found=f"cannot be written ({error.strerror})",
        rule="a run makes its artifacts in a folder that it may write",
        do="give another folder with --store, or mend its rights",
    )


def _torn(folder: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"artifact {folder}",
        found=found,
        rule="a finished folder never changes after it was published",
        do=f"delete the folder and run again: rm -r {folder}",
    )
