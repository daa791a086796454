"""Digests of files by block: what differs from what was written, and at which byte.

A file's sha256 says that it changed. The CRC-32 of each block says where, and since a CRC is linear
it says more: a changed byte leaves a remainder that gives its place and its old value away. Whoever
writes a file that `frontload data verify` is to look into stores `block_digests(file)` as `blocks`
beside the file's sha256 in the manifest.
"""

import hashlib
import zlib
from collections.abc import Buffer, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BLOCK_BYTES = 1 << 20  # ours: 8 characters of manifest a MiB; a place is searched in 0.1 s
POLYNOMIAL = 0xEDB88320  # CRC-32 of zlib and gzip, bits reversed: RFC 1952, section 8


class BlockDigests:
    """CRC-32 of each block of a file that is written or read in pieces of any size."""

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self.block_bytes = block_bytes
        self.digests: list[int] = []
        self._open, self._filled = 0, 0

    def update(self, data: Buffer) -> None:
        """Adds the next bytes of the file."""
        rest = memoryview(data).cast("B")
        while len(rest):
            part = rest[: self.block_bytes - self._filled]
            self._open = zlib.crc32(part, self._open)
            self._filled += len(part)
            rest = rest[len(part) :]
            if self._filled == self.block_bytes:
                self._close()

    def finish(self) -> dict[str, Any]:
        """The manifest's `blocks`: block size and one string of eight hex digits a block."""
        if self._filled:
            self._close()
        return {
            "block_bytes": self.block_bytes,
            "crc32": "".join(f"{digest:08x}" for digest in self.digests),
        }

    def _close(self) -> None:
        self.digests.append(self._open)
        self._open, self._filled = 0, 0


def block_digests(path: Path) -> dict[str, Any]:
    """The manifest's `blocks` of a file, read once."""
    digests = BlockDigests()
    for _, piece in read_pieces(path):
        digests.update(piece)
    return digests.finish()


def read_pieces(path: Path, size_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
    """Yields (first byte, bytes) of a file in pieces of `size_bytes`, in bounded memory."""
    at = 0
    with open(path, "rb") as stream:
        while piece := stream.read(size_bytes):
            yield at, piece
            at += len(piece)


def digests_of(blocks: dict[str, Any]) -> list[int]:
    """The digests that a manifest's `blocks` states."""
    text = blocks["crc32"]
    return [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]


@dataclass(frozen=True, kw_only=True)
class ByteChange:
    """One byte that would explain a block's digest: its place in the block and what it was."""

    at: int
    found: int
    was: int


def changed_byte(block: bytes, stated: int) -> list[ByteChange]:
    """The single bytes whose change would turn a block of digest `stated` into this one.

    A change of one bit is always listed, and first; other places come about by chance, about one
    for 16 blocks of 1 MiB, so a candidate is proven with the file's sha256.

    Source: the remainder of a sum is the sum of remainders, so crc(old) ^ crc(new) is that of the
            difference, which is one byte followed by zeros: undone zero by zero and looked up.
    """
    remainder = zlib.crc32(block) ^ stated
    table = _byte_remainders()
    undone = _zeros_undone(remainder, len(block))
    by_value = np.argsort(table[1:]) + 1
    places = np.searchsorted(table[by_value], undone)
    differences = by_value[np.minimum(places, len(by_value) - 1)]
    zeros_behind = np.flatnonzero(table[differences] == undone)
    found = []
    for zeros in zeros_behind.tolist():
        at = len(block) - 1 - zeros
        difference = int(differences[zeros])
        found.append(ByteChange(at=at, found=block[at], was=block[at] ^ difference))
    return sorted(found, key=lambda change: ((change.found ^ change.was).bit_count(), change.at))


def with_change(path: Path, change: ByteChange, *, block_at: int) -> str:
    """The sha256 that a file would have with one byte put back."""
    digest = hashlib.sha256()
    for at, piece in read_pieces(path):
        place = block_at + change.at - at
        if 0 <= place < len(piece):
            piece = piece[:place] + bytes([change.was]) + piece[place + 1 :]
        digest.update(piece)
    return digest.hexdigest()


def _byte_remainders() -> np.ndarray:
    """uint32 [256]: what a byte adds to the remainder when it is the last one."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1)
    return table


def _zeros_undone(remainder: int, num_bytes: int) -> np.ndarray:
    """uint32 [num_bytes]: the remainder as it was before 0, 1, 2 ... zero bytes were appended."""
    bits = 1 << np.arange(32, dtype=np.uint64)
    step = _one_zero_undone(bits.astype(np.uint32))
    undone = np.array([remainder], dtype=np.uint32)
    while len(undone) < num_bytes:
        undone = np.concatenate([undone, _apply(step, undone)])
        step = _apply(step, step)
    return undone[:num_bytes]


def _one_zero_undone(remainders: np.ndarray) -> np.ndarray:
    for _ in range(8):
        top = remainders >> 31
        remainders = np.where(top, ((remainders ^ np.uint32(POLYNOMIAL)) << 1) | 1, remainders << 1)
    return remainders


def _apply(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A linear map, given by the images of the 32 bits, of each value."""
    mapped = np.zeros_like(values)
    for number in range(4):
        table = np.zeros(256, dtype=np.uint32)
        for bit in range(8):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ images[8 * number + bit]
        mapped ^= table[(values >> np.uint32(8 * number)) & np.uint32(255)]
    return mapped


def blocks_that_differ(stated: Sequence[int], found: Sequence[int]) -> list[int]:
    """Numbers of the blocks that differ, with those that only one side has."""
    longest = max(len(stated), len(found))
    return [
        number
        for number in range(longest)
        if number >= len(stated) or number >= len(found) or stated[number] != found[number]
    ]
