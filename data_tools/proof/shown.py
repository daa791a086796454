"""Random samples of a proven artifact, decoded for a person to read."""

from pathlib import Path

import numpy as np

from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.disk.seeds import stream_bits
from frontload.data_tools.text.tokenizer import TextTokenizer

SHOWN_TOKENS = 120  # ours: about ten lines of a terminal


def drawn(count: int, total: int, *, seed: int) -> list[int]:
    """`count` numbers below `total` from the seed, sorted, none twice."""
    if count >= total:
        return list(range(total))
    bits, found = stream_bits(seed, "verify samples"), set()
    while len(found) < count:
        found.update((bits.random_raw(count - len(found)) % np.uint64(total)).tolist())
    return sorted(found)


def show_documents(
    prefix: Path, tokenizer: TextTokenizer | None, *, count: int, seed: int
) -> list[str]:
    """One line a drawn document: its number, its tokens, its text (ids without a tokenizer)."""
    reader = IndexedReader(prefix)
    lines = []
    for number in drawn(count, reader.num_documents, seed=seed):
        ids = reader.document(number)
        at = int(reader.sequence_pointers[reader.document_indices[number]]) if len(ids) else 0
        shown = ids[:SHOWN_TOKENS].tolist()
        text = repr(tokenizer.decode(shown)) if tokenizer else str(shown)
        more = f" ... {len(ids) - len(shown)} more" if len(ids) > len(shown) else ""
        lines.append(f"document {number}, {len(ids)} tokens at byte {at}: {text}{more}")
    return lines
