"""What a layer remembers of each row of a batch; rows leave, are copied, and join another batch."""

from copy import copy
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor


class State(Protocol):
    """What one layer, or a whole model of another library, remembers of the rows of a batch."""

    def take(self, rows: Tensor) -> None:
        """Keeps `rows`, in that order, with repeats."""
        ...

    def copied(self, rows: Tensor) -> Self:
        """A state of its own with `rows`, in that order, with repeats."""
        ...

    def join(self, other: Any) -> None:
        """Puts the rows of `other`, a state of the same kind, below its own."""
        ...

    def reserve(self, num_tokens: int) -> None:
        """Makes room for at least `num_tokens` more tokens a row."""
        ...


def _copied[S: State](state: S, rows: Tensor) -> S:
    """For a state whose `take` replaces its tensors and writes into none."""
    made = copy(state)
    made.take(rows)
    return made


class MambaState:
    """Inputs still inside the convolution, oldest first, and the state of the recurrence."""

    def __init__(self, taps: list[Tensor], ssm_BGNC: Tensor) -> None:
        self.taps = taps
        self.ssm_BGNC = ssm_BGNC

    def copied(self, rows: Tensor) -> Self:
        """A state of its own with `rows`, in that order, with repeats."""
        return _copied(self, rows)

    def take(self, rows: Tensor) -> None:
        """Keeps `rows`, in that order, with repeats."""
        self.taps = [tap.index_select(0, rows) for tap in self.taps]
        self.ssm_BGNC = self.ssm_BGNC.index_select(0, rows)

    def join(self, other: Self) -> None:
        """Puts the rows of `other` below its own."""
        self.taps = [torch.cat(pair) for pair in zip(self.taps, other.taps, strict=True)]
        self.ssm_BGNC = torch.cat([self.ssm_BGNC, other.ssm_BGNC])

    def reserve(self, num_tokens: int) -> None:
        """Its size does not depend on the number of tokens."""


class AttentionState:
    """Keys and values: prompt slots first (padded), then one slot a generated token for all rows.

    Without position embeddings the order of slots does not matter; padded slots have bias -inf.
    """

    def __init__(self, keys_BKSE: Tensor, values_BKSE: Tensor, bias_BKS: Tensor) -> None:
        self.keys_BKSE = keys_BKSE
        self.values_BKSE = values_BKSE
        self.bias_BKS = bias_BKS
        self.num_slots = keys_BKSE.shape[2]

    def copied(self, rows: Tensor) -> Self:
        """A state of its own with `rows`, in that order, with repeats."""
        return _copied(self, rows)

    def followed_by(self, other: Self) -> "AttentionState":
        """Slots of the same rows: its own, then those of `other`."""
        used = slice(self.num_slots)
        return AttentionState(
            torch.cat([self.keys_BKSE[:, :, used], other.keys_BKSE], 2),
            torch.cat([self.values_BKSE[:, :, used], other.values_BKSE], 2),
            torch.cat([self.bias_BKS[:, :, used], other.bias_BKS], 2),
        )

    def take(self, rows: Tensor) -> None:
        """Keeps `rows`, in that order, with repeats."""
        self.keys_BKSE = self.keys_BKSE.index_select(0, rows)
        self.values_BKSE = self.values_BKSE.index_select(0, rows)
        self.bias_BKS = self.bias_BKS.index_select(0, rows)

    def join(self, other: Self) -> None:
        """Puts the rows of `other` below its own; no row keeps a slot that every row has empty."""
        self._pack()
        other._pack()
        size = max(self.num_slots, other.num_slots)
        for state in (self, other):
            missing = size - state.num_slots
            state.keys_BKSE = F.pad(state.keys_BKSE, (0, 0, 0, missing))
            state.values_BKSE = F.pad(state.values_BKSE, (0, 0, 0, missing))
            state.bias_BKS = F.pad(state.bias_BKS, (0, missing), value=-torch.inf)
        self.keys_BKSE = torch.cat([self.keys_BKSE, other.keys_BKSE])
        self.values_BKSE = torch.cat([self.values_BKSE, other.values_BKSE])
        self.bias_BKS = torch.cat([self.bias_BKS, other.bias_BKS])
        self.num_slots = size

    def reserve(self, num_tokens: int) -> None:
        """Makes room for at least `num_tokens` more slots."""
        missing = num_tokens - (self.keys_BKSE.shape[2] - self.num_slots)
        if missing > 0:
            self.keys_BKSE = F.pad(self.keys_BKSE, (0, 0, 0, missing))
            self.values_BKSE = F.pad(self.values_BKSE, (0, 0, 0, missing))
            self.bias_BKS = F.pad(self.bias_BKS, (0, missing))

    def _pack(self) -> None:
        """Moves each row's own slots to the front and drops the slots that no row uses."""
        is_used_BS = self.bias_BKS[:, 0, : self.num_slots] == 0
        size = int(is_used_BS.sum(1).max())
        order_BS = is_used_BS.to(torch.uint8).argsort(stable=True, dim=1, descending=True)[:, :size]
        slots = order_BS[:, None, :, None].expand(
            -1, self.keys_BKSE.shape[1], -1, self.keys_BKSE.shape[3]
        )
        self.keys_BKSE = self.keys_BKSE.gather(2, slots)
        self.values_BKSE = self.values_BKSE.gather(2, slots)
        self.bias_BKS = self.bias_BKS.gather(2, slots[..., 0])
        self.num_slots = size


class MlpState:
    """An MLP remembers nothing."""

    def copied(self, rows: Tensor) -> Self:
        """Nothing to copy."""
        del rows
        return self

    def take(self, rows: Tensor) -> None:
        """Nothing to keep."""

    def join(self, other: Self) -> None:
        """Nothing to join."""

    def reserve(self, num_tokens: int) -> None:
        """Nothing to make room for."""
