"""Block digests name the byte that changed, for any cut of the pieces they were made from."""

import hashlib
import zlib
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.data_tools.disk.digests import (
    BLOCK_BYTES,
    BlockDigests,
    block_digests,
    blocks_that_differ,
    changed_byte,
    digests_of,
    with_change,
)


@given(
    st.binary(max_size=200),
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.integers(1, 9),
)
def test_digests_do_not_depend_on_the_pieces(data: bytes, sizes: list[int], block: int) -> None:
    digests, at = BlockDigests(block), 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        digests.update(data[at : at + size])
        at += size
    stated = digests_of(digests.finish())
    assert stated == [zlib.crc32(data[k : k + block]) for k in range(0, len(data), block)]


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=3000), st.data())
def test_a_changed_byte_is_named(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    difference = draw.draw(st.integers(1, 255))
    damaged = bytearray(data)
    damaged[at] ^= difference
    found = changed_byte(bytes(damaged), zlib.crc32(data))
    assert (at, data[at]) in [(change.at, change.was) for change in found]
    if difference.bit_count() == 1:
        assert found[0].at == at


def test_a_flipped_bit_is_named_in_a_whole_block(tmp_path: Path) -> None:
    data = np.random.default_rng(1).bytes(BLOCK_BYTES + 5000)
    (tmp_path / "f").write_bytes(data)
    blocks = digests_of(block_digests(tmp_path / "f"))
    for at, number in ((0, 0), (BLOCK_BYTES - 1, 0), (BLOCK_BYTES + 4999, 1)):
        damaged = bytearray(data)
        damaged[at] ^= 16
        (tmp_path / "d").write_bytes(damaged)
        found = digests_of(block_digests(tmp_path / "d"))
        assert blocks_that_differ(blocks, found) == [number]
        start = number * BLOCK_BYTES
        change = changed_byte(bytes(damaged[start : start + BLOCK_BYTES]), blocks[number])[0]
        assert (start + change.at, change.was) == (at, data[at])
        whole = with_change(tmp_path / "d", change, block_at=start)
        assert whole == hashlib.sha256(data).hexdigest()


def test_two_changed_bytes_are_not_one() -> None:
    data = bytes(4096)
    damaged = bytearray(data)
    damaged[7], damaged[3000] = 1, 1
    assert changed_byte(bytes(damaged), zlib.crc32(data)) == []
