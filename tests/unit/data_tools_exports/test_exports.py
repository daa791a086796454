"""What is exported is read by the peers' own readers as the pack or the blend has it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedReader, IndexedWriter
from frontload.data_tools.exports.megatron import deviations
from frontload.recipes.errors import RecipeError
from tests.unit.data_command import run_data_command
from tests.unit.data_tools_blending.small import S, given, write_recipe, write_sources
from tests.unit.data_tools_exports.peers import bridge_reader, megatron_blend

EOS = 1
ROWS = [[7, 12, 5], [24], [9, 9, 6]]  # lengths of the sequences of each row


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack of 24 + 1 tokens a row, as far as an export reads it."""
    folder = tmp_path / "pack"
    folder.mkdir()
    rng = np.random.default_rng(5)
    with (
        IndexedWriter(folder / "tokens", np.dtype(np.uint16)) as tokens,
        IndexedWriter(folder / "loss_mask", np.dtype(np.uint8)) as masks,
    ):
        for lengths in ROWS:
            ids = rng.integers(10, 60_000, sum(lengths)).astype(np.uint16)
            mask = rng.integers(0, 2, sum(lengths)).astype(np.uint8)
            mask[np.cumsum([0, *lengths[:-1]])] = 0
            tokens.add_document(ids, lengths)
            masks.add_document(mask, lengths)
    inputs = [{"name": "sft.jsonl", "sha256": "ab" * 32, "size_bytes": 10}]
    described = {"inputs": inputs, "conversations_packed": 7, "tokens": 72}
    (folder / "pack.json").write_text(json.dumps(described))
    return folder


