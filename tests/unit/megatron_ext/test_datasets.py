"""Samples of the blend and pack artifacts, compared with a plain reading of the whole stream."""

from pathlib import Path

import numpy as np
import pytest

from frontload.megatron_ext.training.datasets import (
    BlendSamples,
    PackSamples,
    TokenIndex,
    share_of_rank,
)
from frontload.recipes.errors import ArtifactError
from tests.training_inputs import (
    BATCH,
    SEQUENCE,
    write_blend,
    write_index,
    write_pack,
    write_step_pack,
)


def test_blend_samples_are_slices_of_the_stream(tmp_path: Path) -> None:
    inputs = write_blend(tmp_path, 12)
    samples = BlendSamples(inputs["blend"], inputs)
    table = np.load(inputs["blend"] / "samples.npy")
    rows = samples.read(range(12))
    for sample in range(12):
        name = ("base", "ldq")[table[sample, 0]]
        index = TokenIndex(inputs[name] / "documents")
        order = np.load(inputs["blend"] / f"{name}.order.npy")
        stream = np.concatenate([index.sequence(int(at)) for at in order])
        starts = np.concatenate([[1], (stream[:-1] == 1).astype(int)])  # 1 ends a document
        at = int(table[sample, 1])
        assert np.array_equal(rows.tokens_BS[sample], stream[at : at + SEQUENCE])
        assert np.array_equal(rows.labels_BS[sample], stream[at + 1 : at + SEQUENCE + 1])
        expected = np.cumsum(starts)[at : at + SEQUENCE]
        assert np.array_equal(rows.document_ids_BS[sample], expected - expected[0])
    assert rows.loss_mask_BS.all()


def test_pack_rows_are_whole_conversations_with_masked_padding(tmp_path: Path) -> None:
    samples = PackSamples(write_pack(tmp_path, 6), SEQUENCE)
    order = np.load(tmp_path / "order.npy")
    tokens, mask = TokenIndex(tmp_path / "tokens"), TokenIndex(tmp_path / "loss_mask")
    rows = samples.read(range(6))
    for sample in range(6):
        numbers = range(tokens.documents[order[sample]], tokens.documents[order[sample] + 1])
        text = np.concatenate([tokens.sequence(number) for number in numbers])
        weights = np.concatenate([mask.sequence(number) for number in numbers])
        padding = SEQUENCE + 1 - len(text)
        padded = np.append(text, np.zeros(padding))
        assert np.array_equal(rows.tokens_BS[sample], padded[:-1])
        assert np.array_equal(rows.labels_BS[sample], padded[1:])
        assert np.array_equal(rows.loss_mask_BS[sample], np.append(weights, np.zeros(padding))[1:])
        lengths = [len(tokens.sequence(number)) for number in numbers]
        ids = np.repeat([0, 1, 2], [*lengths, padding])[:-1]
        assert np.array_equal(rows.document_ids_BS[sample], ids)


@pytest.mark.parametrize("unit", ["read", "loss"])
def test_a_budget_in_real_tokens_is_read_to_the_token(tmp_path: Path, unit: str) -> None:
    """Rows of a step first, then padding; the last row ends inside a conversation."""
    budget, steps = 77, 3
    samples = PackSamples(
        write_step_pack(tmp_path, tokens=budget, steps=steps, unit=unit), SEQUENCE
    )
    order, starts = np.load(tmp_path / "order.npy"), np.load(tmp_path / "steps.npy")
    rows = samples.read(range(samples.num_samples))
    whole = PackSamples(write_pack(tmp_path / "plain", steps * BATCH), SEQUENCE)
    np.save(tmp_path / "plain" / "order.npy", np.arange(steps * BATCH))
    every = PackSamples(tmp_path / "plain", SEQUENCE).read(range(whole.num_samples))
    read = loss = 0
    for sample in range(steps * BATCH):
        step, row = divmod(sample, BATCH)
        place = starts[step] + row
        if place >= starts[step + 1]:
            assert not rows.loss_mask_BS[sample].any()
            assert not rows.tokens_BS[sample].any()
            assert sample not in samples.with_text(range(step * BATCH, (step + 1) * BATCH))
            assert samples.describe(sample) == "a row of padding"
            continue
        assert sample in samples.with_text(range(step * BATCH, (step + 1) * BATCH))
        text = int((rows.tokens_BS[sample] > 0).sum())
        assert np.array_equal(rows.tokens_BS[sample, :text], every.tokens_BS[order[place], :text])
        is_last = place == len(order) - 1
        assert is_last or text == (every.tokens_BS[order[place]] > 0).sum()
        read, loss = read + text, loss + int(rows.loss_mask_BS[sample].sum())
        if is_last:
            assert not rows.loss_mask_BS[sample, text:].any()
            assert len(set(rows.document_ids_BS[sample, text:])) == 1
    assert {"read": read, "loss": loss}[unit] == budget


def test_ranks_and_micro_batches_cover_a_batch_once() -> None:
    for ranks, micro in ((1, 8), (2, 2), (4, 1)):
        found = [
            sample
            for rank in range(ranks)
            for share in share_of_rank(
                16, per_rank=8 // ranks, micro_sequences=micro, data_rank=rank
            )
            for sample in share
        ]
        assert found == list(range(16, 24))


def test_description_names_source_and_documents(tmp_path: Path) -> None:
    inputs = write_blend(tmp_path, 12)
    text = BlendSamples(inputs["blend"], inputs).describe(3)
    assert text.startswith("sample 3 (ldq, documents ")


def torn_bin(prefix: Path) -> None:
    path = prefix.with_suffix(".bin")
    path.write_bytes(path.read_bytes()[:-2])


def torn_idx(prefix: Path) -> None:
    path = prefix.with_suffix(".idx")
    path.write_bytes(path.read_bytes()[:-8])


def other_dtype(prefix: Path) -> None:
    path = prefix.with_suffix(".idx")
    raw = bytearray(path.read_bytes())
    raw[17] = 4  # int32, where the data are uint16
    path.write_bytes(bytes(raw))


def no_idx(prefix: Path) -> None:
    prefix.with_suffix(".idx").unlink()


def another_file(prefix: Path) -> None:
    prefix.with_suffix(".idx").write_bytes(b"PK\x03\x04" + bytes(60))


@pytest.mark.parametrize("damage", [torn_bin, torn_idx, other_dtype, no_idx, another_file])
def test_damaged_index_is_refused(tmp_path: Path, damage: object) -> None:
    write_index(tmp_path / "documents", [np.arange(5), np.arange(9)], [0, 1, 2], "uint16")
    assert callable(damage)
    damage(tmp_path / "documents")
    with pytest.raises(ArtifactError, match="delete the artifact"):
        TokenIndex(tmp_path / "documents")


def test_source_without_input_is_refused(tmp_path: Path) -> None:
    inputs = write_blend(tmp_path, 12)
    del inputs["ldq"]
    with pytest.raises(ArtifactError, match="ldq"):
        BlendSamples(inputs["blend"], inputs)


def test_torn_order_is_refused(tmp_path: Path) -> None:
    inputs = write_blend(tmp_path, 12)
    path = inputs["blend"] / "base.order.npy"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtifactError, match=r"whole \.npy"):
        BlendSamples(inputs["blend"], inputs)


def test_missing_plan_is_refused(tmp_path: Path) -> None:
    inputs = write_blend(tmp_path, 12)
    (inputs["blend"] / "plan.json").unlink()
    with pytest.raises(ArtifactError, match=r"plan\.json"):
        BlendSamples(inputs["blend"], inputs)
