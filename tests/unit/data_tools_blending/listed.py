"""A window's documents listed in memory, and the stream they come from written out in full."""

from dataclasses import dataclass, field

import numpy as np

from frontload.data_tools.blending.stream import Cut, Slice, epoch_order, list_documents
from frontload.recipes.schema import Window


@dataclass
class Kept:
    """A sink that keeps its parts."""

    parts: list[np.ndarray] = field(default_factory=list)

    def append(self, part: np.ndarray) -> None:
        self.parts.append(part)

    @property
    def whole(self) -> np.ndarray:
        return np.concatenate(self.parts)


@dataclass(frozen=True, kw_only=True)
class Listed:
    order: np.ndarray
    offsets: np.ndarray
    cut: Cut

    def tokens(self) -> np.ndarray:
        """(document, token) of every token of the listed documents."""
        sizes = np.diff(self.offsets)
        return np.array(
            [(d, t) for d, n in zip(self.order, sizes, strict=True) for t in range(n)]
        ).reshape(-1, 2)


def list_windows(
    windows: list[Window], lengths: np.ndarray, *, seed: int, piece_documents: int = 1 << 20
) -> list[Listed]:
    """Lists the documents of windows of one source in one run through its stream."""
    sinks = [(Kept(), Kept()) for _ in windows]
    slices = [
        Slice(window, one_epoch=int(lengths.sum()), order=order, offsets=offsets)
        for window, (order, offsets) in zip(windows, sinks, strict=True)
    ]
    source = windows[0].source
    list_documents(source, slices, lengths, seed=seed, piece_documents=piece_documents)
    return [
        Listed(order=order.whole, offsets=offsets.whole, cut=one.finish())
        for one, (order, offsets) in zip(slices, sinks, strict=True)
    ]


def stream(lengths: np.ndarray, *, seed: int, epochs: int) -> np.ndarray:
    """The stream as (epoch, document, token) rows, written out token by token."""
    return np.array(
        [
            (epoch, document, token)
            for epoch in range(epochs)
            for document in epoch_order("base", epoch, seed=seed, num_documents=len(lengths))
            for token in range(lengths[document])
        ]
    )
