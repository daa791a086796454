"""A file in a store, as a path: its name is a URL, and its size and version the store tells."""

import glob
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from pathlib import Path, PosixPath
from typing import Any

from frontload.data_tools.stores.errors import told
from frontload.recipes.errors import RecipeError

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "https": "aiohttp"}
"""What fsspec reads a store with."""
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
VERSIONS = ("VersionId", "ETag", "etag", "generation", "blob_id", "Content-MD5", "Last-Modified")
"""Fields of a store's answer that change with an object's bytes, the surest first."""
COMMIT = re.compile("@([0-9a-f]{40})(?:/|$)")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a store says of an object: size, version, and when it was written, if it does."""

    size_bytes: int
    version: str
    written_seconds: int = 0


def is_url(name: object) -> bool:
    """Whether a name is that of a file in a store, and no path of this machine."""
    return SCHEME.match(str(name)) is not None


def path_of(name: str) -> Path:
    """The path that a user has named, of this machine or of a store.

    Raises: RecipeError for a URL that cannot be read.
    """
    return StorePath(name) if is_url(name) else Path(name)


class StorePath(PosixPath):
    """The path of a file in a store. What readers ask of a path they may ask of this one.

    It is written without its query, in which a signed URL has its credentials. `stat` says what the
    store said first: `st_mtime_ns` is the time of writing in whole seconds, and the rest of it a
    digest of the version, so that files that differ in version differ in it.
    """

    def __init__(self, *parts: str | os.PathLike[str]) -> None:
        names = [str(part) for part in parts]
        found = SCHEME.match(names[0]) if names else None
        query = ""
        if found and found[1] in ("http", "https"):
            names[0], mark, query = names[0].partition("?")
            query = mark + query
        super().__init__(*(name.replace("://", ":/", 1) for name in names))
        self._query = query
        self._stored: Stored | None = None
        if found:
            _check_url(self, found[1])

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        raise RecipeError(
            f"{self}",
            found="a file in a store",
            rule="this is read from a disk of this machine",
            do="copy it here first; inputs of `data preprocess`, `curate`, `pack` and `tokenizer`"
            " may lie in a store",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuilt, (self.url, self._stored))

    def as_posix(self) -> str:
        return str(self)

    @property
    def scheme(self) -> str:
        return str(self).partition("://")[0]

    @property
    def url(self) -> str:
        """What the store is asked for: with the query, so never shown or written."""
        return str(self) + self._query

    @property
    def has_secret(self) -> bool:
        """Whether the URL holds more than its name does."""
        return bool(self._query)

    def stored(self) -> Stored:
        """What the store said when it was first asked for this path.

        Raises: RecipeError when there is no such file; StageError when the store fails.
        """
        if self._stored is None:
            with told(self):
                self._stored = asked_now(self)
        return self._stored

    def pinned(self, stored: Stored) -> "StorePath":
        """This path, of which that is known."""
        self._stored = stored
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        one = self.stored()
        digest = int(hashlib.sha256(one.version.encode()).hexdigest(), 16)
        changed_ns = one.written_seconds * 10**9 + digest % 10**9
        seconds = (0, 0, one.size_bytes, 0, one.written_seconds, 0)
        fields = (stat.S_IFREG | stat.S_IRUSR, 0, 0, 1, *seconds)
        return os.stat_result(fields, {"st_mtime_ns": changed_ns})

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether the store has such a file now."""
        with told(self):
            return bool(open_store(self.scheme).isfile(self.url))

    is_file = exists  # type: ignore[assignment]

    def read_bytes(self) -> bytes:
        with told(self):
            return open_store(self.scheme).cat_file(self.url)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def is_dir(self) -> bool:
        return False

    def absolute(self) -> "StorePath":
        return self

    def resolve(self, strict: bool = False) -> "StorePath":
        return self


def _rebuilt(url: str, stored: Stored | None) -> StorePath:
    path = StorePath(url)
    return path if stored is None else path.pinned(stored)


def _check_url(path: StorePath, scheme: str) -> None:
    if scheme not in (*PACKAGES, "http"):
        raise RecipeError(
            f"{path}",
            found=f"a URL of {scheme}://",
            rule=f"stores are those of {', '.join(f'{name}://' for name in PACKAGES)}, http://",
            do="copy the file to one of them, or to a disk",
        )
    host = str(path).partition("://")[2].partition("/")[0]
    if "@" in host:
        safe = str(path).replace(host, host.rpartition("@")[2], 1)
        raise RecipeError(
            safe,
            found="a URL with a user or a password in it",
            rule="credentials are found where the store's own tools look for them, so that no"
            " manifest or log holds one",
            do="set the store's variables or files, for example ~/.aws/credentials, and name the"
            " URL without them",
        )


