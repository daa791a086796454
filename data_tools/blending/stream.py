"""A source's stream of documents, and the slice of it that holds one window. Integers only.

A source's stream is its documents in shuffled order, epoch after epoch, each epoch shuffled anew.
A phase reads the window [start, start + tokens) of it, in samples of `sequence_tokens` inputs; the
label of a sample's last token is the next sample's first token. The very last label of a window
may lie one token behind it. Phases of one study read one stream, so windows that do not overlap
read nothing twice before everything was read once.

Differs: Megatron re-reads 120B or 320B of 600B base tokens when it switches blends, since its order
depends on the documents and the seed only.
"""

from dataclasses import dataclass

import numpy as np

from frontload.data_tools.seeds import permutation
from frontload.recipes.schema import Window


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The documents that hold one window, in stream order, with their cumulative offsets."""

    order: np.ndarray  # int32 [n], document ids
    offsets: np.ndarray  # int64 [n + 1], tokens from the start of the first listed document
    stream_start: int  # place of the first listed document in the stream
    first_epoch: int
    last_epoch: int  # of the window's last input token


def epoch_order(source: str, epoch: int, *, seed: int, num_documents: int) -> np.ndarray:
    """Documents of one epoch of a source's stream, in order."""
    return permutation(num_documents, seed, "blend", source, epoch)


def cut_slice(window: Window, document_lengths: np.ndarray, *, seed: int) -> Slice:
    """The documents of one window, from its first token's to its last label's."""
    one_epoch = int(document_lengths.sum())
    num_documents = len(document_lengths)
    label_position = window.start_tokens + window.tokens
    first_epoch = window.start_tokens // one_epoch
    orders: list[np.ndarray] = []
    stream_start = 0
    for epoch in range(first_epoch, label_position // one_epoch + 1):
        order = epoch_order(window.source, epoch, seed=seed, num_documents=num_documents)
        ends = np.cumsum(document_lengths[order])
        low, high = 0, num_documents
        if epoch == first_epoch:
            low = int(np.searchsorted(ends, window.start_tokens - epoch * one_epoch, side="right"))
            stream_start = epoch * one_epoch + (int(ends[low - 1]) if low else 0)
        if label_position < (epoch + 1) * one_epoch:
            at = label_position - epoch * one_epoch
            high = int(np.searchsorted(ends, at, side="right")) + 1
        orders.append(order[low:high].astype(np.int32))
    order = np.concatenate(orders)
    offsets = np.zeros(len(order) + 1, dtype=np.int64)
    np.cumsum(document_lengths[order], out=offsets[1:])
    return Slice(
        order=order,
        offsets=offsets,
        stream_start=stream_start,
        first_epoch=first_epoch,
        last_epoch=(label_position - 1) // one_epoch,
    )
