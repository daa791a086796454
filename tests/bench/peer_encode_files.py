"""gigatoken's `encode_files`, then the builder of megatron-core 0.19.2, a document at a time.

"In one write" is the flow of tools/preprocess_data_fast.py at Megatron-LM d98e8a6: its builder
takes all documents at once (`add_documents`, not in 0.19.2 yet) and holds all tokens in memory.

    python tests/bench/peer_encode_files.py CORPUS TOKENIZER PREFIX
"""

import sys
from pathlib import Path

import gigatoken
import numpy as np
from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder


def encode_files(corpus: Path, tokenizer: Path) -> tuple[np.ndarray, np.ndarray]:
    """All ids end to end, and where each document begins and the last one ends."""
    source = gigatoken.JsonlFileSource([corpus], field="text")
    encoded = gigatoken.Tokenizer(tokenizer).encode_files(source, parallel=True)
    layout = encoded.layout  # views: a loop over awkward's rows would slow the peer down
    return np.asarray(layout.content.data), np.asarray(layout.offsets.data)


def encode_files_flow(corpus: Path, tokenizer: Path, prefix: Path) -> None:
    """Writes the pair; every document ends with id 0."""
    flat, offsets = encode_files(corpus, tokenizer)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(32_000))
    for start, end in zip(offsets[:-1], offsets[1:], strict=True):
        builder.add_document(np.append(flat[start:end], 0), [int(end - start) + 1])
    builder.finalize(f"{prefix}.idx")


def one_write_flow(corpus: Path, tokenizer: Path, prefix: Path) -> None:
    """The same pair, the tokens in one write."""
    flat, offsets = encode_files(corpus, tokenizer)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(32_000))
    builder.data_file.write(np.insert(flat.astype(builder.dtype), offsets[1:], 0).tobytes())
    builder.sequence_lengths.extend((np.diff(offsets) + 1).tolist())
    builder.document_indices.extend(range(1, len(offsets)))
    builder.finalize(f"{prefix}.idx")


if __name__ == "__main__":
    encode_files_flow(*map(Path, sys.argv[1:]))
