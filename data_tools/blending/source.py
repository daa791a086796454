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
    """One source: its documents' lengths and the sha256 of its .idx."""

    name: str
    lengths: np.ndarray  # tokens of each document, mapped where the .idx holds them
    num_tokens: int
    dtype: np.dtype
    index_sha256: str
    mapped: mmap.mmap | None  # what `lengths` lies in; None if they were counted

    @property
    def num_documents(self) -> int:
        return len(self.lengths)

    def rest(self) -> None:
        """Gives back the pages of the map; a later look reads them again."""
        if self.mapped is not None:
            self.mapped.madvise(mmap.MADV_DONTNEED)


def read_source(name: str, prefix: Path) -> SourceIndex:
    """Opens an index and checks that the pair is whole, in memory of a few MiB.

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
    digest = hashlib.sha256()
    header, num_tokens, is_plain = check_index(file, seen=digest.update)
    if header.num_indices - 1 > MAX_DOCUMENTS:
        raise RecipeError(
            f"source {name}: {prefix}",
            found=f"{header.num_indices - 1} documents",
            rule=f"an index of a blend has at most {MAX_DOCUMENTS} documents",
            do="write it as several indexes, and name them as members of a mix",
        )
    check_data(prefix, header, num_tokens)
    with open(file, "rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    lengths = np.frombuffer(mapped, "<i4", header.num_sequences, HEADER.size)
    if not is_plain:
        lengths = _document_lengths(mapped, header, num_tokens)
    source = SourceIndex(
        name=name,
        lengths=lengths,
        num_tokens=num_tokens,
        dtype=header.dtype,
        index_sha256=digest.hexdigest(),
        mapped=mapped if is_plain else None,
    )
    source.rest()
    return source


def _document_lengths(mapped: mmap.mmap, header: IndexHeader, num_tokens: int) -> np.ndarray:
    """Tokens of documents of several sequences, int64."""
    pointers = np.frombuffer(mapped, "<i8", header.num_sequences, header.at_pointers)
    documents = np.frombuffer(mapped, "<i8", header.num_indices, header.at_documents)
    starts = np.full(header.num_indices, num_tokens, dtype=np.int64)
    inside = documents < header.num_sequences
    starts[inside] = pointers[documents[inside]] // header.dtype.itemsize
    return np.diff(starts)
