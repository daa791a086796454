"""gigatoken alone: rows read with orjson, all texts in memory, ids thrown away, nothing written.

python tests/bench/peer_bare.py CORPUS TOKENIZER
"""

import sys
from collections.abc import Callable
from pathlib import Path

import gigatoken
import orjson


def bare_encode(corpus: Path, tokenizer: Path, *, parallel: bool) -> Callable[[], object]:
    """Reads the texts; what it returns loads the tokenizer and encodes them."""
    with open(corpus, "rb") as stream:
        texts = [orjson.loads(line)["text"] for line in stream]
    return lambda: gigatoken.Tokenizer(tokenizer).encode_batch(texts, parallel=parallel)


if __name__ == "__main__":
    bare_encode(Path(sys.argv[1]), Path(sys.argv[2]), parallel=True)()
