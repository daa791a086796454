"""The trainer's reader on what `data blend` writes: the same tokens, mapped and never loaded."""

from pathlib import Path

import numpy as np
import pytest

from frontload.launch import cli
from frontload.megatron_ext.training.datasets import BlendSamples
from tests.unit.data_tools_blending.small import (
    DOCUMENTS,
    S,
    phase_inputs,
    write_recipe,
    write_source,
)


@pytest.mark.parametrize("parts", [1, 3])
def test_every_sample_is_read_as_the_files_say(tmp_path: Path, parts: int) -> None:
    """Also where a document is several sequences."""
    folders = {name: tmp_path / name for name in DOCUMENTS}
    for name, folder in folders.items():
        folder.mkdir()
        write_source(folder / "documents", DOCUMENTS[name], parts=parts)
    index = [f"{name}={folder}" for name, folder in folders.items()]
    out = tmp_path / "out"
    words = ["data", "blend", str(write_recipe(tmp_path)), "--index", *index, "--out", str(out)]
    assert cli.main(words) == 0
    prefixes = {name: folder / "documents" for name, folder in folders.items()}
    for phase in "ab":
        expected = np.array(phase_inputs(out / phase, prefixes))
        samples = BlendSamples(out / phase, folders)
        backwards = list(range(samples.num_samples))[::-1]
        rows = samples.read(backwards)
        assert np.array_equal(rows.tokens_BS, expected[::-1, :-1])
        assert np.array_equal(rows.labels_BS, expected[::-1, 1:])
        assert rows.tokens_BS.shape == (len(expected), S)


def test_opening_an_index_of_many_documents_reads_a_few_pages(tmp_path: Path) -> None:
    """2^24 documents: the .idx has 320 MiB, and the process grows by less than 8."""
    from frontload.data_tools.disk.indexed import HEADER, MAGIC
    from frontload.megatron_ext.training.datasets import TokenIndex

    n = 1 << 24
    with open(tmp_path / "documents.idx", "wb") as file:  # holes: every length and pointer is 0
        file.write(HEADER.pack(MAGIC, 1, 4, n, n + 1))
        file.truncate(HEADER.size + 12 * n + 8 * (n + 1))
    (tmp_path / "documents.bin").touch()
    before = resident_bytes()
    index = TokenIndex(tmp_path / "documents")
    assert len(index.lengths) == n
    assert len(index.document(n - 1, 0)) == 0
    assert resident_bytes() - before < 8 << 20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
