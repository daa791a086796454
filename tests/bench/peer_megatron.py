"""Megatron's flow: a pool of two processes, a text at a time, IndexedDatasetBuilder.

That of tools/preprocess_data.py at Megatron-LM d98e8a6: `imap` over lines in chunks of 32,
`json.loads`, one `encode` a text, the builder in the parent.

    python tests/bench/peer_megatron.py CORPUS TOKENIZER PREFIX
"""

import json
import multiprocessing
import os
import sys
from pathlib import Path

from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
from tokenizers import Tokenizer

WORKERS = 2


class MegatronEncoder:
    """What Megatron's Encoder does in a worker: class state, one text at a time."""

    tokenizer: Tokenizer

    def __init__(self, file: Path) -> None:
        self.file = file

    def start(self) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        MegatronEncoder.tokenizer = Tokenizer.from_file(str(self.file))

    def encode(self, line: str) -> tuple[dict, dict, int]:
        ids = MegatronEncoder.tokenizer.encode(json.loads(line)["text"]).ids
        ids.append(0)
        return {"text": ids}, {"text": [len(ids)]}, len(line)


def megatron_flow(corpus: Path, tokenizer: Path, prefix: Path) -> None:
    """Writes the pair; every document ends with id 0."""
    encoder = MegatronEncoder(tokenizer)
    with (
        open(corpus, encoding="utf-8") as lines,
        multiprocessing.get_context("fork").Pool(WORKERS, initializer=encoder.start) as pool,
    ):
        builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(32_000))
        for found, lengths, _ in pool.imap(encoder.encode, lines, 32):
            builder.add_document(found["text"], lengths["text"])
        builder.finalize(f"{prefix}.idx")


if __name__ == "__main__":
    megatron_flow(*map(Path, sys.argv[1:]))
