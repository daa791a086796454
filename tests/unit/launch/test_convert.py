"""`frontload convert`: finds checkpoint and tokenizer in the store, and says what is wrong."""

import json
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.store import FORMAT, digest_file
from frontload.megatron_ext.checkpoints.files import read_model, write_model
from frontload.megatron_ext.hf.megatron import StoredTensors
from tests.training_inputs import tiny_model
from tests.unit.megatron_ext.convert_inputs import write_checkpoint, write_tokenizer_file


def publish(folder: Path, inputs: dict[str, str]) -> Path:
    """Writes the folder's manifest, as a store does."""
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": digest_file(path),
            "size_bytes": path.stat().st_size,
        }
        for path in folder.rglob("*")
        if path.is_file()
    }
    key = folder.name.rpartition("-")[2]
    manifest = {"format": FORMAT, "key": key, "inputs": inputs, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A checkpoint, its start, its data and their tokenizer, as stages publish them."""
    root = tmp_path / "store"
    for name in ("sft/lmq-seed1-aaa", "pack/lmq-bbb", "tokenizer/word-ccc", "pretrain/base-ddd"):
        (root / name).mkdir(parents=True)
    write_checkpoint(root / "sft/lmq-seed1-aaa", tiny_model())
    write_tokenizer_file(root / "tokenizer/word-ccc/tokenizer.json")
    publish(root / "sft/lmq-seed1-aaa", {"start": "ddd", "pack": "bbb"})
    publish(root / "pretrain/base-ddd", {})
    publish(root / "pack/lmq-bbb", {"documents": "gone", "tokenizer": "ccc"})
    publish(root / "tokenizer/word-ccc", {})
    return root


@pytest.mark.parametrize("name", ["lmq", "sft/lmq-seed1", "aaa", "sft/lmq-seed1-aaa"])
def test_there_and_back_by_label_or_key(
    store: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hf, back = tmp_path / "hf", tmp_path / "back"
    assert cli.main(["convert", "to-hf", name, str(hf), "--store", str(store)]) == 0
    assert "nemotron_h" in capsys.readouterr().out
    used, made = (
        json.loads((folder / "tokenizer.json").read_text())
        for folder in (store / "tokenizer/word-ccc", hf)
    )
    for token in (*used["added_tokens"], *made["added_tokens"]):
        del token["special"]  # fewer of them, so that servers show the others
    assert made == used
    assert cli.main(["convert", "from-hf", str(hf), str(back), "--dtype", "bf16"]) == 0
    assert read_model(back) == tiny_model()
    original = StoredTensors(store / "sft/lmq-seed1-aaa/weights")
    assert StoredTensors(back / "weights").shapes == original.shapes


WRONG = {
    "unknown label": (["to-hf", "lmz", "OUT"], "lmq"),
    "a file": (["to-hf", "STORE/sft/lmq-seed1-aaa/model.json", "OUT"], "no such folder"),
    "not a checkpoint": (["to-hf", "STORE/pack/lmq-bbb", "OUT"], "no weights folder"),
    "out exists": (["to-hf", "lmq", "STORE"], "it exists"),
    "dtype": (["to-hf", "lmq", "OUT", "--dtype", "fp8"], "one of fp32, bf16"),
    "shard": (["to-hf", "lmq", "OUT", "--max-shard-bytes", "0"], "at least one byte"),
    "tokenizer": (["to-hf", "lmq", "OUT", "--tokenizer", "none.json"], "none.json"),
    "not a Hugging Face folder": (["from-hf", "STORE/sft", "OUT"], "no usable config.json"),
    "no folder": (["from-hf", "STORE/none", "OUT"], "no such folder"),
    "back out exists": (["from-hf", "STORE/sft", "STORE"], "it exists"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_a_message_and_nothing_is_written(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    words, expected = WRONG[case]
    out = tmp_path / "out"
    words = [word.replace("STORE", str(store)).replace("OUT", str(out)) for word in words]
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["convert", *words, "--store", str(store)]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count(";") >= 2
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_manifest_the_tokenizer_must_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alone").mkdir()
    write_checkpoint(tmp_path / "alone", tiny_model())
    write_tokenizer_file(tmp_path / "tokenizer.json")
    write_model(tmp_path / "alone", tiny_model())
    words = ["convert", "to-hf", str(tmp_path / "alone"), str(tmp_path / "hf")]
    assert cli.main(words) == 2
    assert "--tokenizer" in capsys.readouterr().err
    assert cli.main([*words, "--tokenizer", str(tmp_path / "tokenizer.json")]) == 0
    assert (tmp_path / "hf" / "chat_template.jinja").is_file()


@pytest.mark.parametrize(("trained", "told"), [(4096, False), (8192, True)])
def test_an_export_that_only_a_gpu_reads_right_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, trained: int, told: bool
) -> None:
    (tmp_path / "long").mkdir()
    write_checkpoint(tmp_path / "long", tiny_model(max_sequence_tokens=trained))
    file = write_tokenizer_file(tmp_path / "tokenizer.json")
    words = ["convert", "to-hf", str(tmp_path / "long"), str(tmp_path / "hf")]
    assert cli.main([*words, "--tokenizer", str(file)]) == 0
    assert ("wrong beyond 8 tokens" in capsys.readouterr().out) == told


def test_a_checkpoint_whose_bytes_changed_is_not_exported(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = next((store / "sft/lmq-seed1-aaa/weights").glob("*.distcp"))
    data.write_bytes(data.read_bytes()[:-1] + b"\x7f")
    out = tmp_path / "hf"
    assert cli.main(["convert", "to-hf", "lmq", str(out), "--store", str(store)]) == 2
    assert "are not those that were published" in capsys.readouterr().err
    assert not out.exists()


def test_a_label_that_two_checkpoints_have_is_not_guessed(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same cell of another recipe lies beside the first, under the same label."""
    other = store / "sft/lmq-seed1-eee"
    other.mkdir()
    write_checkpoint(other, tiny_model())
    publish(other, {"start": "ddd", "pack": "bbb"})
    out = tmp_path / "hf"
    assert cli.main(["convert", "to-hf", "sft/lmq-seed1", str(out), "--store", str(store)]) == 2
    assert "2 are called so: sft/lmq-seed1-aaa, sft/lmq-seed1-eee" in capsys.readouterr().err
    assert not out.exists()
    assert cli.main(["convert", "to-hf", "eee", str(out), "--store", str(store)]) == 0


def test_a_table_of_other_bytes_is_told(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store / "sft/lmq-seed1-aaa"
    (folder / "weights/.metadata").write_text("garbage\n")
    (folder / "manifest.json").unlink()  # whose digest would be told first
    publish(folder, {"start": "ddd", "pack": "bbb"})
    assert cli.main(["convert", "to-hf", str(folder), str(tmp_path / "hf"), "--store", str(store)])
    assert "a checkpoint has a readable .metadata" in capsys.readouterr().err
