"""`frontload data verify` of a pair and its manifest against reading the same bytes and hashing.

A digest of the .bin alone is the least that anybody who compares digests has to compute: the ratio
says what structure, token ids, document ends and block digests cost on top. Peak memory is that of
one verification in a process of its own.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from paired import measure, show

from frontload.data_tools.disk.indexed import IndexedWriter, bin_file, idx_file, manifest_file
from frontload.data_tools.packing.rows import describe_file
from frontload.data_tools.proof.checks import wrong
from frontload.data_tools.proof.prefix import prove_prefix

VOCAB, MEAN_TOKENS = 32_000, 600  # a document of web text


def write(prefix: Path, size_mb: int) -> None:
    """A pair of about that size, ended by EOD, with the manifest that preprocess writes."""
    generator = np.random.default_rng(1)
    documents = 0
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        for _ in range(max(size_mb // 8, 1)):
            lengths = generator.integers(1, 2 * MEAN_TOKENS, 4_000_000 // MEAN_TOKENS)
            tokens = generator.integers(6, VOCAB, int(lengths.sum()))
            tokens[np.cumsum(lengths) - 1] = 1
            writer.add_documents(tokens, lengths)
            documents += len(lengths)
    manifest = {"num_documents": documents, "dtype": "uint16", "append_eod": True, "eod_id": 1}
    manifest |= {"num_tokens": bin_file(prefix).stat().st_size // 2, "vocab_size": VOCAB}
    for part, file in (("bin", bin_file(prefix)), ("idx", idx_file(prefix))):
        stated = describe_file(file)
        manifest |= {
            f"{part}_sha256": stated["sha256"],
            f"{part}_bytes": stated["size_bytes"],
            f"{part}_blocks": stated["blocks"],
        }
    manifest_file(prefix).write_text(json.dumps(manifest))


def prove(prefix: Path) -> None:
    found = prove_prefix(prefix)
    assert not wrong(found), [one.to_text() for one in wrong(found)]


def digest(prefix: Path) -> str:
    with open(bin_file(prefix), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def peak_mb(prefix: Path) -> float:
    """Peak resident memory of a process that verifies and does nothing else, in MiB."""
    script = (
        "import sys; from pathlib import Path;"
        "from frontload.data_tools.proof.prefix import prove_prefix;"
        "prove_prefix(Path(sys.argv[1]));"
        "lines = Path('/proc/self/status').read_text().splitlines();"
        "print([line.split()[1] for line in lines if line.startswith('VmHWM')][0])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(prefix)], capture_output=True, text=True, check=True
    )
    return float(told.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size-mb", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peaks = {}
        for size_mb in (16, options.size_mb):
            prefix = Path(folder) / f"p{size_mb}"
            write(prefix, size_mb)
            peaks[size_mb] = peak_mb(prefix)
        size = bin_file(prefix).stat().st_size
        timings = measure(
            {"sha256 of the .bin": lambda: digest(prefix), "verify": lambda: prove(prefix)},
            rounds=3,
        )
        title = f"verify of {size / 1e6:.0f} MB; `tokens` are bytes"
        show(title, timings, base="sha256 of the .bin", tokens=size)
        shown = ", ".join(f"{size_mb} MB: {peak:.0f} MiB" for size_mb, peak in peaks.items())
        print(f"peak memory with interpreter and libraries: {shown}")


if __name__ == "__main__":
    main()
