"""The raw files of a study by use: listed unread, digested by who reads them first, then checked.

The listing is an artifact, which nothing edits: digests lie in a folder beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import Shape, read_json, read_object
from frontload.data_tools.raw.manifest import RawFile, check_digest, list_files
from frontload.recipes.artifact import curated_sets, raw_listing, write_json
from frontload.recipes.errors import ArtifactError

LISTING: dict[str, Shape] = {"format": int, "groups": dict}


def write_listing(folder: Path, groups: Mapping[str, Sequence[str]], *, revision: str) -> None:
    """Lists the files of each use by name and size; none is opened.

    Raises: RecipeError for a pattern without a file.
    """
    found = {
        group: [asdict(f) for f in list_files(names, revision=revision, asked_by=f"raw, {group}")]
        for group, names in groups.items()
    }
    write_json(raw_listing(folder), {"format": 1, "groups": found})


def read_listing(raw: Path) -> dict[str, list[RawFile]]:
    """The raw files of each use as they were listed.

    Raises: ArtifactError when the listing is damaged.
    """
    groups = read_object(raw_listing(raw), LISTING)["groups"]
    return {name: [RawFile(**entry) for entry in files] for name, files in groups.items()}


def listed_files(raw: Path, group: str) -> list[RawFile]:
    """The raw files of a use, which must have the sizes that were listed.

    Raises: ArtifactError for a file that is gone or has another size.
    """
    files = read_listing(raw)[group]
    for file in files:
        size = file.path.stat().st_size if file.path.is_file() else -1
        if size != file.size_bytes:
            raise ArtifactError(
                f"raw file {file.name}",
                found="is gone" if size < 0 else f"has {size:,} bytes",
                rule=f"it was listed with {file.size_bytes:,} bytes, and stays as it was",
                do="put it back, or write another raw.revision to make everything from it anew",
            )
    return files


def check_digests(raw: Path, group: str, digests: Sequence[str], *, kind: str) -> None:
    """Compares the digests that a reader of a use found with those of its first reader.

    The first one's are kept, by kind of digest, as one file per raw file: readers may be many.

    Raises: ArtifactError naming the first file that holds other bytes.
    """
    folder = raw.with_name(f"{raw.name}.digests")
    folder.mkdir(exist_ok=True)
    for number, (file, digest) in enumerate(zip(listed_files(raw, group), digests, strict=True)):
        kept = folder / f"{group.replace('/', '-')}-{number:06d}.{kind}.json"
        if kept.is_file():
            check_digest(RawFile(**read_json(kept)), digest)
        else:
            write_json(kept, asdict(file) | {"sha256": digest})


def text_files(documents: Path, source: str) -> list[Path]:
    """Files with the text of a use of raw files, or of a curated set."""
    if curated_sets(documents).is_dir():
        return set_files(documents, f"{source}.text")
    return [file.path for file in listed_files(documents, source)]


def check_read(documents: Path, source: str, manifest: Mapping[str, Any]) -> None:
    """`check_digests` of what a preprocess read, where that was raw files."""
    if raw_listing(documents).is_file():
        digests = [str(one["xxh3_of_parts"]) for one in manifest["inputs"]]
        check_digests(documents, source, digests, kind="xxh3")


def set_files(documents: Path, name: str) -> list[Path]:
    """The files of a set, one or several.

    Raises: ArtifactError if the curation has no such set.
    """
    sets = curated_sets(documents)
    found = [*sets.glob(f"{name}.jsonl"), *sorted(sets.glob(f"{name}-[0-9]*.jsonl"))]
    if not found:
        raise ArtifactError(
            f"curated sets {sets}",
            found=f"no {name}.jsonl",
            rule="the curation makes every set that a study reads",
            do="delete the artifact by its key and run the study again",
        )
    return found