def open_store(scheme: str) -> Any:
    """fsspec's file system of a scheme, made once a process and thread.

    It finds credentials and endpoints as the store's own tools do.

    Raises: RecipeError when the package that reads it is not installed.
    """
    import fsspec  # here, since only files in stores need it

    package = PACKAGES["https" if scheme == "http" else scheme]
    try:
        import_module(package)
    except ImportError as error:
        raise RecipeError(
            f"{scheme}://",
            found=f"no package {package}",
            rule=f"files of {scheme}:// are read with it",
            do=f"install it: pip install {package}",
        ) from error
    return fsspec.filesystem(scheme)


def asked_now(path: StorePath) -> Stored:
    """What the store says of a file now.

    Raises: RecipeError for what is no file, or has no size; whatever the store's library raises.
    """
    store = open_store(path.scheme)
    if path.scheme != "hf":  # of a commit, which cannot change
        store.invalidate_cache()
    return to_stored(path, store.info(path.url))


def to_stored(path: StorePath, info: Mapping[str, Any]) -> Stored:
    """What is used of a store's answer.

    Raises: RecipeError when the answer is not that of a file that can be read in parts.
    """
    if info["type"] != "file":
        raise RecipeError(
            f"{path}",
            found="a folder",
            rule="inputs are files",
            do=f"name the files in it, for example '{path}/*.jsonl'",
        )
    if info.get("size") is None or not info.get("partial", True):
        raise RecipeError(
            f"{path}",
            found="a server that states no size" if info.get("size") is None else "no ranges",
            rule="a file is read in parts, some of them again after a kill",
            do="download it, for example with curl, and name the copy",
        )
    versions = [str(info[name]) for name in VERSIONS if info.get(name)]
    if path.scheme == "hf":
        versions = [commit_of(path)]
    written = info.get("LastModified") or info.get("updated") or info.get("Last-Modified")
    return Stored(
        size_bytes=int(info["size"]),
        version=(versions or [f"{info['size']} bytes"])[0].strip('"'),
        written_seconds=_seconds(written),
    )


def _seconds(written: object) -> int:
    if isinstance(written, datetime):
        return int(written.timestamp())
    if isinstance(written, str):
        try:
            return int(parsedate_to_datetime(written).timestamp())
        except ValueError:
            return int(datetime.fromisoformat(written).astimezone(UTC).timestamp())
    return 0


def files_at(pattern: str) -> list[StorePath]:
    """The files that a URL or a glob in a store stands for, sorted; those of the hub at a commit.

    Raises: RecipeError when there is none; StageError when the store fails.
    """
    asked = StorePath(pattern)
    if asked.scheme == "hf":
        asked = at_commit(asked)
    if not glob.has_magic(str(asked)):  # of http the query is no part of it
        asked.stored()
        return [asked]
    store = open_store(asked.scheme)
    with told(asked):
        found = store.glob(asked.url, detail=True)
    files = []
    for name, info in sorted(found.items()):
        if info["type"] != "file":
            continue
        file = StorePath(name if is_url(name) else f"{asked.scheme}://{name}")
        files.append(file.pinned(to_stored(file, info)))
    return files


def commit_of(path: StorePath) -> str:
    """The commit that a path of the hub names."""
    found = COMMIT.search(str(path))
    return found[1] if found else ""


def at_commit(path: StorePath) -> StorePath:
    """A path of the hub with its branch, or none, replaced by the commit that this is now.

    Raises: RecipeError when there is no such data set or branch; StageError when the hub fails.
    """
    if commit_of(path):
        return path
    from huggingface_hub import HfApi, HfFileSystem  # 0.5 s to load

    with told(path):
        found: Any = HfFileSystem().resolve_path(str(path))
        kind, name = found.repo_type, found.repo_id
        commit = HfApi().repo_info(name, repo_type=kind, revision=found.revision).sha
    folder = "" if kind == "model" else f"{kind}s/"
    return StorePath(f"hf://{folder}{name}@{commit}/{found.path_in_repo}")
