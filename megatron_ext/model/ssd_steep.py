"""What the chunked scan leaves out (ssd.py): heads that decay more in a chunk than a factor spans.

Each such pair of a chunk and a head is a row here, and has a decay of its own from each token to
each later one. It is a sum over the tokens between, never a difference of larger sums: nothing
overflows, and the gradient of a decay is a sum over the pairs that it lies between, so nothing of
it cancels. Costs several times the shared form, for these rows alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = -80.0  # exp of it is 2e-35; less is nothing, and near 1e-38 slow on a CPU


@dataclass(frozen=True, kw_only=True)
class SteepRows:
    """Batch row, chunk and head of each row; W are the rows."""

    batch_W: Tensor
    chunk_W: Tensor
    head_W: Tensor

    @classmethod
    def where(cls, steep_Bc1H: Tensor) -> "SteepRows":
        """One for each that is true, of [B, chunks, 1, H]."""
        batch_W, chunk_W, _, head_W = steep_Bc1H.nonzero(as_tuple=True)
        return cls(batch_W=batch_W, chunk_W=chunk_W, head_W=head_W)

    def of(self, tensor: Tensor, *, heads_each: int = 1) -> Tensor:
        """[W, Q, ...] of [B, chunks, Q, heads, ...]; `heads_each` where so many share it."""
        return tensor[self.batch_W, self.chunk_W, :, self.head_W // heads_each]

    def add(self, y_WQE: Tensor, y_BcQHE: Tensor) -> None:
        """To what stands at the rows' tokens."""
        place = (self.batch_W, self.chunk_W, slice(None), self.head_W)
        y_BcQHE[place] = y_BcQHE[place] + y_WQE

    def spread(self, state_WEN: Tensor, gains_BcHEN: Tensor) -> Sequence[Tensor]:
        """What each chunk adds to the state behind it, [B, H, E, N], zero but for the rows."""
        ends = torch.zeros_like(gains_BcHEN)
        ends[self.batch_W, self.chunk_W, self.head_W] = state_WEN
        return ends.unbind(1)

    def of_states(self, before_BcHEN: Tensor, final_BHEN: Tensor | None) -> Tensor:
        """Of the state behind each row's chunk: the one before the next, or the final one."""
        last = torch.zeros_like(before_BcHEN[:, 0]) if final_BHEN is None else final_BHEN
        behind = torch.cat([before_BcHEN[:, 1:], last[:, None]], 1)
        return behind[self.batch_W, self.chunk_W, self.head_W]


@dataclass(kw_only=True)
class Told:
    """How many rows the scans of this process had, since it was last asked."""

    rows: int = 0

    def take(self) -> int:
        found, self.rows = self.rows, 0
        return found


STEEP = Told()

MOST_DECAY = 60.0  # of a chunk: exp(60) is 1e26, and float32 holds sums of 1e38
TOKEN_DECAY = 6.5  # of a token: of more, rounding in the shared form hides 1e-4 of the gradient


def factors_and_rows(log_decay_BcQH: Tensor) -> tuple[tuple[Tensor, Tensor], SteepRows | None]:
    """exp(s) for the outputs of each chunk, what inputs are divided by, and the rows left out.

    s are sums from the beginning of a chunk. Both are one tensor, [B, chunks, Q, H], but where a
    head decays too much in a chunk or at a token: there the inputs are divided by infinity.
    """
    sums = log_decay_BcQH.cumsum(2)
    if log_decay_BcQH.min() > -TOKEN_DECAY and sums[:, :, -1].min() > -MOST_DECAY:
        decays = sums.exp_()
        return (decays, decays), None
    at_once = log_decay_BcQH.amin(2, keepdim=True) <= -TOKEN_DECAY
    steep = at_once | (sums[:, :, -1:] <= -MOST_DECAY)
    decays = sums.masked_fill_(sums < LEAST, -torch.inf).exp_()
    return (decays, decays.masked_fill(steep, torch.inf)), SteepRows.where(steep)


def read_rows(
    rows: SteepRows, tensors: tuple[Tensor, ...], ids_BcQ: Tensor | None, *, size_Q: int
) -> tuple[Tensor, Tensor]:
    """`read_steep` of x, dt, A, B and C of whole sequences, which is counted."""
    STEEP.rows += len(rows.head_W)
    x, dt, A, B, C = tensors
    x, dt, B, C = (tensor.unflatten(1, (-1, size_Q)) for tensor in (x, dt, B, C))
    heads_each = x.shape[3] // B.shape[3]
    dt_WQ = rows.of(dt)
    return read_steep(
        rows.of(x) * dt_WQ[..., None],
        dt_WQ * A[rows.head_W, None],
        rows.of(B, heads_each=heads_each),
        rows.of(C, heads_each=heads_each),
        ids_WQ=None if ids_BcQ is None else ids_BcQ[rows.batch_W, rows.chunk_W],
    )


def read_steep(
    x_WQE: Tensor,
    log_decay_WQ: Tensor,
    B_WQN: Tensor,
    C_WQN: Tensor,
    *,
    ids_WQ: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What tokens read of the chunk, and what all of them add to the state behind it.

    Shapes: x is times dt; y_WQE, state_WEN.
    """
    size_Q = log_decay_WQ.shape[1]
    later = torch.ones(size_Q, size_Q, dtype=torch.bool, device=x_WQE.device).tril_(-1)
    # from each token (last dim) to each later one: sums over the tokens behind the first
    between = (log_decay_WQ[:, :, None] * later).cumsum(1)
    left = between[:, -1] > LEAST
    seen = (between > LEAST) & torch.ones_like(later).tril_()
    if ids_WQ is not None:
        seen = seen & (ids_WQ[:, :, None] == ids_WQ[:, None, :])
        left = left & (ids_WQ == ids_WQ[:, -1:])
    decay_WQQ = between.masked_fill(~seen, -torch.inf).exp()
    left_WQ = between[:, -1].masked_fill(~left, -torch.inf).exp()
    y_WQE = (decay_WQQ * (C_WQN @ B_WQN.mT)) @ x_WQE
    return y_WQE, (x_WQE * left_WQ[..., None]).mT @ B_WQN
