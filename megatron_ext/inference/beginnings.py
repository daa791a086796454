"""Rows that begin alike: their common beginning is read once, and each goes on from its state."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

LEAST_TOKENS = 32  # of a common beginning: a shorter one is read again with every row; ours
LEAST_SAVED = (
    1024  # tokens that are not read again, of a call: fewer are not worth more passes; ours
)
BEGINNINGS_AT_ONCE = 16  # that are read side by side


class FullForm(Protocol):
    """What reading asks of a model, as `generate.Decoder` does it."""

    table_VD: Tensor

    def full(
        self, tokens_BS: Tensor, lengths_B: Tensor, *, before: list[Any] | None = None
    ) -> tuple[Tensor, list[Any]]: ...


@dataclass(frozen=True, kw_only=True)
class RowFamily:
    """Rows, by their places, that have their first `num_tokens` tokens in common."""

    num_tokens: int
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Beginnings:
    """Common beginnings, read side by side."""

    tokens: list[list[int]]
    hidden_BSD: Tensor
    lengths_B: Tensor
    states: list[Any]


@dataclass(frozen=True, kw_only=True)
class ReadRows:
    """Rows read side by side: what follows their beginnings, or all of them where they have none.

    `indices` are their places among the rows that were asked for, `at_B` those of their beginnings.
    """

    indices: list[int]
    hidden_BSD: Tensor
    lengths_B: Tensor
    states: list[Any]
    beginnings: Beginnings | None = None
    at_B: Tensor | None = None

    @property
    def last_BD(self) -> Tensor:
        """The hidden state at each row's last token."""
        return _last(self.hidden_BSD, self.lengths_B)

    def whole(self) -> list[Tensor]:
        """The hidden states of each row, its beginning included: [row length, D]."""
        rest = zip(self.hidden_BSD, self.lengths_B.tolist(), strict=True)
        rows = [hidden_SD[:length] for hidden_SD, length in rest]
        if self.beginnings is None or self.at_B is None:
            return rows
        lengths = self.beginnings.lengths_B.tolist()
        return [
            torch.cat([self.beginnings.hidden_BSD[at, : lengths[at]], row_SD])
            for at, row_SD in zip(self.at_B.tolist(), rows, strict=True)
        ]

    def behind_beginnings(self) -> Tensor:
        """`hidden_BSD`, behind the hidden state of the last token of each row's beginning."""
        assert self.beginnings is not None
        assert self.at_B is not None
        last_BD = _last(self.beginnings.hidden_BSD, self.beginnings.lengths_B)[self.at_B]
        return torch.cat([last_BD[:, None], self.hidden_BSD], 1)


def _last(hidden_BSD: Tensor, lengths_B: Tensor) -> Tensor:
    rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
    return hidden_BSD[rows_B, lengths_B - 1]


def read_side_by_side(
    decoder: FullForm, rows: Sequence[list[int]], *, batch_rows: int
) -> Iterator[ReadRows]:
    """Reads every row, at most `batch_rows` side by side, those of similar length together.

    Where rows have enough in common their beginning is read once. Batches depend on the rows alone.
    """
    families = find_families(rows)
    shared = {row for family in families for row in family.rows}
    alone = [row for row in range(len(rows)) if row not in shared]
    for indices in _batches(alone, [len(row) for row in rows], size=batch_rows):
        tokens_BS, lengths_B = pad_rows([rows[row] for row in indices], decoder.table_VD.device)
        hidden_BSD, states = decoder.full(tokens_BS, lengths_B)
        yield ReadRows(indices=indices, hidden_BSD=hidden_BSD, lengths_B=lengths_B, states=states)
    families.sort(key=lambda family: family.num_tokens)
    for start in range(0, len(families), BEGINNINGS_AT_ONCE):
        side_by_side = families[start : start + BEGINNINGS_AT_ONCE]
        yield from _read_families(decoder, rows, side_by_side, batch_rows=batch_rows)


