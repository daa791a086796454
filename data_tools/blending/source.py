"""A source's index as a blend needs it: documents' lengths, mapped, and what names its bytes.

One pass over the .idx checks and hashes it, a piece at a time; `indexed.IndexedReader` holds it.
"""

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from frontload.data_tools.disk.indexed import DTYPE_CODES, HEADER, MAGIC, bin_file, idx_file
from frontload.recipes.errors import ArtifactError, RecipeError

MAX_DOCUMENTS = 2**31 - 1  # order.npy holds int32
ITEMS_AT_ONCE = 1 << 20


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


@dataclass(frozen=True, kw_only=True)
class _Header:
    dtype: np.dtype
    num_sequences: int
    num_indices: int  # documents + 1

    @property
    def at_pointers(self) -> int:
        return HEADER.size + 4 * self.num_sequences

    @property
    def at_documents(self) -> int:
        return self.at_pointers + 8 * self.num_sequences

    @property
    def size_bytes(self) -> int:
        return self.at_documents + 8 * self.num_indices


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
    with open(file, "rb") as stream:
        header = _read_header(file, stream.read(HEADER.size))
        if header.num_indices - 1 > MAX_DOCUMENTS:
            raise RecipeError(
                f"source {name}: {prefix}",
                found=f"{header.num_indices - 1} documents",
                rule=f"an index of a blend has at most {MAX_DOCUMENTS} documents",
                do="write it as several indexes, and name them as members of a mix",
            )
        stream.seek(0)
        digest.update(stream.read(HEADER.size))
        mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        lengths = np.frombuffer(mapped, "<i4", header.num_sequences, HEADER.size)
        num_tokens = _check_sequences(file, stream, header, lengths, digest)
        is_plain = _check_documents(file, stream, header, digest)
    _check_data(prefix, header, num_tokens)
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


def _read_header(file: Path, raw: bytes) -> _Header:
    if len(raw) < HEADER.size:
        raise _broken(file, at=len(raw), found="the file ends in its header")
    magic, version, code, num_sequences, num_indices = HEADER.unpack(raw)
    if magic != MAGIC or version != 1:
        raise _broken(file, at=0, found=f"magic {magic!r}, version {version}")
    if code not in DTYPE_CODES:
        raise _broken(file, at=17, found=f"dtype code {code}, known are 1 to 8")
    header = _Header(dtype=DTYPE_CODES[code], num_sequences=num_sequences, num_indices=num_indices)
    size = file.stat().st_size
    if size != header.size_bytes or num_indices == 0:
        raise _broken(
            file,
            at=18,
            found=f"{num_sequences} sequences and {num_indices} document indices, which take"
            f" {header.size_bytes} bytes; the file has {size}",
        )
    return header


def _check_sequences(
    file: Path, stream: IO[bytes], header: _Header, lengths: np.ndarray, digest: "hashlib._Hash"
) -> int:
    """Lengths are positive or 0, and each pointer is the bytes before it. Returns the tokens."""
    at = HEADER.size
    for part in _pieces(stream, "<i4", header.num_sequences, digest):
        if part.min() < 0:
            raise _broken(file, at=at + 4 * int(np.argmax(part < 0)), found=f"length {part.min()}")
        at += part.nbytes
    tokens = 0
    for part in _pieces(stream, "<i8", header.num_sequences, digest):
        first = (at - header.at_pointers) // 8
        ends = np.cumsum(lengths[first : first + len(part)], dtype=np.int64) + tokens
        expected = np.concatenate([[tokens], ends[:-1]]) * header.dtype.itemsize
        wrong = part != expected
        if wrong.any():
            place = int(np.argmax(wrong))
            raise _broken(
                file,
                at=at + 8 * place,
                found=f"pointer {part[place]} of sequence {first + place}; the lengths before it"
                f" put it at byte {expected[place]}",
            )
        tokens = int(ends[-1])
        at += part.nbytes
    return tokens


def _check_documents(
    file: Path, stream: IO[bytes], header: _Header, digest: "hashlib._Hash"
) -> bool:
    """Document indices run from 0 to the sequences. True when each sequence is a document."""
    at, last, is_plain = header.at_documents, 0, header.num_indices == header.num_sequences + 1
    for part in _pieces(stream, "<i8", header.num_indices, digest):
        first = (at - header.at_documents) // 8
        falling = np.diff(part, prepend=last) < 0
        if falling.any() or (first == 0 and part[0] != 0):
            place = int(np.argmax(falling))
            raise _broken(
                file,
                at=at + 8 * place,
                found=f"document index {part[place]}; they begin at 0 and never fall",
            )
        is_plain = is_plain and bool((part == np.arange(first, first + len(part))).all())
        last = int(part[-1])
        at += part.nbytes
    if last != header.num_sequences:
        raise _broken(
            file,
            at=at - 8,
            found=f"the last document ends at sequence {last} of {header.num_sequences}",
        )
    return is_plain


def _check_data(prefix: Path, header: _Header, num_tokens: int) -> None:
    path, expected = bin_file(prefix), num_tokens * header.dtype.itemsize
    size = path.stat().st_size
    if size != expected:
        raise _broken(
            path,
            at=min(size, expected),
            found=f"{size} bytes; {idx_file(prefix).name} says {num_tokens} tokens of"
            f" {header.dtype}, {expected} bytes",
        )


def _document_lengths(mapped: mmap.mmap, header: _Header, num_tokens: int) -> np.ndarray:
    """Tokens of documents of several sequences, int64."""
    pointers = np.frombuffer(mapped, "<i8", header.num_sequences, header.at_pointers)
    documents = np.frombuffer(mapped, "<i8", header.num_indices, header.at_documents)
    starts = np.full(header.num_indices, num_tokens, dtype=np.int64)
    inside = documents < header.num_sequences
    starts[inside] = pointers[documents[inside]] // header.dtype.itemsize
    return np.diff(starts)


def _pieces(
    stream: IO[bytes], dtype: str, count: int, digest: "hashlib._Hash"
) -> Iterator[np.ndarray]:
    size = np.dtype(dtype).itemsize
    for first in range(0, count, ITEMS_AT_ONCE):
        raw = stream.read(size * min(ITEMS_AT_ONCE, count - first))
        digest.update(raw)
        yield np.frombuffer(raw, dtype=dtype)


def _broken(path: Path, *, at: int, found: str) -> ArtifactError:
    return ArtifactError(
        f"reading {path} at byte {at}",
        found=found,
        rule="the pair .bin and .idx is as Megatron's IndexedDatasetBuilder wrote it",
        do="write the pair again from its documents; it was torn or mixed with another",
    )
