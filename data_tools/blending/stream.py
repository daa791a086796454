"""A source's stream of documents, and the slices of it that hold windows. Integers only.

A source's stream is its documents in shuffled order, epoch after epoch, each epoch shuffled anew.
A phase reads the window [start, start + tokens) of it, in samples of `sequence_tokens` inputs; the
label of a sample's last token is the next sample's first token. The very last label of a window
may lie one token behind it. Phases of one study read one stream, so windows that do not overlap
read nothing twice before everything was read once.

Differs: Megatron re-reads 120B or 320B of 600B base tokens when it switches blends, since its order
depends on the documents and the seed only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frontload.data_tools.blending.arrays import Sink
from frontload.data_tools.blending.shuffle import PIECE_DOCUMENTS, Epoch, Piece, epoch_pieces
from frontload.data_tools.disk.seeds import permutation
from frontload.recipes.schema import Window


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What was found while one window's documents were listed."""

    num_documents: int
    stream_start: int  # place of the first listed document in the stream
    first_epoch: int
    last_epoch: int  # of the window's last input token
    unique_tokens: int  # distinct tokens among the window's inputs


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Documents of one piece in stream order, with their lengths and their ends in the stream."""

    documents: np.ndarray  # int32
    lengths: np.ndarray  # of the dtype that was given
    ends: np.ndarray  # int64
    epoch: int


class Slice:
    """Lists the documents that hold one window: `order` gets int32 ids, `offsets` int64 places.

    `offsets` are tokens from the start of the first listed document: 0, then each document's end.
    """

    def __init__(self, window: Window, *, one_epoch: int, order: Sink, offsets: Sink) -> None:
        self.start = window.start_tokens
        self.end = window.start_tokens + window.tokens  # also the place of the last label
        self._one_epoch = one_epoch
        self._order, self._offsets = order, offsets
        self._listed = 0
        self._stream_start = -1
        self._seen: np.ndarray | None = None  # documents of the first of two epochs
        self._first_document = self._first_token = 0
        self._repeated = 0

    @property
    def first_epoch(self) -> int:
        return self.start // self._one_epoch

    @property
    def last_epoch(self) -> int:
        return (self.end - 1) // self._one_epoch

    def wants(self, start: int, end: int) -> bool:
        """Whether some document of the stream's [start, end) may be listed."""
        return start <= self.end and end > self.start

    def take(self, part: _Part, *, num_documents: int) -> None:
        """Lists those documents of `part` that hold a token of the window or its last label."""
        low = int(np.searchsorted(part.ends, self.start, side="right"))
        high = int(np.searchsorted(part.ends, self.end, side="right")) + 1
        documents, ends = part.documents[low:high], part.ends[low:high]
        if len(documents) == 0:
            return
        if self._stream_start < 0:
            self._stream_start = int(ends[0] - part.lengths[low])
            self._offsets.append(np.zeros(1, dtype=np.int64))
        self._order.append(documents)
        self._offsets.append(ends - self._stream_start)
        self._listed += len(documents)
        if self._counts_repeats():
            starts = ends - part.lengths[low:high]
            self._count_repeats(documents, starts, ends, part.epoch, num_documents)

    def _counts_repeats(self) -> bool:
        """Whether documents decide what is read twice: two epochs touched, and neither whole."""
        boundary = self.last_epoch * self._one_epoch
        return (
            self.last_epoch == self.first_epoch + 1
            and self.start > boundary - self._one_epoch
            and self.end < boundary + self._one_epoch
        )

    def _count_repeats(
        self,
        documents: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
        epoch: int,
        num_documents: int,
    ) -> None:
        """Tokens of the second epoch's part that the first one's part holds too.

        In each of the two, a document is read in one piece: all of it, but for the first document
        of the first part and the last of the second.
        """
        if self._seen is None:
            self._seen = np.zeros(num_documents, dtype=np.bool_)
            self._first_document = int(documents[0])
            self._first_token = self.start - int(starts[0])
        if epoch == self.first_epoch:
            self._seen[documents] = True
            return
        read_to = np.minimum(ends, self.end) - starts
        read_from = np.where(documents == self._first_document, self._first_token, 0)
        twice = np.maximum(read_to - read_from, 0)[self._seen[documents]]
        self._repeated += int(twice.sum())

    def finish(self) -> Cut:
        """What was found, when the last document is listed."""
        tokens = self.end - self.start
        if self.first_epoch == self.last_epoch or self._counts_repeats():
            unique = tokens - self._repeated
        else:
            unique = self._one_epoch
        return Cut(
            num_documents=self._listed,
            stream_start=self._stream_start,
            first_epoch=self.first_epoch,
            last_epoch=self.last_epoch,
            unique_tokens=unique,
        )


def epoch_order(source: str, epoch: int, *, seed: int, num_documents: int) -> np.ndarray:
    """Documents of one epoch of a source's stream, in order, int64 [num_documents]."""
    return permutation(num_documents, seed, "blend", source, epoch)


def list_documents(
    source: str,
    slices: Sequence[Slice],
    lengths: np.ndarray,
    *,
    seed: int,
    piece_documents: int = PIECE_DOCUMENTS,
) -> None:
    """Runs through a source's stream once and lets every slice take its documents.

    `lengths` has the tokens of each document, of any signed dtype; a mapped file will do.
    """
    num_documents, one_epoch = len(lengths), total_tokens(lengths)
    epoch = min(one.first_epoch for one in slices)
    last = max(one.end for one in slices)
    at = epoch * one_epoch
    while at <= last:
        pass_over = Epoch(source=source, epoch=epoch, seed=seed, num_documents=num_documents)
        for piece in epoch_pieces(pass_over, piece_documents=piece_documents):
            found = lengths[piece.documents]  # ascending: a mapped file is read once, in order
            end = at + total_tokens(found)
            if takers := [one for one in slices if one.wants(at, end)]:
                part = _ordered(piece, found, at=at, epoch=epoch)
                for one in takers:
                    one.take(part, num_documents=num_documents)
                del part
            del piece, found  # before the next one is drawn
            at = end
            if at > last:
                return
        epoch += 1


def total_tokens(lengths: np.ndarray) -> int:
    return int(lengths.sum(dtype=np.int64))


def _ordered(piece: Piece, lengths: np.ndarray, *, at: int, epoch: int) -> _Part:
    order = piece.order()
    found = lengths[order]
    ends = found.astype(np.int64)
    np.cumsum(ends, out=ends)
    ends += at
    return _Part(documents=piece.documents[order], lengths=found, ends=ends, epoch=epoch)
