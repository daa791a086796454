"""An index is read in one pass: lengths, digest, and each kind of damage by file and byte."""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.blending.source import read_source
from frontload.data_tools.disk import indexed as reading
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.recipes.errors import ArtifactError, RecipeError
from tests.unit.data_tools_blending.small import write_source


@pytest.mark.parametrize("parts", [1, 3])
def test_lengths_are_those_of_the_documents(
    tmp_path: Path, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = write_source(tmp_path / "base", 40, parts=parts)
    monkeypatch.setattr(reading, "ITEMS_AT_ONCE", 7)  # many pieces
    found, reader = read_source("base", prefix), IndexedReader(prefix)
    assert found.lengths().tolist() == reader.document_lengths.tolist()
    assert (found.num_tokens, found.num_documents) == (reader.num_tokens, 40)
    raw = prefix.with_suffix(".idx").read_bytes()
    assert found.index_sha256 == hashlib.sha256(raw).hexdigest()
    assert found.lengths().dtype == (np.int32 if parts == 1 else np.int64)


N = 40  # documents of one sequence each
POINTERS, DOCUMENTS = 34 + 4 * N, 34 + 12 * N


def put(at: int, form: str, value: int) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        with open(prefix.with_suffix(".idx"), "r+b") as file:
            file.seek(at)
            file.write(struct.pack(form, value))

    return damage


def cut(suffix: str, size: int) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        raw = prefix.with_suffix(suffix).read_bytes()
        prefix.with_suffix(suffix).write_bytes(raw[:size])

    return damage


def remove(suffix: str) -> Callable[[Path], None]:
    return lambda prefix: prefix.with_suffix(suffix).unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (remove(".idx"), "base.idx: there is no such file"),
        (remove(".bin"), "base.bin: there is no such file"),
        (cut(".idx", 20), "base.idx at byte 20: the file ends in its header"),
        (cut(".idx", -8), "base.idx at byte 18: 40 sequences and 41 document indices"),
        (cut(".bin", -2), "base.bin at byte"),
        (put(0, "<B", 0), "base.idx at byte 0: magic"),
        (put(9, "<Q", 2), "at byte 9: version 2"),
        (put(17, "<B", 9), "at byte 17: dtype code 9"),
        (put(34 + 4 * 11, "<i", -5), f"at byte {34 + 4 * 11}: length -5"),
        (put(34 + 4 * 11, "<i", 5), f"at byte {POINTERS + 8 * 12}: pointer .* of sequence 12"),
        (put(POINTERS + 8 * 30, "<q", 3), f"at byte {POINTERS + 8 * 30}: pointer 3 of sequence 30"),
        (put(DOCUMENTS, "<q", 1), f"at byte {DOCUMENTS}: document index 1"),
        (put(DOCUMENTS + 8 * 9, "<q", 2), f"at byte {DOCUMENTS + 72}: document index 2"),
        (put(DOCUMENTS + 8 * N, "<q", 41), f"at byte {DOCUMENTS + 8 * N}: the last document ends"),
    ],
)
@pytest.mark.parametrize("pieces", [6, 1 << 20])
def test_damage_is_named_by_file_and_byte(
    tmp_path: Path,
    damage: Callable[[Path], None],
    told: str,
    pieces: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefix = write_source(tmp_path / "base", N)
    monkeypatch.setattr(reading, "ITEMS_AT_ONCE", pieces)
    damage(prefix)
    with pytest.raises(ArtifactError, match=told):
        read_source("base", prefix)


def test_more_documents_than_an_order_can_number_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = write_source(tmp_path / "base", N)
    monkeypatch.setattr("frontload.data_tools.blending.source.MAX_DOCUMENTS", N - 1)
    with pytest.raises(RecipeError, match="40 documents; .* several indexes"):
        read_source("base", prefix)
