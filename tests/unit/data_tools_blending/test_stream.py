"""Windows are exactly their part of the stream, whatever the pieces; the shuffle in pieces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.data_tools.blending.ledger import account
from frontload.data_tools.blending.shuffle import Epoch, Piece, epoch_pieces
from frontload.data_tools.blending.stream import epoch_order
from frontload.recipes.schema import Window
from tests.unit.data_tools_blending.listed import list_windows, stream

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, np.ndarray]:
    """A window somewhere in the first epochs of a small source, and its documents' lengths."""
    lengths = np.array(draw(LENGTHS), dtype=np.int32)
    row = draw(st.integers(1, 20))
    start = draw(st.integers(0, 2 * int(lengths.sum())))
    samples = draw(st.integers(1, 3 * int(lengths.sum()) // row + 1))
    return Window(source="base", start_tokens=start, tokens=samples * row), lengths


@settings(max_examples=150)
@given(made=windows(), seed=st.integers(0, 5), piece=st.integers(1, 31))
def test_a_window_is_exactly_its_part_of_the_stream(
    made: tuple[Window, np.ndarray], seed: int, piece: int
) -> None:
    window, lengths = made
    one_epoch = int(lengths.sum())
    end = window.start_tokens + window.tokens
    whole = stream(lengths, seed=seed, epochs=end // one_epoch + 1)
    (found,) = list_windows([window], lengths, seed=seed, piece_documents=piece)
    first = window.start_tokens - found.cut.stream_start
    listed = found.tokens()
    read = listed[first : first + window.tokens]
    assert np.array_equal(read, whole[window.start_tokens : end, 1:])
    assert np.array_equal(listed[first + window.tokens], whole[end, 1:]), "the last label"
    last_document = np.diff(found.offsets)[-1]
    assert len(listed) - last_document <= first + window.tokens, "nothing behind the label's"
    assert found.cut.num_documents == len(found.order)

    ledger = account(window, found.cut, one_epoch=one_epoch, phase_tokens=window.tokens)
    epochs, counts = np.unique(whole[window.start_tokens : end, 0], return_counts=True)
    assert ledger.tokens_by_epoch == {str(e): int(n) for e, n in zip(epochs, counts, strict=True)}
    assert ledger.unique_tokens == len(np.unique(read, axis=0))
    assert ledger.repeated_tokens == int((whole[window.start_tokens : end, 0] > 0).sum())


@settings(max_examples=60)
@given(
    lengths=LENGTHS,
    parts=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    row=st.integers(1, 15),
    seed=st.integers(0, 5),
    piece=st.integers(1, 31),
)
def test_phases_of_one_epoch_never_share_a_token(
    lengths: list[int], parts: list[int], row: int, seed: int, piece: int
) -> None:
    """All phases are listed in one run, and each as if it were alone."""
    sizes = np.array(lengths, dtype=np.int32)
    made, start = [], 0
    for samples in parts:
        tokens = min(samples * row, (int(sizes.sum()) - start) // row * row)
        if tokens:
            made.append(Window(source="base", start_tokens=start, tokens=tokens))
            start += tokens
    if not made:
        return
    together = list_windows(made, sizes, seed=seed, piece_documents=piece)
    read = []
    for window, found in zip(made, together, strict=True):
        (alone,) = list_windows([window], sizes, seed=seed)
        assert np.array_equal(found.order, alone.order)
        assert np.array_equal(found.offsets, alone.offsets)
        assert found.cut == alone.cut
        skipped = window.start_tokens - found.cut.stream_start
        read.append(found.tokens()[skipped : skipped + window.tokens])
    joined = np.concatenate(read)
    assert len(np.unique(joined, axis=0)) == len(joined) == start


@pytest.mark.parametrize("piece_documents", [1, 7, 1_000, 2_999, 3_000, 5_000])
def test_an_epoch_in_pieces_is_the_epoch(piece_documents: int) -> None:
    epoch = Epoch(source="base", epoch=3, seed=11, num_documents=3_000)
    pieces = [
        piece.documents[piece.order()]
        for piece in epoch_pieces(epoch, piece_documents=piece_documents)
    ]
    order = epoch_order("base", 3, seed=11, num_documents=3_000)
    assert np.array_equal(np.concatenate(pieces), order)
    assert len(pieces) == -(-3_000 // piece_documents)
    assert {piece.dtype for piece in pieces} == {np.dtype(np.int32)}


def test_documents_with_equal_draws_keep_their_order() -> None:
    draws = np.array([5, 9, 5, 1, 9, 5] * 40, dtype=np.uint64)
    documents = np.arange(100, 340, dtype=np.int32)
    assert np.array_equal(Piece(documents, draws).order(), np.argsort(draws, kind="stable"))
