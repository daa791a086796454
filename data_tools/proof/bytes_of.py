"""One pass over a file: its sha256 and block digests against a manifest's, and its tokens' range.

The sha256 runs on a thread of its own, since it is the slowest part by far.
"""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.disk.digests import (
    BLOCK_BYTES,
    BlockDigests,
    blocks_that_differ,
    changed_byte,
    digests_of,
    read_pieces,
    with_change,
)
from frontload.data_tools.proof.checks import Check, check
from frontload.data_tools.proof.pair import PairLayout, Stated, document_ends

SHOWN = 12  # hex digits of a digest in a message


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    """What a manifest states of one file."""

    sha256: str
    size_bytes: int | None = None
    blocks: Mapping[str, Any] | None = None


def prove_bytes(
    file: Path,
    stated: FileDigest | None,
    *,
    look: Callable[[int, bytes], None] | None = None,
    known: Callable[[str], str] | None = None,
) -> list[Check]:
    """Reads a file once, shows each piece to `look`, and compares its digests with those stated.

    `known` names the neighbouring file that has a sha256, to recognise a file that was swapped in.
    """
    block_bytes = (stated.blocks or {}).get("block_bytes", BLOCK_BYTES) if stated else BLOCK_BYTES
    blocks, digest = BlockDigests(block_bytes), hashlib.sha256()
    with ThreadPoolExecutor(1) as hashing:
        pending = hashing.submit(digest.update, b"")
        for at, piece in read_pieces(file):
            pending.result()
            if stated:
                pending = hashing.submit(digest.update, piece)
                blocks.update(piece)
            if look:
                look(at, piece)
        pending.result()
    if stated is None:
        return []
    found = digest.hexdigest()
    claim = f"{file.name} has the sha256 of its manifest"
    if found == stated.sha256:
        return [check(claim, found[:SHOWN], True)]
    told, where = _difference(file, stated, digests_of(blocks.finish()))
    if known and (other := known(found)):
        told = f"it is {other}, by that one's manifest"
    told = f"{found[:SHOWN]}, not {stated.sha256[:SHOWN]}; {told}"
    return [check(claim, told, False, where=where)]


def _difference(file: Path, stated: FileDigest, found: list[int]) -> tuple[str, str]:
    """What differs in a file, and where, as exactly as the manifest allows."""
    size = file.stat().st_size
    if not stated.blocks:
        if stated.size_bytes is not None and stated.size_bytes != size:
            return (
                f"{size} bytes of {stated.size_bytes}",
                f"{file} byte {min(size, stated.size_bytes)}",
            )
        return "its manifest has no digests of blocks, which would say where", str(file)
    block_bytes, expected = stated.blocks["block_bytes"], digests_of(dict(stated.blocks))
    differing = blocks_that_differ(expected, found)
    if not differing:  # the manifest's sha256 itself was changed
        return "every block is as the manifest states, so its sha256 was edited", str(file)
    first = differing[0]
    at, end = first * block_bytes, min((first + 1) * block_bytes, size)
    if stated.size_bytes is not None and stated.size_bytes != size:
        shorter = min(size, stated.size_bytes)
        is_begun_alike = first >= shorter // block_bytes
        told = (
            ("cut off" if size < stated.size_bytes else "longer") if is_begun_alike else "another"
        )
        return (
            f"{told}: {size} bytes of {stated.size_bytes}",
            f"{file} byte {shorter if is_begun_alike else at}",
        )
    if len(differing) == 1:
        change = _one_byte(file, stated, block_at=at, crc=expected[first], block_bytes=block_bytes)
        if change:
            return change
    many = f"{len(differing)} of {len(expected)} blocks differ"
    if len(expected) == 1:
        many = "more than one byte differs"
    elif len(differing) == len(expected):
        many = "every block differs: another file"
    return many, f"{file} byte {at} to {end}"


def _one_byte(
    file: Path, stated: FileDigest, *, block_at: int, crc: int, block_bytes: int
) -> tuple[str, str] | None:
    """The one byte that differs, proven by the sha256 of the file with it put back."""
    with open(file, "rb") as stream:
        stream.seek(block_at)
        block = stream.read(block_bytes)
    for change in changed_byte(block, crc)[:4]:
        if with_change(file, change, block_at=block_at) == stated.sha256:
            told = f"one byte is {change.found:#04x} and was {change.was:#04x}"
            return told, f"{file} byte {block_at + change.at}"
    return None


class TokenLook:
    """Looks at the pieces of a .bin: ids within the vocabulary, and the end of every document."""

    def __init__(self, file: Path, layout: PairLayout, stated: Stated) -> None:
        self._file, self._layout, self._stated = file, layout, stated
        self._stream = open(layout.file, "rb")  # noqa: SIM115 - closed in `checks`
        self._ends = document_ends(self._stream, layout)
        self._numbers = self._places = np.zeros(0, dtype=np.int64)
        self._has_more_ends = True
        self._num_documents = 0
        self._bad_id = self._bad_end = ""
        self._num_bad_ids = self._num_bad_ends = 0
        self._largest, self._smallest = -1, 0

    def __call__(self, at: int, piece: bytes) -> None:
        width = self._layout.dtype.itemsize
        tokens = np.frombuffer(piece[: len(piece) // width * width], self._layout.dtype)
        if not len(tokens):
            return
        largest, smallest = int(tokens.max()), int(tokens.min())
        self._largest, self._smallest = max(self._largest, largest), min(self._smallest, smallest)
        limit = self._stated.vocab_size
        if limit is not None and (largest >= limit or smallest < 0):
            is_bad = (tokens >= limit) | (tokens < 0)
            first = int(np.argmax(is_bad))
            self._bad_id = self._bad_id or f"{self._file} byte {at + first * width}"
            self._num_bad_ids += int(is_bad.sum())
        if self._stated.end is not None:
            self._look_at_ends(at, tokens)

    def _look_at_ends(self, at: int, tokens: np.ndarray) -> None:
        high = at + tokens.nbytes
        while self._has_more_ends and (not len(self._places) or self._places[-1] < high):
            numbers, places = next(self._ends, (None, None))
            if numbers is None or places is None:
                self._has_more_ends = False
                break
            self._numbers = np.append(self._numbers, numbers)
            self._places = np.append(self._places, places)
        count = int(np.searchsorted(self._places, high))
        last = tokens[(self._places[:count] - at) // tokens.itemsize]
        is_bad = last != self._stated.end
        if is_bad.any():
            first = int(np.argmax(is_bad))
            place = f"{self._file} byte {self._places[first]}, document {self._numbers[first]}"
            self._bad_end = self._bad_end or place
            self._num_bad_ends += int(is_bad.sum())
        self._num_documents += count
        self._numbers, self._places = self._numbers[count:], self._places[count:]

    def checks(self) -> list[Check]:
        """The statements about what was looked at."""
        self._stream.close()
        found: list[Check] = []
        limit = self._stated.vocab_size
        if limit is not None:
            shown = f"{self._smallest} to {self._largest}"
            if self._num_bad_ids:
                shown = f"{self._num_bad_ids} ids outside; {shown}"
            claim = f"token ids are 0 to {limit - 1}"
            found.append(check(claim, shown, not self._num_bad_ids, where=self._bad_id))
        if self._stated.end is not None:
            shown = f"{self._num_documents - self._num_bad_ends} of {self._num_documents}"
            claim = f"documents end in EOD, id {self._stated.end}"
            found.append(check(claim, shown, not self._num_bad_ends, where=self._bad_end))
        return found
