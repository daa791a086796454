"""Megatron's indexed files: `P.bin` holds the tokens, `P.idx` says where documents lie.

    .idx  bytes 0-8    b"MMIDIDX\\0\\0"
          bytes 9-16   version, uint64 little endian, 1
          byte  17     dtype code (DTYPE_CODES)
          bytes 18-25  number of sequences n, uint64
          bytes 26-33  number of document indices m (documents + 1), uint64
          34           sequence lengths, int32 [n]
          34 + 4n      sequence pointers, int64 [n]: byte offset of each sequence in .bin
          34 + 12n     document indices, int64 [m]: first sequence of each document, then n

Source: megatron-core 0.19.2, core/datasets/indexed_dataset.py: _IndexWriter, IndexedDatasetBuilder.
"""

import mmap
import os
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from frontload.recipes.errors import ArtifactError, StageError

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPE_CODES: dict[int, np.dtype] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.int8),
    3: np.dtype(np.int16),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    6: np.dtype(np.float64),
    7: np.dtype(np.float32),
    8: np.dtype(np.uint16),
}
ITEMS_AT_ONCE = 1 << 20  # of an index, read and checked
INDEX_CHUNK = 1 << 20  # ours: document numbers written at a time, 8 MiB
MOST_TOKENS = 1 << 31  # of a vocabulary: Megatron's widest dtype is int32, and ids are 0 or more
LARGEST_UINT16_VOCAB = 65500  # Megatron's DType.optimal_dtype: uint16 below, else int32

Seen = Callable[[bytes], object]
"""Gets what is read, for example to digest it."""


def bin_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".bin")


def idx_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".idx")


def manifest_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".manifest.json")


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest dtype that Megatron picks for a vocabulary."""
    return np.dtype(np.uint16 if vocab_size < LARGEST_UINT16_VOCAB else np.int32)


class IndexedWriter:
    """Writes `P.bin` as documents arrive, and `P.idx` when its block ends; both by rename."""

    def __init__(self, prefix: Path, dtype: np.dtype) -> None:
        self._prefix = prefix
        self._dtype = np.dtype(dtype)
        codes = [code for code, known in DTYPE_CODES.items() if known == self._dtype]
        assert codes, f"dtype {dtype} has no code in Megatron's index"
        self._code = codes[0]
        self._sequence_lengths = array("i")
        self._document_indices = array("q", [0])
        self._stream = open(_partial(bin_file(prefix)), "wb")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> "IndexedWriter":
        return self

    def add_document(self, tokens: np.ndarray, lengths: Sequence[int] | None = None) -> None:
        """Adds one document; `lengths` splits it into sequences (default: one sequence)."""
        parts = [len(tokens)] if lengths is None else list(lengths)
        assert sum(parts) == len(tokens), f"lengths sum to {sum(parts)}, tokens are {len(tokens)}"
        self._stream.write(self._converted(tokens).tobytes())
        self._sequence_lengths.extend(parts)
        self._document_indices.append(len(self._sequence_lengths))

    def add_documents(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Adds documents of one sequence each, given end to end; `lengths` int32 [documents]."""
        assert lengths.sum() == len(tokens), f"lengths are {lengths.sum()}, tokens {len(tokens)}"
        self._stream.write(self._converted(tokens).tobytes())
        first = len(self._sequence_lengths) + 1
        self._sequence_lengths.frombytes(lengths.astype(np.int32).tobytes())
        after = np.arange(first, first + len(lengths), dtype=np.int64)
        self._document_indices.frombytes(after.tobytes())

    @property
    def num_documents(self) -> int:
        return len(self._document_indices) - 1

    def _converted(self, tokens: np.ndarray) -> np.ndarray:
        if len(tokens) == 0 or np.can_cast(tokens.dtype, self._dtype):
            return tokens.astype(self._dtype)
        limits = np.iinfo(self._dtype)
        low, high = int(tokens.min()), int(tokens.max())
        if low < limits.min or high > limits.max:
            raise StageError(
                f"writing document {self.num_documents} of {bin_file(self._prefix)}",
                found=f"token ids from {low} to {high}",
                rule=f"{self._dtype} holds {limits.min} to {limits.max}",
                do="write with the dtype of the tokenizer's vocabulary",
            )
        return tokens.astype(self._dtype)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        if kind is not None:
            _partial(bin_file(self._prefix)).unlink()
            return
        _write_index(
            _partial(idx_file(self._prefix)),
            code=self._code,
            sequence_lengths=np.frombuffer(self._sequence_lengths, dtype=np.int32),
            document_indices=np.frombuffer(self._document_indices, dtype=np.int64),
        )
        os.replace(_partial(bin_file(self._prefix)), bin_file(self._prefix))
        os.replace(_partial(idx_file(self._prefix)), idx_file(self._prefix))


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _write_index(
    path: Path, *, code: int, sequence_lengths: np.ndarray, document_indices: np.ndarray
) -> None:
    pointers = np.zeros(len(sequence_lengths), dtype=np.int64)
    size_bytes = DTYPE_CODES[code].itemsize
    np.cumsum(sequence_lengths[:-1], dtype=np.int64, out=pointers[1:])
    pointers *= size_bytes
    with open(path, "wb") as stream:
        stream.write(HEADER.pack(MAGIC, 1, code, len(sequence_lengths), len(document_indices)))
        stream.write(sequence_lengths.astype("<i4").tobytes())
        stream.write(pointers.astype("<i8").tobytes())
        stream.write(document_indices.astype("<i8").tobytes())


