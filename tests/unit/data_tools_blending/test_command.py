"""`frontload data blend`, typed as a user types it: what it writes, prints and refuses."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.blending import phases
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.disk.publish import workplace
from frontload.launch import cli
from frontload.recipes.artifact import write_json
from tests.unit.data_tools_blending.small import (
    RECIPE,
    given,
    phase_inputs,
    write_recipe,
    write_source,
    write_sources,
)


def blend(*words: object) -> int:
    return cli.main(["data", "blend", *map(str, words)])


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_plan_needs_no_file_and_writes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert blend("paper_80_20_lmq", "--plan-only") == 0
    printed = capsys.readouterr()
    assert "39_062_758" in printed.out
    assert "sizes of base, ldq, shq are declared, not counted" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert blend("paper_80_20_ldq", "--plan-only", "--json") == 0
    ledger = json.loads(capsys.readouterr().out)
    assert ledger["num_samples"] == (99_514 + 66_343) * 736
    (base, ldq) = ledger["phases"][1]["sources"]
    assert (base["num_samples"], ldq["num_samples"]) == (39_062_758, 9_765_690)
    assert ldq["epochs"] == str(Fraction(9_765_690 * 8192, 336_000_000_000))
    assert (base["target_tokens"], ldq["target_tokens"]) == (320 * 10**9, 80 * 10**9)
    assert ledger["phases"][1]["first_sample"] == 99_514 * 736


def test_overrides_may_stand_before_or_behind_the_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = []
    override = "phases.second.tokens=100_000_000_000"
    for words in ((override, "--plan-only"), ("--plan-only", override)):
        assert blend("paper_80_20_ldq", *words) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "20_000_000_000" in shown[0]


def test_phases_read_every_token_of_a_stream_once_and_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """base: phase a's and b's inputs, one behind the other, are the head of its stream."""
    prefixes = write_sources(tmp_path)
    out = tmp_path / "out"
    assert blend(write_recipe(tmp_path), *given(prefixes), "--out", out) == 0
    assert f"wrote {out / 'a'}, {out / 'b'}" in capsys.readouterr().err
    ledger = json.loads((out / "ledger.json").read_text())
    read = []
    for phase in ledger["phases"]:
        samples = np.load(out / phase["name"] / "samples.npy")
        inputs = phase_inputs(out / phase["name"], prefixes)
        assert len(inputs) == phase["num_samples"] == len(samples)
        read += [one[:-1] for one, row in zip(inputs, samples, strict=True) if row[0] == 0]
        for number, source in enumerate(phase["sources"]):
            assert source["num_samples"] == int((samples[:, 0] == number).sum())
    reader = IndexedReader(prefixes["base"])
    order = [np.load(out / phase / "base.order.npy") for phase in "ab"]
    shared = int(order[0][-1] == order[1][0])  # the document that phase a ends in
    documents = np.concatenate([order[0], order[1][shared:]])
    stream = np.concatenate([reader.document(int(one)) for one in documents])
    assert len(set(documents.tolist())) == len(documents)
    assert [token for one in read for token in one] == stream[: len(read) * 16].tolist()


def test_the_same_command_gives_the_same_bytes_and_then_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefixes, recipe = write_sources(tmp_path), write_recipe(tmp_path)
    for name in ("one", "two"):
        assert blend(recipe, *given(prefixes), "--out", tmp_path / name) == 0
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "one").rglob("*")}
    assert blend(recipe, *given(prefixes), "--out", tmp_path / "one") == 0
    assert "this very blend: nothing done" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "one").rglob("*")}


def test_verify_proves_every_phase(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefixes, out = write_sources(tmp_path), tmp_path / "out"
    assert blend(write_recipe(tmp_path), *given(prefixes), "--out", out) == 0
    words = ["data", "verify", *map(str, (out / "a", out / "b", *prefixes.values()))]
    assert cli.main(words) == 0, capsys.readouterr().out
    raw = bytearray((out / "b" / "samples.npy").read_bytes())
    raw[-8] ^= 1
    (out / "b" / "samples.npy").write_bytes(raw)
    assert cli.main(words) == 1


def test_an_index_folder_and_file_names_will_do(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    prefixes = write_sources(tmp_path)
    (tmp_path / "index").mkdir()
    write_source(tmp_path / "index" / "documents", 40)
    named = [f"base={tmp_path / 'index'}", f"ldq={prefixes['ldq']}.idx", f"shq={prefixes['shq']}"]
    assert blend(recipe, "--index", *named, "--out", tmp_path / "one") == 0
    assert blend(recipe, *given(prefixes), "--out", tmp_path / "two") == 0
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two")


# ---------------------------------------------------------------- refusals: exit 2, nothing written


def refused(capsys: pytest.CaptureFixture[str], folder: Path, told: str, *words: object) -> None:
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert blend(*words) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.startswith("frontload: ")
    assert message.count(";") >= 2, "four parts"
    assert sorted(folder.rglob("*")) == before, "nothing written"


def test_wrong_commands_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefixes, recipe, out = write_sources(tmp_path), write_recipe(tmp_path), tmp_path / "out"
    index = given(prefixes)
    for told, words in (
        ("neither --out nor --plan-only", (recipe,)),
        ("--out with --plan-only", (recipe, "--out", out, "--plan-only")),
        ("no index of shq", (recipe, *index[:3], "--out", out)),
        ("no NAME=PREFIX", (recipe, "--index", "base", "--out", out)),
        ("no source 'bse'", (recipe, "--index", "bse=x", "--out", out)),
        ("write e.g. --index base=PREFIX", (recipe, "--index", "base=", "--out", out)),
        ("write overrides before --index", (recipe, *index, "seed=4", "--out", out)),
        ("write overrides before --index", (recipe, *index, "phases.a.tokens=4", "--out", out)),
        ("base has an index already", (recipe, *index, "base=x", "--out", out)),
        (
            "the index of base; two names",
            (recipe, *index[:-1], "shq=" + index[1].split("=")[1], "--out", out),
        ),
        ("no such file", (recipe, *index[:-1], f"shq={tmp_path / 'none'}", "--out", out)),
        ("no folder", (recipe, *index, "--out", tmp_path / "no" / "out")),
        ("something else is there", (recipe, *index, "--out", tmp_path)),
        ("cannot be read", (tmp_path / "none.yaml", *index, "--out", out)),
        ("is not a key", (recipe, *index, "--out", out, "sed=4")),
        ("--ouf", (recipe, *index, "--ouf", out)),
    ):
        refused(capsys, tmp_path, told, *words)


def test_an_index_that_does_not_go_with_the_others_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefixes, recipe, out = write_sources(tmp_path), write_recipe(tmp_path), tmp_path / "out"
    write_source(tmp_path / "wide", 5, dtype=np.int32)
    write_source(tmp_path / "mask", 5, dtype=np.uint8)
    for name, told in (("wide", "int32; base uint16"), ("mask", "an index of uint8")):
        words = given(prefixes | {"shq": tmp_path / name})
        refused(capsys, tmp_path, told, recipe, *words, "--out", out)
    for name, digest in (("base", "0" * 64), ("ldq", "1" * 64)):
        write_json(tmp_path / f"{name}.manifest.json", {"tokenizer_sha256": digest})
    told = "names tokenizer 111111111111; that of base 000000000000"
    refused(capsys, tmp_path, told, recipe, *given(prefixes), "--out", out)


def test_a_budget_beyond_the_indexes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Declared sizes would do; what counts is the index."""
    recipe, prefixes = write_recipe(tmp_path), write_sources(tmp_path)
    words = ("--out", tmp_path / "out", "phases.a.tokens=3_000")
    refused(capsys, tmp_path, "end at epoch", recipe, *given(prefixes), *words)
    assert blend(recipe, "--plan-only", "phases.a.tokens=3_000") == 0
    (tmp_path / "empty.bin").write_bytes(b"")
    write_source(tmp_path / "empty", 0)
    empty = given(prefixes | {"shq": tmp_path / "empty"})
    refused(capsys, tmp_path, "an index without tokens", recipe, *empty, "--out", tmp_path / "out")


