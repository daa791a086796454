"""Raw inputs of any size by name, size and revision; sha256 once somebody has read them.

Planning looks at names and sizes and opens no file. Whoever reads the files first fills in their
digests, and whoever reads them later checks them.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from frontload.data_tools.disk.files import Shape, read_object
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.stores.path import path_of
from frontload.data_tools.stores.stream import open_binary
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import ArtifactError, RecipeError

READ_BYTES = 1 << 20
FORMAT = 1
FIELDS: dict[str, Shape] = {
    "format": int,
    "files": [{"name": str, "size_bytes": int, "revision": str, "sha256": str}],
}


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One input. What its publisher or user calls its version is its `revision`."""

    name: str  # the path, as it was named
    size_bytes: int
    revision: str
    sha256: str = ""  # "" until somebody has read the file

    @property
    def path(self) -> Path:
        return path_of(self.name)


def list_files(
    patterns: Sequence[str], *, revision: str, asked_by: str = "--input"
) -> tuple[RawFile, ...]:
    """The files that names and globs stand for, in the order given; none is opened.

    Raises: RecipeError for a pattern without a file, or a file that is named twice.
    """
    return tuple(
        RawFile(name=file.as_posix(), size_bytes=file.stat().st_size, revision=revision)
        for file in expand_inputs(patterns, asked_by=asked_by)
    )


def sizes_of(files: Iterable[RawFile]) -> dict[str, int]:
    """Name -> size: what a recipe states of its files, so that another size moves its key."""
    return {file.name: file.size_bytes for file in files}


def check_sizes(files: Sequence[RawFile], stated: dict[str, int], *, asked_by: str) -> None:
    """Refuses files that are no longer those of a plan.

    Raises: RecipeError naming the first difference.
    """
    found = sizes_of(files)
    for name in [*stated, *found]:
        if stated.get(name) != found.get(name):
            now = f"{found[name]} bytes" if name in found else "no such file"
            raise RecipeError(
                f"{asked_by}: {name}",
                found=now,
                rule=f"the plan was made for {stated[name]} bytes"
                if name in stated
                else "the plan was made without this file",
                do="give the command again: it plans with the files as they are now",
            )


def read_digests(
    files: Sequence[RawFile], *, report: Callable[[int], object] = lambda num_bytes: None
) -> tuple[RawFile, ...]:
    """The files with the sha256 of what they hold; `report` gets the bytes of each read.

    Raises: ArtifactError for a file whose bytes are not those that an earlier reader found.
    """
    found = []
    for file in files:
        digest = hashlib.sha256()
        with open_binary(file.path) as stream:
            while data := stream.read(READ_BYTES):
                digest.update(data)
                report(len(data))
        check_digest(file, digest.hexdigest())
        found.append(replace(file, sha256=digest.hexdigest()))
    return tuple(found)


def check_digest(file: RawFile, sha256: str) -> None:
    """Compares what a reader found with what the first one did, if there was one.

    Raises: ArtifactError.
    """
    if file.sha256 not in ("", sha256):
        raise ArtifactError(
            f"reading {file.name}",
            found=f"sha256 {sha256[:12]} in {file.size_bytes} bytes",
            rule=f"revision {file.revision or 'none'} of it had {file.sha256[:12]} when it was"
            " first read",
            do="restore the file, or state another revision in the recipe",
        )


def changed_since(files: Iterable[RawFile], *, listing: Path) -> list[str]:
    """The files that have another size than a listing says, or were written after it.

    None is opened. Of one that is gone nothing can be said: who needs it says so.
    """
    written = listing.stat().st_mtime_ns
    changed = []
    for one in files:
        now = one.path.stat() if one.path.is_file() else None
        if now and (now.st_size != one.size_bytes or now.st_mtime_ns > written):
            changed.append(one.name)
    return changed


def write_manifest(path: Path, files: Sequence[RawFile]) -> None:
    """Writes the manifest, whole."""
    write_json(path, {"format": FORMAT, "files": [asdict(file) for file in files]})


def read_manifest(path: Path) -> tuple[RawFile, ...]:
    """Reads a manifest.

    Raises: ArtifactError when it is missing or damaged.
    """
    return tuple(RawFile(**one) for one in read_object(path, FIELDS)["files"])
