"""A source's index as a blend needs it: documents' lengths, mapped, and what names its bytes.

One pass over the .idx checks and hashes it, a piece at a time; `indexed.IndexedReader` holds it.
"""

import hashlib
import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frontload.data_tools.disk.indexed import (
    HEADER,
    IndexHeader,
    bin_file,
    check_data,
    check_index,
    idx_file,
)
from frontload.recipes.errors import ArtifactError, RecipeError

MAX_DOCUMENTS = 2**31 - 1  # order.npy holds int32


@dataclass(frozen=True, kw_only=True)
class SourceIndex:
    """One source: where its pair lies, its sizes and the sha256 of its .idx."""

    name: str
    prefix: Path
    header: IndexHeader
    num_tokens: int
    index_sha256: str
    is_plain: bool  # a document is one sequence
    state: tuple[int, ...]  # of the .idx, as it was hashed

    @property
    def dtype(self) -> np.dtype:
        return self.header.dtype

    @property
    def num_documents(self) -> int:
        return self.header.num_indices - 1

    def lengths(self) -> np.ndarray:
        """Tokens of each document: the mapped .idx, where it holds them.

        The file is open as long as the array lives, so that thousands of sources need no more open
        files than one.

        Raises: ArtifactError when the file is no longer the one that was hashed.
        """
        file = idx_file(self.prefix)
        if not file.is_file() or _state(file) != self.state:
            raise ArtifactError(
                f"source {self.name}: {file}",
                found="the file changed after its sha256 was taken",
                rule="a blend reads one state of each index",
                do="run the command again when nothing writes the index",
            )
        with open(file, "rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        if self.is_plain:
            return np.frombuffer(mapped, "<i4", self.header.num_sequences, HEADER.size)
        return _document_lengths(mapped, self.header, self.num_tokens)


def read_source(name: str, prefix: Path) -> SourceIndex:
    """Checks that a pair is whole, in memory of a few MiB.

    Raises: ArtifactError naming file and byte for a missing or torn pair, RecipeError for one with
            more documents than `order.npy` can number.
    """
    file = idx_file(prefix)
    for path in (file, bin_file(prefix)):
        if not path.is_file():
            raise ArtifactError(
                f"source {name}: {path}",
                found="there is no such file",
                rule="a source is a pair of files, PREFIX.bin and PREFIX.idx",
                do="correct the prefix, or write the pair with `frontload data preprocess`",
            )
    digest, state = hashlib.sha256(), _state(file)
    header, num_tokens, is_plain = check_index(file, seen=digest.update)
    if header.num_indices - 1 > MAX_DOCUMENTS:
        raise RecipeError(
            f"source {name}: {prefix}",
            found=f"{header.num_indices - 1} documents",
            rule=f"an index of a blend has at most {MAX_DOCUMENTS} documents",
            do="write it as several indexes, and name them as members of a mix",
        )
    check_data(prefix, header, num_tokens)
    return SourceIndex(
        name=name,
        prefix=prefix,
        header=header,
        num_tokens=num_tokens,
        index_sha256=digest.hexdigest(),
        is_plain=is_plain,
        state=state,
    )


def _state(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _document_lengths(mapped: mmap.mmap, header: IndexHeader, num_tokens: int) -> np.ndarray:
    """Tokens of documents of several sequences, int64."""
    pointers = np.frombuffer(mapped, "<i8", header.num_sequences, header.at_pointers)
    documents = np.frombuffer(mapped, "<i8", header.num_indices, header.at_documents)
    starts = np.full(header.num_indices, num_tokens, dtype=np.int64)
    inside = documents < header.num_sequences
    starts[inside] = pointers[documents[inside]] // header.dtype.itemsize
    return np.diff(starts)