def test_megatron_bridge_has_loss_on_the_tokens_that_the_pack_has_it_on(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "pack.idx.parquet"
    assert run_data_command("export", pack, "--out", out) == 0
    tokens, masks = IndexedReader(pack / "tokens"), IndexedReader(pack / "loss_mask")
    assert (
        f"3 rows, 7 sequences, 72 tokens, loss on {masks.tokens.sum()}" in capsys.readouterr().out
    )
    reader = bridge_reader(out, sequence_tokens=24, eos_id=EOS)
    assert len(reader) == 3
    for number, lengths in enumerate(ROWS):
        row = reader[number]
        reader.validate_row(number, row["input_ids"], row["loss_mask"], row["seq_boundaries"][:-1])
        assert np.array_equal(row["input_ids"], tokens.document(number))
        batch = reader.collate_fn([row])
        size = sum(lengths) - len(lengths)  # a sequence has a label less than tokens
        labels, trained = batch["labels"][0, :size], batch["loss_mask"][0, :size].bool()
        is_target = masks.document(number).astype(bool)
        assert labels[trained].tolist() == tokens.document(number)[is_target].tolist()
        assert batch["cu_seqlens_q"][0, : len(lengths) + 1].tolist() == [
            0,
            *np.cumsum([length - 1 for length in lengths]).tolist(),
        ]


def test_targets_that_begin_a_sequence_are_counted(
    tmp_path: Path, pack: Path, capsys: pytest.CaptureFixture
) -> None:
    data = np.memmap(pack / "loss_mask.bin", dtype=np.uint8, mode="r+")
    data[[0, 7]] = 1
    data.flush()
    run_data_command("export", pack, "--out", tmp_path / "p.parquet")
    assert "2 targets begin a sequence: no token stands before them" in capsys.readouterr().out


@pytest.fixture
def blend(tmp_path: Path) -> tuple[Path, list[str]]:
    """A planned blend of two phases, and its --index words."""
    prefixes = write_sources(tmp_path)
    words = given(prefixes)
    out = tmp_path / "blend"
    assert run_data_command("blend", write_recipe(tmp_path), *words, "--out", out) == 0
    return out, words


def test_megatron_core_reads_the_samples_of_each_source(
    blend: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, words = blend
    out = tmp_path / "args"
    assert run_data_command("export", folder, "--out", out, *words) == 0
    printed = capsys.readouterr().out
    for phase in ("a", "b"):
        plan = read_json(folder / phase / "plan.json")
        built = megatron_blend(
            out / phase,
            num_samples=plan["num_samples"],
            sequence_tokens=S,
            cache=tmp_path / "cache",
        )
        assert all(len(built[number]["tokens"]) == S for number in range(plan["num_samples"]))
        wanted = [source["num_samples"] for source in plan["sources"]]
        if len(wanted) > 1:
            read = np.bincount(built.dataset_index, minlength=len(wanted))
            assert np.abs(read - wanted).max() <= max(one.largest_gap for one in deviations(plan))
            assert len(built) == plan["num_samples"]
        words_of = (out / phase / "data_args.txt").read_text().split()
        assert [int(word) for word in words_of[::2]] == wanted
        for source in plan["sources"]:
            assert f"{phase} {source['name']}: {source['num_samples']} of" in printed
    assert "the blend goes on at token 400 of its stream" in printed
    assert "is Megatron-LM's own shuffle, not the blend's" in printed


@pytest.mark.parametrize("shares", [[30, 10], [1, 1, 1], [997, 2, 1], [5, 300, 40, 7]])
def test_the_stated_gap_is_that_of_megatrons_own_order(shares: list[int]) -> None:
    from megatron.core.datasets import helpers

    total = sum(shares)
    order, numbers = np.zeros(total, dtype=np.int16), np.zeros(total, dtype=np.int64)
    weights = np.array(shares) / total
    helpers.build_blending_indices(order, numbers, weights, len(shares), total, False)
    taken = np.cumsum(order[:, None] == np.arange(len(shares)), axis=0)
    gaps = np.abs(taken - weights * np.arange(1, total + 1)[:, None]).max(axis=0)
    sources = [
        {"name": str(at), "num_samples": share, "start_tokens": 0}
        for at, share in enumerate(shares)
    ]
    found = [one.largest_gap for one in deviations({"sources": sources})]
    assert found == pytest.approx(gaps.tolist(), abs=1e-6)


def test_a_card_states_every_file_with_its_licence(pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "README.md"
    words = ("card", pack, "--out", out, "--title", "Small", "--licence")
    assert run_data_command(*words, "sft=cc-by-4.0", "=odc-by") == 0
    text = out.read_text()
    assert text.startswith(
        '---\npretty_name: "Small"\nlicense: cc-by-4.0\nsize_categories: ["n<1K"]'
    )
    assert f"| sft.jsonl | - | 10 | {'ab' * 32} | cc-by-4.0 |" in text
    assert "- rows: 7\n- tokens: 72\n" in text
    from huggingface_hub import DatasetCard

    assert DatasetCard.load(out).data.license == "cc-by-4.0"
    out.unlink()
    with pytest.raises(RecipeError, match="sft.jsonl: 1 of 1 files without one; .*none is guessed"):
        run_data_command(*words, "other=mit")
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{pack}", "--out", "{tmp}/p.bin"], "a name without .parquet"),
        (["{pack}", "--out", "{pack}"], "something is there; an export replaces nothing"),
        (["{blend}", "--out", "{tmp}/o"], "no index of base, ldq, shq"),
        (["{blend}", "--out", "{tmp}/o", "--index", "x=y"], "no source 'x'"),
        (["{blend}", "--out", "{tmp}/o", "--index", "base"], "no NAME=PREFIX"),
        (["{tmp}/base", "--out", "{tmp}/o"], "an artifact of kind prefix; packs go to"),
        (
            ["{blend}/a", "--out", "{tmp}/o", "--index", "base=/x y/base"],
            "a space in the path; Megatron-LM cuts the file",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused(
    pack: Path, blend: tuple[Any, Any], tmp_path: Path, words: list[str], told: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    named = [word.format(pack=pack, blend=blend[0], tmp=tmp_path) for word in words]
    with pytest.raises(RecipeError, match=told):
        run_data_command("export", *named)
    assert sorted(tmp_path.rglob("*")) == before
