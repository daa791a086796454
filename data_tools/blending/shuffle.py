"""One epoch's order of a source's documents, whole or in pieces that fit into memory.

The order sorts one 64-bit draw a document (`seeds.permutation`). In pieces, the range of draws is
cut into equal parts, and the stream is drawn again for each: the draws of one part are all that is
ever held, at the price of one pass over the stream a part.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from frontload.data_tools.disk.seeds import order_of, stream_bits

PIECE_DOCUMENTS = 1 << 24  # found: listing this many takes under 1 GiB
DRAWN_AT_ONCE = 1 << 18  # stays in a core's cache


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over a source: what names its stream of draws."""

    source: str
    epoch: int
    seed: int
    num_documents: int

    def bits(self) -> np.random.PCG64:
        return stream_bits(self.seed, "blend", self.source, self.epoch)


class Piece:
    """Documents that follow each other in an epoch; put in order only when somebody looks."""

    def __init__(self, documents: np.ndarray, draws: np.ndarray) -> None:
        self.documents = documents  # int32, ascending
        self._draws = draws

    def order(self) -> np.ndarray:
        """Places in `documents`, in stream order, int64 [documents of the piece]."""
        return order_of(self._draws)


def epoch_pieces(epoch: Epoch, *, piece_documents: int = PIECE_DOCUMENTS) -> Iterator[Piece]:
    """The pieces whose documents in order, one behind the other, are `stream.epoch_order`."""
    num_pieces = max(1, -(-epoch.num_documents // piece_documents))
    bounds = [piece * 2**64 // num_pieces for piece in range(num_pieces + 1)]
    for low, high in zip(bounds, bounds[1:], strict=False):
        yield _draw_piece(epoch, low=low, width=high - low)


def _draw_piece(epoch: Epoch, *, low: int, width: int) -> Piece:
    """The documents whose draw lies in [low, low + width)."""
    bits = epoch.bits()
    documents: list[np.ndarray] = []
    draws: list[np.ndarray] = []
    for first in range(0, epoch.num_documents, DRAWN_AT_ONCE):
        drawn = bits.random_raw(min(DRAWN_AT_ONCE, epoch.num_documents - first))
        if width == 2**64:
            inside = np.arange(len(drawn))
        else:
            inside = np.flatnonzero(drawn - np.uint64(low) < np.uint64(width))
        documents.append((inside + first).astype(np.int32))
        draws.append(drawn[inside])
    return Piece(_joined(documents, np.int32), _joined(draws, np.uint64))


def _joined(parts: list[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    whole = np.empty(sum(map(len, parts)), dtype=dtype)
    at = 0
    for place, part in enumerate(parts):
        whole[at : at + len(part)] = part
        at += len(part)
        parts[place] = part[:0]  # gives its memory back: the parts are as large as the whole
    return whole
