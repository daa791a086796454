"""Properties that hold for any sizes: index identity, packing, exact epochs of rows."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.data_tools.disk.indexed import IndexedReader, IndexedWriter
from frontload.data_tools.packing.place import order_rows, pack_lengths

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@settings(max_examples=100)
@given(lengths=LENGTHS, row_tokens=st.integers(1, 60), seed=st.integers(0, 5))
def test_packing_keeps_every_conversation_once(
    lengths: list[int], row_tokens: int, seed: int
) -> None:
    lengths = [min(length, row_tokens) for length in lengths]
    rows = pack_lengths(lengths, row_tokens=row_tokens, seed=seed)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    sums = [sum(lengths[number] for number in row) for row in rows]
    assert all(0 < total <= row_tokens for total in sums)
    # first fit: of any two rows in one buffer, the later one's pieces did not fit the earlier one
    for early in range(len(sums)):
        for late in range(early + 1, len(sums)):
            smallest = min(lengths[number] for number in rows[late])
            assert sums[early] + smallest > row_tokens


@settings(max_examples=60)
@given(num_rows=st.integers(1, 40), num_samples=st.integers(1, 200), seed=st.integers(0, 5))
def test_rows_are_ordered_in_exact_epochs(num_rows: int, num_samples: int, seed: int) -> None:
    order = order_rows(num_rows, num_samples, seed=seed)
    assert len(order) == num_samples
    counts = np.bincount(order, minlength=num_rows)
    assert counts.max() - counts.min() <= 1


@settings(max_examples=60)
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
