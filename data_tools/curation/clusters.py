"""Rows that are one: by equal keys, or by near signatures. The first row of a cluster is its head.

Rows are numbered in the order of source, file and row. Nothing here depends on how they were read.
"""

from collections.abc import Callable

import numpy as np

from frontload.data_tools.curation.sketch import similarity

Gather = Callable[[np.ndarray], np.ndarray]
"""Numbers of rows -> their signatures."""

PAIRS = 1 << 13  # ours: pairs compared at a time, 2 x 4 MiB of signatures of 128
MOST_LEADERS = 64  # ours: distinct texts of one bucket that its other rows are compared with


def equal_heads(keys: np.ndarray) -> np.ndarray:
    """int64 [n]: the first row with an equal key, for each row. `keys` is [n] or [n, parts]."""
    columns = [keys] if keys.ndim == 1 else list(keys.T[::-1])
    order = np.lexsort(columns)  # stable: rows with one key stay in their order
    is_first = np.ones(len(order), dtype=bool)
    if len(order):
        different = [column[order[1:]] != column[order[:-1]] for column in columns]
        is_first[1:] = np.logical_or.reduce(different)
    firsts = np.flatnonzero(is_first)
    heads = np.empty(len(order), dtype=np.int64)
    heads[order] = np.repeat(order[firsts], np.diff(np.append(firsts, len(order))))
    return heads


class NearClusters:
    """Joins near rows band by band; holds 8 bytes a row, and one band while it is added."""

    def __init__(self, num_rows: int, *, threshold: float, gather: Gather) -> None:
        self._parents = np.arange(num_rows, dtype=np.int64)
        self._threshold = threshold
        self._gather = gather
        self.pairs_compared = 0
        self.pairs_joined = 0
        self.rows_not_compared = 0

    def add_band(self, keys: np.ndarray) -> None:
        """Compares the rows that share a key with the first of them, and joins those that are near.

        Those that are not near the first are compared with the first among themselves, and so on.
        """
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        same = np.zeros(len(order) + 1, dtype=bool)
        same[1:-1] = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
        members = order[same[1:] | same[:-1]]  # of buckets with two rows or more
        buckets = keys[members]
        for _ in range(MOST_LEADERS):
            if not len(members):
                return
            members, buckets = self._round(members, buckets)
        self.rows_not_compared += len(members)

    def _round(self, members: np.ndarray, buckets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joins each bucket's rows to its first where near; returns what is left of each bucket."""
        is_leader = np.ones(len(members), dtype=bool)
        is_leader[1:] = buckets[1:] != buckets[:-1]
        places = np.flatnonzero(is_leader)
        leaders = np.repeat(members[places], np.diff(np.append(places, len(members))))
        is_near = is_leader.copy()
        others = np.flatnonzero(~is_leader)
        for start in range(0, len(others), PAIRS):
            chosen = others[start : start + PAIRS]
            is_near[chosen] = self._join(leaders[chosen], members[chosen])
        return members[~is_near], buckets[~is_near]

    def _join(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Whether each pair is near; those that are become one cluster."""
        joined = self._heads(left) == self._heads(right)
        open_pairs = np.flatnonzero(~joined)
        if len(open_pairs):
            values = similarity(self._gather(left[open_pairs]), self._gather(right[open_pairs]))
            near = open_pairs[values >= self._threshold]
            self.pairs_compared += len(open_pairs)
            self.pairs_joined += len(near)
            for one, other in zip(left[near].tolist(), right[near].tolist(), strict=True):
                self._unite(one, other)
            joined[near] = True
        return joined

    def _heads(self, rows: np.ndarray) -> np.ndarray:
        heads = self._parents[rows]
        while not np.array_equal(above := self._parents[heads], heads):
            heads = above
        self._parents[rows] = heads
        return heads

    def _unite(self, one: int, other: int) -> None:
        parents = self._parents
        while parents[one] != one:
            one = int(parents[one])
        while parents[other] != other:
            other = int(parents[other])
        parents[max(one, other)] = min(one, other)

    def heads(self) -> np.ndarray:
        """int64 [n]: the first row of each row's cluster."""
        return self._heads(np.arange(len(self._parents)))