def write_flat_index(
    path: Path, dtype: np.dtype, lengths: Callable[[], Iterable[np.ndarray]]
) -> None:
    """Writes the .idx of documents of one sequence each, in bounded memory.

    Shapes: `lengths` gives int32 arrays, the documents' tokens in order; it is called three times.
    """
    code = next(code for code, known in DTYPE_CODES.items() if known == dtype)
    num_documents = sum(len(part) for part in lengths())
    with open(path, "wb") as stream:
        stream.write(HEADER.pack(MAGIC, 1, code, num_documents, num_documents + 1))
        for part in lengths():
            stream.write(part.astype("<i4").tobytes())
        at = 0
        for part in lengths():
            ends = np.cumsum(part, dtype=np.int64) * dtype.itemsize + at
            starts = np.concatenate([np.array([at], np.int64), ends[:-1]])[: len(part)]
            stream.write(starts.astype("<i8").tobytes())
            at = int(ends[-1]) if len(ends) else at
        for first in range(0, num_documents + 1, INDEX_CHUNK):
            last = min(first + INDEX_CHUNK, num_documents + 1)
            stream.write(np.arange(first, last, dtype="<i8").tobytes())


class IndexedReader:
    """Reads an indexed pair through memory maps, after checking that the two files agree.

    Shapes: sequence_lengths int32 [n], sequence_pointers int64 [n] (bytes), document_indices int64
            [documents + 1], tokens [all tokens of the .bin].
    Raises: ArtifactError naming file and byte offset: missing, torn, bad magic, unknown dtype,
            lengths, pointers or documents that do not fit each other or the .bin.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        for file in (idx_file(prefix), bin_file(prefix)):
            if not file.is_file():
                raise ArtifactError(
                    f"reading {file}",
                    found="there is no such file",
                    rule="an indexed data set is a pair of files, .bin and .idx",
                    do="correct the prefix, or write the pair again",
                )
        header, num_tokens, _ = check_index(idx_file(prefix))
        check_data(prefix, header, num_tokens)
        index = np.asarray(np.memmap(idx_file(prefix), dtype=np.uint8, mode="r"))
        self.dtype = header.dtype
        self.sequence_lengths = index[HEADER.size : header.at_pointers].view("<i4")
        self.sequence_pointers = index[header.at_pointers : header.at_documents].view("<i8")
        self.document_indices = index[header.at_documents :].view("<i8")
        data = np.zeros(0, dtype=np.uint8)
        if num_tokens:
            data = np.asarray(np.memmap(bin_file(prefix), dtype=np.uint8, mode="r"))
        self.tokens = data.view(self.dtype)
        self._sequence_starts = self.sequence_pointers // self.dtype.itemsize

    @property
    def num_sequences(self) -> int:
        return len(self.sequence_lengths)

    @property
    def num_documents(self) -> int:
        return len(self.document_indices) - 1

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def document_lengths(self) -> np.ndarray:
        """Tokens of each document, int64 [num_documents]."""
        ends = np.append(self._sequence_starts, self.num_tokens)
        return np.diff(ends[self.document_indices])

    def sequence(self, number: int) -> np.ndarray:
        """Tokens of one sequence, read-only."""
        start = int(self._sequence_starts[number])
        return self.tokens[start : start + int(self.sequence_lengths[number])]

    def document(self, number: int) -> np.ndarray:
        """Tokens of one document, all of its sequences, read-only."""
        first, last = (int(index) for index in self.document_indices[number : number + 2])
        if first == last:
            return self.tokens[:0]
        end = int(self._sequence_starts[last - 1]) + int(self.sequence_lengths[last - 1])
        return self.tokens[int(self._sequence_starts[first]) : end]


@dataclass(frozen=True, kw_only=True)
class IndexHeader:
    """What an .idx begins with, and where its three arrays lie."""

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


def check_index(file: Path, *, seen: Seen = lambda data: None) -> tuple[IndexHeader, int, bool]:
    """Reads an .idx once, a piece at a time: (header, tokens, whether a document is a sequence).

    `seen` gets each piece, in order.

    Raises: ArtifactError naming file and byte for lengths, pointers or documents that do not fit.
    """
    with open(file, "rb") as stream:
        raw = stream.read(HEADER.size)
        header = _read_header(file, raw)
        seen(raw)
        mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        lengths = np.frombuffer(mapped, "<i4", header.num_sequences, HEADER.size)
        num_tokens = _check_sequences(file, stream, header, lengths, seen)
        is_plain = _check_documents(file, stream, header, seen)
    return header, num_tokens, is_plain


def _read_header(file: Path, raw: bytes) -> IndexHeader:
    if len(raw) < HEADER.size:
        raise _broken(file, at=len(raw), found="the file ends in its header")
    magic, version, code, num_sequences, num_indices = HEADER.unpack(raw)
    if magic != MAGIC:
        raise _broken(file, at=0, found=f"magic {magic!r}, not {MAGIC!r}")
    if version != 1:
        raise _broken(file, at=9, found=f"version {version}, not 1")
    if code not in DTYPE_CODES:
        raise _broken(file, at=17, found=f"dtype code {code}, known are 1 to 8")
    header = IndexHeader(
        dtype=DTYPE_CODES[code], num_sequences=num_sequences, num_indices=num_indices
    )
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
    file: Path, stream: IO[bytes], header: IndexHeader, lengths: np.ndarray, seen: Seen
) -> int:
    """Lengths are positive or 0, and each pointer is the bytes before it. Returns the tokens."""
    at = HEADER.size
    for part in _pieces(stream, "<i4", header.num_sequences, seen):
        if part.min() < 0:
            raise _broken(file, at=at + 4 * int(np.argmax(part < 0)), found=f"length {part.min()}")
        at += part.nbytes
    tokens = 0
    for part in _pieces(stream, "<i8", header.num_sequences, seen):
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


def _check_documents(file: Path, stream: IO[bytes], header: IndexHeader, seen: Seen) -> bool:
    """Document indices run from 0 to the sequences. True when each sequence is a document."""
    at, last, is_plain = header.at_documents, 0, header.num_indices == header.num_sequences + 1
    for part in _pieces(stream, "<i8", header.num_indices, seen):
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


def check_data(prefix: Path, header: IndexHeader, num_tokens: int) -> None:
    """Refuses a .bin that does not hold the tokens of its .idx.

    Raises: ArtifactError.
    """
    path, expected = bin_file(prefix), num_tokens * header.dtype.itemsize
    size = path.stat().st_size
    if size != expected:
        raise _broken(
            path,
            at=min(size, expected),
            found=f"{size} bytes; {idx_file(prefix).name} says {num_tokens} tokens of"
            f" {header.dtype}, {expected} bytes",
        )


def _pieces(stream: IO[bytes], dtype: str, count: int, seen: Seen) -> Iterator[np.ndarray]:
    size = np.dtype(dtype).itemsize
    for first in range(0, count, ITEMS_AT_ONCE):
        raw = stream.read(size * min(ITEMS_AT_ONCE, count - first))
        seen(raw)
        yield np.frombuffer(raw, dtype=dtype)


def _broken(path: Path, *, at: int, found: str) -> ArtifactError:
    return ArtifactError(
        f"reading {path} at byte {at}",
        found=found,
        rule="the pair .bin and .idx is as Megatron's IndexedDatasetBuilder wrote it",
        do="write the pair again from its documents; it was torn or mixed with another",
    )
