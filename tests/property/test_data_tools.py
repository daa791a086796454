"""Properties that hold for any sizes: index identity, exact budgets, packing, unique tokens."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.data_tools.blending.interleave import order_samples
from frontload.data_tools.blending.ledger import account
from frontload.data_tools.blending.stream import Slice, cut_slice, epoch_order
from frontload.data_tools.indexed import IndexedReader, IndexedWriter
from frontload.data_tools.pack import order_rows, pack_lengths
from frontload.recipes.schema import Blend, Window

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, np.ndarray, int]:
    """A window somewhere in the first epochs of a small source, its lengths, sequence_tokens."""
    lengths = np.array(draw(LENGTHS), dtype=np.int64)
    row = draw(st.integers(1, 20))
    start = draw(st.integers(0, 2 * int(lengths.sum())))
    samples = draw(st.integers(1, 3 * int(lengths.sum()) // row + 1))
    return Window(source="base", start_tokens=start, tokens=samples * row), lengths, row


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


def listed(cut: Slice) -> np.ndarray:
    """(document, token) of every token that the slice lists."""
    sizes = np.diff(cut.offsets)
    return np.array([(d, t) for d, n in zip(cut.order, sizes, strict=True) for t in range(n)])


@settings(max_examples=150, deadline=None)
@given(made=windows(), seed=st.integers(0, 5))
def test_a_window_is_exactly_its_part_of_the_stream(
    made: tuple[Window, np.ndarray, int], seed: int
) -> None:
    window, lengths, row = made
    one_epoch = int(lengths.sum())
    end = window.start_tokens + window.tokens
    whole = stream(lengths, seed=seed, epochs=end // one_epoch + 1)
    cut = cut_slice(window, lengths, seed=seed)
    blend = Blend(
        phase="p",
        windows=(window,),
        sequence_tokens=row,
        max_epochs={"base": 9.0},
        seed=seed,
    )
    samples = order_samples(blend, {"base": cut})
    tokens = listed(cut)
    read = np.concatenate([tokens[place : place + row] for _, place in samples])
    assert np.array_equal(read, whole[window.start_tokens : end, 1:])
    last_label = tokens[samples[-1, 1] + row]
    assert np.array_equal(last_label, whole[end, 1:])

    ledger = account(window, cut, one_epoch=one_epoch, phase_tokens=window.tokens)
    epochs, counts = np.unique(whole[window.start_tokens : end, 0], return_counts=True)
    assert ledger.tokens_by_epoch == {str(e): int(n) for e, n in zip(epochs, counts, strict=True)}
    assert ledger.unique_tokens == len(np.unique(read, axis=0))
    assert ledger.repeated_tokens == int((whole[window.start_tokens : end, 0] > 0).sum())


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, cut=st.integers(1, 30), row=st.integers(1, 15), seed=st.integers(0, 5))
def test_phases_of_one_epoch_never_share_a_token(
    lengths: list[int], cut: int, row: int, seed: int
) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    total = int(sizes.sum()) // row
    first = min(cut, total)
    read = []
    for start, samples in ((0, first), (first, total - first)):
        if samples == 0:
            continue
        window = Window(source="base", start_tokens=start * row, tokens=samples * row)
        piece = cut_slice(window, sizes, seed=seed)
        skipped = window.start_tokens - piece.stream_start
        read.append(listed(piece)[skipped : skipped + window.tokens])
    if read:
        together = np.concatenate(read)
        assert len(np.unique(together, axis=0)) == len(together) == total * row


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, row_tokens=st.integers(1, 60), seed=st.integers(0, 5))
def test_packing_keeps_every_conversation_that_fits_once(
    lengths: list[int], row_tokens: int, seed: int
) -> None:
    packed = pack_lengths(lengths, row_tokens=row_tokens, seed=seed)
    kept = sorted(number for row in packed.rows for number in row)
    assert kept == [n for n, length in enumerate(lengths) if length <= row_tokens]
    assert packed.over_long == [n for n, length in enumerate(lengths) if length > row_tokens]
    sums = [sum(lengths[number] for number in row) for row in packed.rows]
    assert all(0 < total <= row_tokens for total in sums)
    # first fit: of any two rows in one buffer, the later one's pieces did not fit the earlier one
    for early in range(len(sums)):
        for late in range(early + 1, len(sums)):
            smallest = min(lengths[number] for number in packed.rows[late])
            assert sums[early] + smallest > row_tokens


@settings(max_examples=60, deadline=None)
@given(num_rows=st.integers(1, 40), num_samples=st.integers(1, 200), seed=st.integers(0, 5))
def test_rows_are_ordered_in_exact_epochs(num_rows: int, num_samples: int, seed: int) -> None:
    order = order_rows(num_rows, num_samples, seed=seed)
    assert len(order) == num_samples
    counts = np.bincount(order, minlength=num_rows)
    assert counts.max() - counts.min() <= 1


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(
        st.lists(st.lists(st.integers(0, 65_499), max_size=6), min_size=1, max_size=4), max_size=8
    ),
    dtype=st.sampled_from([np.uint16, np.int32, np.int64]),
)
def test_index_write_then_read_is_identity(
    documents: list[list[list[int]]], dtype: type[np.generic]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "set"
        with IndexedWriter(prefix, np.dtype(dtype)) as writer:
            for sequences in documents:
                flat = np.array([token for s in sequences for token in s], dtype=np.int64)
                writer.add_document(flat, [len(s) for s in sequences])
        reader = IndexedReader(prefix)
        flat_sequences = [sequence for sequences in documents for sequence in sequences]
        assert [reader.sequence(n).tolist() for n in range(reader.num_sequences)] == flat_sequences
        assert [reader.document(n).tolist() for n in range(reader.num_documents)] == [
            [token for sequence in sequences for token in sequence] for sequences in documents
        ]
        assert reader.dtype == np.dtype(dtype)
