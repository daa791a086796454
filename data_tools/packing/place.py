"""Which conversations share a row: first fit by decreasing length inside seeded buffers."""

from collections.abc import Sequence

import numpy as np

from frontload.data_tools.disk.seeds import permutation


def pack_lengths(
    lengths: Sequence[int] | np.ndarray,
    *,
    row_tokens: int,
    seed: int,
    buffer_conversations: int = 0,
) -> list[list[int]]:
    """Rows of conversation numbers, each of at most `row_tokens` tokens; none is split.

    Conversations are shuffled, cut into buffers (0: one of all), and each buffer is packed
    first-fit-decreasing.
    Inside a row they stand in shuffled order, so that length says nothing about place.

    Source: Krell et al. 2021, Efficient sequence packing, section 3 (histogram-free form).
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    assert sizes.max(initial=0) <= row_tokens, "what does not fit a row was cut or dropped before"
    shuffled = permutation(len(sizes), seed, "pack")
    rows: list[list[int]] = []
    for start in range(0, len(sizes), buffer_conversations or max(len(sizes), 1)):
        buffer = shuffled[start : start + buffer_conversations or len(sizes)]
        places = np.argsort(-sizes[buffer], kind="stable")  # equal lengths in shuffled order
        decreasing = sizes[buffer][places].tolist()
        for row in first_fit(places.tolist(), decreasing, row_tokens):
            rows.append(buffer[sorted(row)].tolist())
    return rows


def first_fit(numbers: Sequence[int], lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Puts each number, in the given order, into the first row with room for its length.

    The free tokens of the rows are the leaves of a tree of maxima, so a row is found in log time.
    Equal lengths that follow each other fill a row together, and the tree is climbed only as far
    as a maximum changes.
    """
    num_leaves = 1 << max(len(numbers) - 1, 0).bit_length()
    free = [row_tokens] * (2 * num_leaves)
    rows: list[list[int]] = []
    at, count = 0, len(numbers)
    while at < count:
        length, node = lengths[at], 1
        while node < num_leaves:
            node *= 2
            if free[node] < length:
                node += 1
        row, room = node - num_leaves, free[node]
        if row == len(rows):
            rows.append([])
        while at < count and lengths[at] == length and room >= length:
            rows[row].append(numbers[at])
            room -= length
            at += 1
        free[node] = room
        while node > 1:
            sibling = free[node ^ 1]
            largest = room if room > sibling else sibling
            node //= 2
            if free[node] == largest:
                break
            free[node] = room = largest
    return rows


def order_rows(num_rows: int, num_samples: int, *, seed: int) -> np.ndarray:
    """Row of each training sample, int64 [num_samples]: epoch after epoch, each shuffled anew."""
    num_epochs = -(-num_samples // num_rows)
    epochs = [permutation(num_rows, seed, "pack rows", epoch) for epoch in range(num_epochs)]
    return np.concatenate(epochs)[:num_samples]
