"""What a training reads of a pack: its rows as often as the order names them."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedReader, bin_file

BLOCK_ROWS = 1 << 16  # rows whose mask is summed at a time


@dataclass(frozen=True, kw_only=True)
class PackReading:
    """Tokens that are read of a pack, in all and each once. A row's last token is only a target."""

    tokens: int  # real ones, padding left out
    loss_tokens: int
    distinct_tokens: int  # of the rows that are read at all
    row_tokens: int  # of the rows that are read, padding included
    padding_share: float  # of the positions of those rows
    epochs: float


def account_reading(folder: Path) -> PackReading:
    """The ledger of a pack, from its rows, its masks and its order."""
    pack = read_json(folder / "pack.json")
    lengths = IndexedReader(folder / "tokens").document_lengths
    losses = _loss_tokens(bin_file(folder / "loss_mask"), lengths)
    order = np.load(folder / "order.npy", mmap_mode="r")
    times = np.bincount(order, minlength=len(lengths))
    unread, unread_loss, last = 0, 0, int(order[-1])
    if "last_row_tokens" in pack:
        mask = IndexedReader(folder / "loss_mask").document(last)[pack["last_row_tokens"] :]
        unread, unread_loss = len(mask), int(mask.sum())
    tokens = int(times @ lengths) - unread
    positions = len(order) * (pack["sequence_tokens"] + 1)
    return PackReading(
        tokens=tokens,
        loss_tokens=int(times @ losses) - unread_loss,
        distinct_tokens=int(lengths[times > 0].sum()) - (unread if times[last] == 1 else 0),
        row_tokens=len(order) * pack["sequence_tokens"],
        padding_share=1.0 - tokens / positions,
        epochs=float(Fraction(pack["epochs"])),
    )


def _loss_tokens(file: Path, lengths: np.ndarray) -> np.ndarray:
    """Tokens with loss of each row."""
    masks = np.memmap(file, dtype=np.uint8, mode="r")
    ends = np.cumsum(lengths)
    starts = ends - lengths
    found = np.empty(len(lengths), dtype=np.int64)
    for first in range(0, len(lengths), BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, len(lengths))
        block = masks[starts[first] : ends[last - 1]].astype(np.int64)
        found[first:last] = np.add.reduceat(block, starts[first:last] - starts[first])
    return found