def test_a_blend_that_lost_a_file_is_not_called_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, prefixes = write_recipe(tmp_path), write_sources(tmp_path)
    words = (recipe, *given(prefixes), "--out", tmp_path / "out")
    assert blend(*words) == 0
    (tmp_path / "out" / "b" / "samples.npy").unlink()
    refused(capsys, tmp_path, "samples.npy, made before: there is no such file", *words)


def test_another_blend_at_the_same_place_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, prefixes = write_recipe(tmp_path), write_sources(tmp_path)
    assert blend(recipe, *given(prefixes), "--out", tmp_path / "out") == 0
    words = (recipe, *given(prefixes), "--out", tmp_path / "out", "seed=4")
    refused(capsys, tmp_path, "something else is there", *words)


def test_a_second_writer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, prefixes = write_recipe(tmp_path), write_sources(tmp_path)
    words = (recipe, *given(prefixes), "--out", tmp_path / "out")
    with workplace(tmp_path / "out", asked="--out"):
        refused(capsys, tmp_path, "another run is writing it (process", *words)
    assert blend(*words) == 0


# ---------------------------------------------------------------- kills


def test_a_killed_run_leaves_nothing_and_the_next_one_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL while documents are listed and while samples are written, a million of them."""
    write_source(tmp_path / "base", 60_000)
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.replace("sequence_tokens: 16", "sequence_tokens: 2")
    text = text[: text.index("phases:")] + "phases:\n  a: {tokens: 2_000_000, shares: {base: 1}}\n"
    recipe.write_text(text)
    words = ["data", "blend", str(recipe), "--index", f"base={tmp_path / 'base'}", "--out"]
    assert cli.main([*words, str(tmp_path / "whole")]) == 0
    program = "import sys; from frontload.launch.cli import main; sys.exit(main(sys.argv[1:]))"
    out = tmp_path / "out"
    for grown in ("base.order.npy", "samples.npy"):
        process = subprocess.Popen([sys.executable, "-c", program, *words, str(out)])
        partial = tmp_path / "out.work" / "blend" / "a"
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if any(path.name.startswith(grown) for path in partial.glob("*")):
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists()
        assert partial.is_dir()
    assert cli.main([*words, str(out)]) == 0
    assert files_below(out) == files_below(tmp_path / "whole")
    assert not (tmp_path / "out.work").exists()


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, prefixes = write_recipe(tmp_path), write_sources(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "samples.npy")

    with monkeypatch.context() as patch:
        patch.setattr(phases, "interleave", fail)
        assert blend(recipe, *given(prefixes), "--out", tmp_path / "out") == 1
    assert "free space and run the same command again" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert blend(recipe, *given(prefixes), "--out", tmp_path / "out") == 0


def test_hundreds_of_sources_need_no_hundreds_of_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blended, proven and read with 100 files open: 300 sources by what they are worth, exactly."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a power cut is tested elsewhere
    names = [f"s{number}" for number in range(300)]
    prefixes = {name: write_source(tmp_path / name, 2 + n) for n, name in enumerate(names)}
    source = "{reading: repeatable, max_epochs: 3, declared_tokens: 0, declared_samples: 0}"
    text = "seed: 3\nsequence_tokens: 16\nglobal_batch_sequences: 1\nsources:\n"
    text += "".join(f"  {name}: {source}\n" for name in names)
    text += f"mixes:\n  all: {{members: [{', '.join(names)}], weighting: token}}\n"
    text += "phases:\n  a: {tokens: 1_000_000, shares: {all: 1}}\n"
    recipe, out = write_recipe(tmp_path, text), tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        assert blend(recipe, *given(prefixes), "--out", out) == 0
        assert cli.main(["data", "verify", *map(str, (out, *prefixes.values()))]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "all statements hold" in capsys.readouterr().out
    sizes = np.array([IndexedReader(prefix).num_tokens for prefix in prefixes.values()])
    samples = np.load(out / "a" / "samples.npy")[:, 0]
    read = np.bincount(samples, minlength=300)
    assert read.sum() == 62_500
    assert np.all(np.abs(read - 62_500 * sizes / sizes.sum()) < 1)
    plan = json.loads((out / "a" / "plan.json").read_text())
    assert [one["name"] for one in plan["sources"]] == names
