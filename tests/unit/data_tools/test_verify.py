"""The verifiers hold on what the stages write, and catch each way it can be changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedReader, IndexedWriter, bin_file
from frontload.data_tools.packing.rows import describe_file
from frontload.data_tools.proof.blend import union_tokens, verify_blend
from frontload.data_tools.proof.checks import Check
from frontload.data_tools.proof.pack import verify_pack
from frontload.data_tools.proof.prefix import prove_index_folder
from frontload.data_tools.shown.explain import SourceFolders, explain_sample
from frontload.recipes.artifact import index_prefix, write_json
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.schema import Blend, Pack, Window
from tests.unit.data_command import run_data_command
from tests.unit.data_tools.room import Room

S = 64


@pytest.fixture(scope="module")
def phases(built_room: Room) -> tuple[Path, Path]:
    """Phase a: 60 samples of base. Phase b: 80 more of base, 180 of ldq (two epochs and a bit)."""
    folders: list[Path] = []
    for phase, windows in (
        ("a", (("base", 0, 60),)),
        ("b", (("base", 60, 80), ("ldq", 0, 180))),
    ):
        recipe = Blend(
            phase=phase,
            windows=tuple(
                Window(source=name, start_tokens=S * start, tokens=S * samples)
                for name, start, samples in windows
            ),
            sequence_tokens=S,
            max_epochs={"base": 1.0, "ldq": 3.0},
            seed=1,
        )
        inputs = {name: built_room.folder / f"index-{name}" for name, _, _ in windows}
        if folders:
            inputs["before"] = folders[0]
        folders.append(built_room.run("blend", recipe, name=f"verify-{phase}", **inputs))
    return folders[0], folders[1]


@pytest.fixture(scope="module")
def pack(built_room: Room) -> Path:
    recipe = Pack(sequence_tokens=S, tokens=S * 300, over_long="drop", seed=4)
    inputs = {
        "documents": built_room.folder / "mix-lmq",
        "tokenizer": built_room.folder / "tokenizer",
    }
    return built_room.run("pack", recipe, name="verify-pack", **inputs)


def indexes(room: Room) -> dict[str, Path]:
    return {name: room.folder / f"index-{name}" for name in ("base", "ldq")}


def wrong(checks: list[Check]) -> list[str]:
    return [check.claim for check in checks if not check.holds]


def test_every_statement_holds_on_what_the_stages_wrote(
    built_room: Room, phases: tuple[Path, Path], pack: Path
) -> None:
    first, second = phases
    assert wrong(prove_index_folder(built_room.folder / "index-lmq")) == []
    assert wrong(verify_blend(first, indexes(built_room), others=[second])) == []
    checks = verify_blend(second, indexes(built_room), others=[first])
    assert wrong(checks) == []
    assert "base: disjoint from phase a" in [check.claim for check in checks]
    assert wrong(verify_pack(pack)) == []


def swap_two_documents(folder: Path) -> None:
    order = np.load(folder / "base.order.npy")
    order[[3, 4]] = order[[4, 3]]
    np.save(folder / "base.order.npy", order)


def repeat_a_document(folder: Path) -> None:
    order = np.load(folder / "ldq.order.npy")
    order[5] = order[4]
    np.save(folder / "ldq.order.npy", order)


def name_an_unknown_document(folder: Path) -> None:
    order = np.load(folder / "ldq.order.npy")
    order[5] = 300
    np.save(folder / "ldq.order.npy", order)


def shift_a_sample(folder: Path) -> None:
    samples = np.load(folder / "samples.npy")
    samples[7, 1] += 1
    np.save(folder / "samples.npy", samples)


def drop_a_sample(folder: Path) -> None:
    np.save(folder / "samples.npy", np.load(folder / "samples.npy")[:-1])


def edit_plan(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def edited(folder: Path) -> None:
        plan = json.loads((folder / "plan.json").read_text())
        change(plan)
        (folder / "plan.json").write_text(json.dumps(plan))

    return edited


@pytest.mark.parametrize(
    ("damage", "caught"),
    [
        (swap_two_documents, "base: epoch 0 is the seeded shuffle"),
        (repeat_a_document, "ldq: epoch 0 is the seeded shuffle, no document twice"),
        (name_an_unknown_document, "ldq: document ids exist"),
        (shift_a_sample, "samples tile the window in order"),
        (drop_a_sample, "samples"),
        (
            edit_plan(lambda plan: plan["ledger"]["ldq"].update(unique_tokens=1)),
            "ldq: distinct tokens",
        ),
        (
            edit_plan(lambda plan: plan["ledger"]["ldq"]["tokens_by_epoch"].update({"0": 1})),
            "ldq: tokens by epoch",
        ),
        (
            edit_plan(lambda plan: plan["ledger"]["ldq"].update(repeated_tokens=0)),
            "ldq: tokens behind the first pass",
        ),
        (
            edit_plan(lambda plan: plan["ledger"]["base"].update(share="1/2")),
            "base: share",
        ),
        (edit_plan(lambda plan: plan.update(seed=2)), "base: epoch 0 is the seeded shuffle"),
        (
            edit_plan(lambda plan: plan["sources"][0].update(start_tokens=59 * S)),
            "base: disjoint from phase a",
        ),
    ],
)
def test_a_changed_blend_is_caught(
    built_room: Room,
    phases: tuple[Path, Path],
    tmp_path: Path,
    damage: Callable[[Path], None],
    caught: str,
) -> None:
    folder = tmp_path / "blend"
    shutil.copytree(phases[1], folder)
    damage(folder)
    claims = wrong(verify_blend(folder, indexes(built_room), others=[phases[0]]))
    assert any(caught in claim for claim in claims), claims


def test_a_blend_with_another_index_is_caught(built_room: Room, phases: tuple[Path, Path]) -> None:
    swapped = {"base": built_room.folder / "index-lmq", "ldq": built_room.folder / "index-ldq"}
    assert "base: tokens of one epoch" in wrong(verify_blend(phases[1], swapped))
    with pytest.raises(ArtifactError, match="no index of source ldq"):
        verify_blend(phases[1], {"base": built_room.folder / "index-base"})


def test_a_torn_array_is_refused(
    built_room: Room, phases: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "blend"
    shutil.copytree(phases[1], folder)
    data = (folder / "samples.npy").read_bytes()
    (folder / "samples.npy").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="samples.npy: no readable array"):
        verify_blend(folder, indexes(built_room))
    np.save(folder / "samples.npy", np.zeros((2, 2), dtype=np.int32))
    with pytest.raises(ArtifactError, match="samples.npy: dtype int32; the file holds int64"):
        verify_blend(folder, indexes(built_room))


def test_a_document_without_its_end_is_caught(built_room: Room, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    shutil.copytree(built_room.folder / "index-base", folder)
    data = bytearray(bin_file(index_prefix(folder)).read_bytes())
    data[-2:] = b"\x07\x00"
    bin_file(index_prefix(folder)).write_bytes(bytes(data))
    assert wrong(prove_index_folder(folder)) == ["documents end in EOD, id 1"]
    data[-2:] = b"\xff\x7f"
    bin_file(index_prefix(folder)).write_bytes(bytes(data))
    assert any("token ids are 0 to" in claim for claim in wrong(prove_index_folder(folder)))


def rewrite_mask(folder: Path, change: Callable[[np.ndarray], None]) -> None:
    reader = IndexedReader(folder / "loss_mask")
    rows = [reader.document(n).copy() for n in range(reader.num_documents)]
    bounds = [reader.document_indices[n : n + 2] for n in range(reader.num_documents)]
    lengths = [reader.sequence_lengths[first:last].tolist() for first, last in bounds]
    change(rows[0])
    with IndexedWriter(folder / "loss_mask", np.dtype(np.uint8)) as writer:
        for row, parts in zip(rows, lengths, strict=True):
            writer.add_document(row, parts)


def sign(folder: Path) -> None:
    """States the digests of the files as they are, as if they had been written so."""
    pack = read_json(folder / "pack.json")
    pack["files"] = {name: describe_file(folder / name) for name in pack["files"]}
    write_json(folder / "pack.json", pack)


def test_a_changed_pack_is_caught(pack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(pack, folder)

    def unmask_a_question(mask: np.ndarray) -> None:
        mask[1] = 1

    rewrite_mask(folder, unmask_a_question)
    assert wrong(verify_pack(folder)) == ["loss_mask loss_mask.bin has the sha256 of its manifest"]
    sign(folder)
    assert wrong(verify_pack(folder)) == [
        "loss tokens",
        "targets begin behind the prompt",
        "targets end with the end of a turn",
    ]
    shutil.copytree(pack, folder, dirs_exist_ok=True)
    order = np.load(folder / "order.npy")
    order[1] = order[0]
    np.save(folder / "order.npy", order)
    sign(folder)
    assert wrong(verify_pack(folder)) == ["no row twice in an epoch", "order is the seeded one"]


def test_union_counts_each_token_once() -> None:
    begins, ends = np.array([5, 0, 2, 20, 21]), np.array([9, 3, 6, 30, 22])
    assert union_tokens(begins, ends) == 9 + 10
    assert union_tokens(begins[:0], ends[:0]) == 0


def sources(room: Room) -> SourceFolders:
    return SourceFolders(
        index=indexes(room),
        documents={name: room.folder / f"mix-{name}" for name in ("base", "ldq")},
        tokenizer=room.folder / "tokenizer",
    )


def test_a_sample_is_traced_to_rows_and_text(built_room: Room, phases: tuple[Path, Path]) -> None:
    """Every sample: its parts add up to S, follow each other, and are the rows' own words."""
    rows = {
        name: [
            json.loads(line)
            for line in (built_room.folder / f"mix-{name}" / "documents.jsonl").open()
        ]
        for name in ("base", "ldq")
    }
    epochs = set()
    for number in range(0, 260, 3):
        origin = explain_sample(phases[1], sources(built_room), number=number)
        assert sum(part.tokens for part in origin.documents) == S
        assert all(part.offset == 0 for part in origin.documents[1:])
        for part in origin.documents:
            row = rows[origin.source][part.row]
            assert row["id"] == part.id
            text = row.get("text") or (
                f"<|user|> {row['question']} <|assistant|> {row['trace']} <|answer|>"
                f" {row['answer']}"
            )
            words = f"{text} <|end|>".split()
            assert part.text.split() == words[part.offset : part.offset + part.tokens]
            epochs.add((origin.source, part.epoch))
    assert epochs == {("base", 0), ("ldq", 0), ("ldq", 1), ("ldq", 2)}


