"""Kinds of machine: what is recorded of a stage, and what is told of a store that mixes them."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.origins.machine_kind import (
    UNKNOWN,
    MachineKind,
    _cpu_model,
    kinds_of,
    machine_kind,
    machine_lines,
    read_machine,
)
from frontload.launch.store import Store
from frontload.recipes.study.expand import Study, load_study

HERE = MachineKind(
    cpu="Xeon (6/143/8)",
    instructions="AVX512",
    torch="2.13.0",
    numpy="2.5.2",
    blas="scipy-openblas 0.3.34",
)
OTHER = replace(HERE, cpu="EPYC (25/1/1)", instructions="AVX2")


def build(store: Store, study: Study, kinds: dict[str, MachineKind | None]) -> None:
    """Folders of the study's stages as if made; kind of stage -> machine, None = an old record."""
    for stage in study.stages:
        if stage.kind in kinds:
            kind = kinds[stage.kind]
            (store.root / stage.folder).mkdir(parents=True)
            record = store.root / "provenance" / f"{stage.folder}.json"
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"host": "x"} if kind is None else told(kind)))


def told(kind: MachineKind) -> dict[str, object]:
    return {"work": 1.0, "cpu_seconds": 1.0, "made_on": asdict(kind)}


@pytest.fixture
def study() -> Study:
    return load_study("smoke")


def test_a_process_without_torch_does_not_load_it_for_the_record() -> None:
    code = (
        "import sys; from frontload.launch.origins.machine_kind import machine_kind as kind\n"
        "before = kind(); assert 'torch' not in sys.modules\n"
        "import torch; print([before.instructions, before.torch, kind().instructions])"
    )
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=here)
    import torch

    chosen = torch.backends.cpu.get_cpu_capability()
    assert done.stdout.strip() == str(["", version("torch"), chosen])


def test_this_machine_is_told_by_what_its_libraries_say_themselves() -> None:
    import numpy
    import torch

    found = machine_kind()
    assert found.instructions == torch.backends.cpu.get_cpu_capability()
    assert torch.__version__.startswith(found.torch)
    assert (found.torch[:2], found.numpy) == ("2.", numpy.__version__)
    blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index]
    assert found.blas == f"{blas['name']} {blas['version']}"
    assert found.cpu


@pytest.mark.parametrize(
    ("lines", "model"),
    [
        (
            "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n"
            "model name\t: Intel(R)  Xeon(R) Processor\nstepping\t: 8\n\nprocessor\t: 1\n"
            "model\t\t: 9\n",
            "Intel(R) Xeon(R) Processor (6/143/8)",
        ),
        (
            "processor\t: 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x1\nCPU part\t: 0xd40\n"
            "CPU revision\t: 1\n",
            "aarch64 (0x41/0xd40/0x1/1)",
        ),
    ],
)
def test_a_cpu_is_named_with_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, model: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    (tmp_path / "cpuinfo").write_text(lines)
    assert _cpu_model(tmp_path / "cpuinfo") == model
    assert _cpu_model(tmp_path / "none"), "elsewhere, what Python knows"


def test_one_kind_is_one_line_and_stages_without_torch_are_of_it(
    tmp_path: Path, study: Study
) -> None:
    store = Store(tmp_path)
    build(store, study, {"synthesize": replace(HERE, instructions=""), "pretrain": HERE})
    assert machine_lines(store, study.stages) == [f"made on {HERE}"]
    assert machine_lines(Store(tmp_path / "empty"), study.stages) == []


def test_a_mix_is_counted_by_kind_and_the_fewer_stages_are_named(
    tmp_path: Path, study: Study
) -> None:
    store = Store(tmp_path)
    build(store, study, {"pretrain": HERE, "sft": OTHER, "synthesize": None})
    counts = {kind: len(made) for kind, made in kinds_of(store, study.stages).items()}
    num = {kind: sum(stage.kind == kind for stage in study.stages) for kind in ("pretrain", "sft")}
    assert counts == {HERE: num["pretrain"], OTHER: num["sft"], UNKNOWN: 1}
    text = "\n".join(machine_lines(store, study.stages))
    assert text.startswith("made on 3 kinds of machine: a key promises the same bytes on one kind")
    assert f"  {num['sft']} on EPYC (25/1/1), AVX2, torch 2.13.0, numpy 2.5.2" in text
    assert "  1 on unknown kind: 1 synthesize" in text
    (corpus,) = (stage.folder for stage in study.stages if stage.kind == "synthesize")
    assert f"      {corpus}" in text


@pytest.mark.parametrize("field", ["cpu", "instructions", "torch", "blas", "numpy"])
def test_each_part_of_a_kind_tells_two_apart(tmp_path: Path, study: Study, field: str) -> None:
    build(Store(tmp_path), study, {"pretrain": HERE, "sft": replace(HERE, **{field: "another"})})
    assert len(kinds_of(Store(tmp_path), study.stages)) == 2


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"made_on": 3}', '{"made_on": {"cpu": "x"}}'])
def test_a_record_without_the_kind_is_of_an_unknown_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "provenance").mkdir()
    (tmp_path / "provenance/x.json").write_text(text)
    assert read_machine(Store(tmp_path), "x") == UNKNOWN
    assert str(UNKNOWN) == "unknown kind"


def test_status_and_explain_say_it(
    tmp_path: Path, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    build(store, study, {"synthesize": HERE, "tokenizer": OTHER})
    for stage in study.stages[:2]:
        entry = {"format": 1, "key": stage.key, "files": {}, **stage.payload()}
        (store.root / stage.folder / "manifest.json").write_text(json.dumps(entry))
    assert cli.main(["status", "smoke", "--store", str(tmp_path)]) == 0
    assert "made on 2 kinds of machine" in capsys.readouterr().out
    corpus = study.stages[0]
    for words in ([corpus.key], [corpus.key, "--study", "smoke"]):
        assert cli.main(["explain", *words, "--store", str(tmp_path)]) == 0
        assert f"\nmade on {HERE}\n" in capsys.readouterr().out
