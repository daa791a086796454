"""Whatever a row or an index holds: packing counts it, and verifying ends with an answer."""

from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frontload.data_tools.disk.indexed import IndexedReader, IndexedWriter, bin_file, idx_file
from frontload.data_tools.packing.encode import Counts, PackRules, SequenceEncoder
from frontload.data_tools.proof.checks import wrong
from frontload.data_tools.proof.pair import Stated
from frontload.data_tools.proof.prefix import Digests, prove_pair
from frontload.data_tools.raw.parse import RawRow
from frontload.data_tools.text.chat import load_template
from frontload.data_tools.text.tokenizer import TextTokenizer
from tests.unit.data_tools.chats import chatml_tokenizer, dialogue

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ROLES = st.sampled_from(["user", "assistant", "system", "tool", ""])
TURNS = st.fixed_dictionaries(
    {"role": ROLES | JSON, "content": st.text(max_size=30) | JSON},
    optional={"reasoning_content": st.text(max_size=10) | JSON},
)
ROWS = (
    st.dictionaries(st.sampled_from(["messages", "question", "trace", "answer", "text"]), JSON)
    | st.fixed_dictionaries({"messages": st.lists(TURNS, max_size=5)})
    | st.fixed_dictionaries({"question": st.text(), "trace": JSON, "answer": st.text()})
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chatml_tokenizer(tmp_path_factory.mktemp("chatml"))


@lru_cache(maxsize=4)
def encoder(folder: Path, over_long: str, limit: int) -> SequenceEncoder:
    tokenizer = TextTokenizer.load(folder)
    rules = PackRules(sequence_tokens=limit, over_long=over_long, source_field="source")
    return SequenceEncoder(tokenizer, load_template(None, tokenizer), rules)


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.lists(ROWS, max_size=5), st.sampled_from(["drop", "split_at_turn"]))
def test_any_row_is_packed_or_counted(folder: Path, rows: list[dict], over_long: str) -> None:
    counts = Counts()
    raw = [RawRow(Path("r.jsonl"), number, row) for number, row in enumerate(rows, start=1)]
    found = encoder(folder, over_long, 100).encode(raw, counts)
    assert sum(counts.rows.values()) == len(rows)
    assert sum(counts.packed.values()) == sum(bool(parts) for parts in found)
    assert sum(counts.dropped.values()) == sum(not parts for parts in found)
    for parts in found:
        for part in parts:
            assert 0 < len(part.tokens) == len(part.mask) <= 101
            assert part.mask.any()


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), st.integers(90, 300))
def test_targets_are_the_answers_and_nothing_else(
    folder: Path, exchanges: list[tuple[str, str]], limit: int
) -> None:
    """Split or whole: the targets, in order, are answers with the token that ends a turn."""
    texts = [text for pair in exchanges for text in pair]
    if any("<" in text for text in texts):
        return  # may spell a special token or a think block: other tests
    tokenizer, counts = TextTokenizer.load(folder), Counts()
    row = RawRow(Path("r.jsonl"), 1, dialogue(*texts))
    (parts,) = encoder(folder, "split_at_turn", limit).encode([row], counts)
    targets: list[str] = []
    for part in parts:
        edges = np.flatnonzero(np.diff(part.mask)) + 1
        for ids in np.split(part.tokens, edges)[1::2]:
            targets.append(tokenizer.decode(ids.tolist()))
    expected = Counter(f"{answer.strip()}<|im_end|>" for _, answer in exchanges)
    missing = sum(counts.cut_turns.values()) if parts else len(exchanges)
    assert not Counter(targets) - expected
    assert len(targets) == len(exchanges) - missing


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, bytes]:
    prefix = tmp_path_factory.mktemp("pair") / "P"
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        for length in (3, 1, 7, 2, 9):
            writer.add_document(np.arange(length) + 2)
    return prefix, bin_file(prefix).read_bytes(), idx_file(prefix).read_bytes()


@settings(max_examples=250, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_damage_of_an_index_is_told_and_never_crashes(
    pair: tuple[Path, bytes, bytes], data: st.DataObject
) -> None:
    """Without any digest: what `IndexedReader` refuses, the proof refuses too, and names a byte."""
    prefix, tokens, index = pair
    damaged = bytearray(index)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(index) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 3) | st.just(0))
    idx_file(prefix).write_bytes(bytes(damaged[: len(damaged) - cut]))
    bin_file(prefix).write_bytes(tokens)
    found = wrong(prove_pair(prefix, Stated(), Digests()))
    try:
        IndexedReader(prefix)
    except Exception:  # ArtifactError, or what damage does to a reader that expects order
        assert found
        assert all(" byte " in one.where for one in found)
    flat = Stated(num_documents=5, num_tokens=22, dtype="uint16", is_flat=True)
    if bytes(damaged[: len(damaged) - cut]) != index:
        assert wrong(prove_pair(prefix, flat, Digests())), "a whole index is known to the byte"