def test_a_sample_is_printed_with_its_documents(
    built_room: Room, phases: tuple[Path, Path]
) -> None:
    text = explain_sample(phases[0], sources(built_room), number=1).to_text()
    assert text.startswith("sample 1 of phase a: source base, stream token 64\n  base-")


def test_a_sample_that_does_not_exist_is_refused(
    built_room: Room, phases: tuple[Path, Path]
) -> None:
    with pytest.raises(RecipeError, match="60 samples; .*; ask for 0 to 59"):
        explain_sample(phases[0], sources(built_room), number=60)


def test_a_blend_of_an_index_with_empty_documents_holds(tmp_path: Path) -> None:
    """An empty document at the end of an epoch begins where the next epoch does."""
    with IndexedWriter(tmp_path / "a", np.dtype(np.uint16)) as writer:
        for number in range(20):
            writer.add_document(np.arange(3 + number % 5) + 6)
            writer.add_document(np.zeros(0, dtype=np.uint16))
    (tmp_path / "b.yaml").write_text(
        "seed: 7\nsequence_tokens: 16\nglobal_batch_sequences: 2\nmixes: {}\n"
        "sources:\n  a: {reading: repeatable, max_epochs: 40, declared_tokens: 0,"
        " declared_samples: 0}\n"
        "phases:\n  first: {tokens: 960, shares: {a: 1}}\n  second: {tokens: 800, shares: {a: 1}}\n"
    )
    prefix, made = tmp_path / "a", tmp_path / "B"
    run_data_command("blend", tmp_path / "b.yaml", "--index", f"a={prefix}", "--out", made)
    assert run_data_command("verify", made, prefix) == 0
    folder = made / "second"
    order = np.load(folder / "a.order.npy")
    order[1], order[2] = order[2], order[1]
    np.save(folder / "a.order.npy", order)
    assert run_data_command("verify", made, prefix) == 1
