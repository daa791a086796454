"""Our indexed files against Megatron's own builder and reader, and every way they can be torn."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.disk.indexed import (
    HEADER,
    IndexedReader,
    IndexedWriter,
    bin_file,
    idx_file,
    token_dtype,
)
from frontload.recipes.errors import ArtifactError, StageError

DOCUMENTS = [[[3, 1, 4], [1, 5]], [[9, 2, 6, 5, 3, 5]], [[8], [9], [7, 9]]]


def write_ours(prefix: Path, dtype: type[np.generic]) -> Path:
    with IndexedWriter(prefix, np.dtype(dtype)) as writer:
        for sequences in DOCUMENTS:
            tokens = np.array([token for sequence in sequences for token in sequence])
            writer.add_document(tokens, [len(sequence) for sequence in sequences])
    return prefix


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint8])
def test_bytes_equal_megatrons_builder(tmp_path: Path, dtype: type[np.generic]) -> None:
    torch = pytest.importorskip("torch")
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    ours = write_ours(tmp_path / "ours", dtype)
    theirs = tmp_path / "theirs"
    builder = megatron.IndexedDatasetBuilder(str(bin_file(theirs)), dtype=dtype)
    for sequences in DOCUMENTS:
        for sequence in sequences:
            builder.add_item(torch.tensor(sequence))
        builder.end_document()
    builder.finalize(str(idx_file(theirs)))

    assert bin_file(ours).read_bytes() == bin_file(theirs).read_bytes()
    assert idx_file(ours).read_bytes() == idx_file(theirs).read_bytes()


def test_megatron_reads_ours(tmp_path: Path) -> None:
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    ours = write_ours(tmp_path / "ours", np.uint16)
    dataset = megatron.IndexedDataset(str(ours))
    flat = [sequence for sequences in DOCUMENTS for sequence in sequences]
    assert [dataset[number].tolist() for number in range(len(dataset))] == flat
    assert dataset.document_indices.tolist() == [0, 2, 3, 6]


def test_reader_gives_sequences_and_documents(tmp_path: Path) -> None:
    reader = IndexedReader(write_ours(tmp_path / "ours", np.uint16))
    assert reader.document(0).tolist() == [3, 1, 4, 1, 5]
    assert reader.sequence(1).tolist() == [1, 5]
    assert reader.document_lengths.tolist() == [5, 6, 4]


def test_many_documents_at_once_are_the_same_file(tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    documents = [np.arange(n) for n in (3, 0, 5, 1)]
    with IndexedWriter(one, np.dtype(np.int32)) as writer:
        for document in documents:
            writer.add_document(document)
    with IndexedWriter(many, np.dtype(np.int32)) as writer:
        writer.add_documents(np.concatenate(documents[:2]), np.array([3, 0]))
        writer.add_documents(np.concatenate(documents[2:]), np.array([5, 1]))
    assert idx_file(one).read_bytes() == idx_file(many).read_bytes()
    assert bin_file(one).read_bytes() == bin_file(many).read_bytes()


def test_token_dtype_is_megatrons_rule() -> None:
    assert token_dtype(65_499) == np.uint16
    assert token_dtype(65_500) == np.int32


def test_a_token_beyond_the_dtype_is_refused_not_wrapped(tmp_path: Path) -> None:
    with (
        pytest.raises(StageError, match="token ids from 1 to 65536"),
        IndexedWriter(tmp_path / "x", np.dtype(np.uint16)) as writer,
    ):
        writer.add_document(np.array([1, 65_536]))
    assert not bin_file(tmp_path / "x").exists()
    assert not idx_file(tmp_path / "x").exists()


def test_an_empty_set_reads_back_empty(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "x", np.dtype(np.uint16)):
        pass
    reader = IndexedReader(tmp_path / "x")
    assert (reader.num_documents, reader.num_tokens) == (0, 0)


def cut_bin(prefix: Path) -> None:
    bin_file(prefix).write_bytes(bin_file(prefix).read_bytes()[:-3])


def cut_idx(prefix: Path) -> None:
    idx_file(prefix).write_bytes(idx_file(prefix).read_bytes()[:-3])


def cut_header(prefix: Path) -> None:
    idx_file(prefix).write_bytes(idx_file(prefix).read_bytes()[:20])


def patch(at: int, value: bytes) -> Callable[[Path], None]:
    def patched(prefix: Path) -> None:
        data = bytearray(idx_file(prefix).read_bytes())
        data[at : at + len(value)] = value
        idx_file(prefix).write_bytes(bytes(data))

    return patched


def idx_of_another_dtype(prefix: Path) -> None:
    other = write_ours(prefix.with_name("other"), np.int32)
    idx_file(prefix).write_bytes(idx_file(other).read_bytes())


NUM_SEQUENCES = sum(len(sequences) for sequences in DOCUMENTS)
AT_POINTERS = HEADER.size + 4 * NUM_SEQUENCES
AT_DOCUMENTS = AT_POINTERS + 8 * NUM_SEQUENCES


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_bin, "set.bin at byte 27: 27 bytes; set.idx says 15 tokens of uint16, 30 bytes"),
        (cut_idx, "set.idx at byte 18: 6 sequences and 4 document indices, which take 138 bytes"),
        (cut_header, "set.idx at byte 20: the file ends in its header"),
        (idx_of_another_dtype, "set.bin at byte 30: 30 bytes; set.idx says 15 tokens of int32"),
        (patch(0, b"XX"), "set.idx at byte 0: magic"),
        (patch(9, struct.pack("<Q", 2)), "set.idx at byte 9: version 2"),
        (patch(17, b"\x09"), "set.idx at byte 17: dtype code 9"),
        (patch(17, b"\x04"), f"set.idx at byte {AT_POINTERS + 8}: pointer 6 of sequence 1"),
        (patch(HEADER.size, struct.pack("<i", -1)), f"set.idx at byte {HEADER.size}: length -1"),
        (
            patch(AT_POINTERS + 16, struct.pack("<q", 2)),
            f"set.idx at byte {AT_POINTERS + 16}: pointer 2 of sequence 2; the lengths before"
            " it put it at byte 10",
        ),
        (
            patch(AT_DOCUMENTS + 8, struct.pack("<q", 5)),
            f"set.idx at byte {AT_DOCUMENTS + 16}: document index 3; they begin",
        ),
        (
            patch(AT_DOCUMENTS + 24, struct.pack("<q", 5)),
            f"set.idx at byte {AT_DOCUMENTS + 24}: the last document ends at sequence 5",
        ),
        (lambda prefix: bin_file(prefix).unlink(), "set.bin: there is no such file"),
        (lambda prefix: idx_file(prefix).unlink(), "set.idx: there is no such file"),
    ],
    ids=lambda value: getattr(value, "__name__", "patch") if callable(value) else None,
)
def test_a_damaged_pair_is_refused_by_file_and_byte(
    tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    prefix = write_ours(tmp_path / "set", np.uint16)
    damage(prefix)
    with pytest.raises(ArtifactError) as caught:
        IndexedReader(prefix)
    assert told in str(caught.value)
    assert caught.value.exit_code == 2