def _read_families(
    decoder: FullForm, rows: Sequence[list[int]], families: list[RowFamily], *, batch_rows: int
) -> Iterator[ReadRows]:
    device = decoder.table_VD.device
    starts = [rows[family.rows[0]][: family.num_tokens] for family in families]
    tokens_BS, lengths_B = pad_rows(starts, device)
    hidden_BSD, states = decoder.full(tokens_BS, lengths_B)
    beginnings = Beginnings(
        tokens=starts, hidden_BSD=hidden_BSD, lengths_B=lengths_B, states=states
    )
    place = {row: number for number, family in enumerate(families) for row in family.rows}
    rests = {row: rows[row][families[number].num_tokens :] for row, number in place.items()}
    lengths = [len(rests.get(row, ())) for row in range(len(rows))]
    for indices in _batches(list(place), lengths, size=batch_rows):
        at_B = torch.tensor([place[row] for row in indices], device=device)
        tokens_BS, lengths_B = pad_rows([rests[row] for row in indices], device)
        before = [state.copied(at_B) for state in states]
        hidden_BSD, after = decoder.full(tokens_BS, lengths_B, before=before)
        yield ReadRows(
            indices=indices,
            hidden_BSD=hidden_BSD,
            lengths_B=lengths_B,
            states=after,
            beginnings=beginnings,
            at_B=at_B,
        )


def read_to_ends(
    decoder: FullForm, prompts: Sequence[list[int]], *, copies: Sequence[int]
) -> tuple[Tensor, list[Any]]:
    """Hidden states at the ends of prompts, and states after them: a row for each of `copies`."""
    parts = list(read_side_by_side(decoder, prompts, batch_rows=len(prompts)))
    place = {row: at for at, row in enumerate(row for part in parts for row in part.indices)}
    copies_B = torch.tensor([place[row] for row in copies], device=decoder.table_VD.device)
    states = parts[0].states
    for part in parts[1:]:
        for state, other in zip(states, part.states, strict=True):
            state.join(other)
    for state in states:
        state.take(copies_B)
    return torch.cat([part.last_BD for part in parts]).index_select(0, copies_B), states


def _batches(indices: list[int], lengths: Sequence[int], *, size: int) -> Iterator[list[int]]:
    by_length = sorted(indices, key=lambda row: lengths[row])
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]


def find_families(rows: Sequence[list[int]]) -> list[RowFamily]:
    """Families that save the most tokens; none where that is too little. Every row keeps a token.

    Among rows in the order of a dictionary a family is a range of neighbours, and ranges lie inside
    each other or apart. A range is one family where that saves more than its parts do.
    """
    order = sorted(range(len(rows)), key=lambda row: rows[row])
    arrays = [np.asarray(rows[row]) for row in order]
    depths = [_common(one, other) for one, other in zip(arrays, arrays[1:], strict=False)]
    best = _best_ranges(depths)
    if best.num_saved < LEAST_SAVED:
        return []
    return [
        RowFamily(num_tokens=depth, rows=tuple(order[first : last + 1]))
        for depth, first, last in best.ranges
    ]


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many first tokens two rows have in common, a last token of each left over."""
    size = min(len(one), len(other)) - 1
    differs = one[:size] != other[:size]
    return int(differs.argmax()) if differs.any() else size


@dataclass(kw_only=True)
class _Best:
    """Ranges (common tokens, first row, last row) and how many tokens they save together."""

    num_saved: int = 0
    ranges: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, other: "_Best") -> None:
        self.num_saved += other.num_saved
        self.ranges += other.ranges


def _best_ranges(depths: list[int]) -> _Best:
    """The ranges among len(depths) + 1 rows; depths[i] tokens are common to rows i and i + 1.

    Every range of rows is closed at its last row, after those inside it.
    """
    found, opened = _Best(), list[tuple[int, int, _Best]]()  # depth, first row, best of its parts
    for row, depth in enumerate([*depths, 0]):
        first, best = row, _Best()
        while opened and opened[-1][0] > depth:
            inner, first, parts = opened.pop()
            parts.add(best)
            saved = (row - first) * inner
            is_whole = inner >= LEAST_TOKENS and saved >= parts.num_saved
            best = _Best(num_saved=saved, ranges=[(inner, first, row)]) if is_whole else parts
        if opened and opened[-1][0] == depth:
            opened[-1][2].add(best)
        elif depth > 0:
            opened.append((depth, first, best))
        else:
            found.add(best)
    return found


def pad_rows(rows: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of tokens side by side, zeros on the right, and their lengths."""
    lengths = [len(row) for row in rows]
    tokens = np.zeros((len(rows), max(lengths)), np.int64)
    for row, target in zip(rows, tokens, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(tokens).to(device), torch.tensor(lengths, device=device)
