"""The proof's runner, arithmetic, table and set-up, without a GPU."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import proof
from tests.gpu.findings import (
    COULD_NOT_RUN,
    FAIL,
    MEASURED,
    NO_TIME,
    PASS,
    CouldNotRun,
    Finding,
    Rate,
    at_most,
    exit_code,
    kind_of,
    markdown_table,
    mfu_findings,
    ratio_finding,
    within_share,
)
from tests.gpu.proof import CHECKS, Check, Log, prove

ROOT = Path(__file__).resolve().parents[2]
MACHINE: dict[str, Any] = {
    "device": "NVIDIA H200", "memory_bytes": 150e9,
    "packages": {"torch": "2.11.0"}, "missing": {"mamba_ssm": "ImportError: no"},
}  # fmt: skip


def passing(name: str, **facts: float) -> Finding:
    return Finding(check=name, result=PASS, figure="1", facts=facts)


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H200", "h200_sxm"), ("NVIDIA H100 80GB HBM3", "h100_sxm"), ("NVIDIA B200", "b200"),
        ("NVIDIA A100-SXM4-80GB", "a100_sxm_80gb"), ("NVIDIA A100-SXM4-40GB", None),
        ("NVIDIA H100 PCIe", None), ("NVIDIA H100 NVL", None), ("NVIDIA GH200 480GB", None),
        ("NVIDIA H200 NVL", None), ("NVIDIA GB200", None), ("", None),
    ],
)  # fmt: skip
def test_data_sheet_of_a_device(name: str, kind: str | None) -> None:
    found = kind_of(name)
    assert (found.name if found else None) == kind


def test_rate_and_mfu() -> None:
    rate = Rate(tokens=8_192, seconds=(1.0, 0.8, 9.0), flops_per_token=50e9)
    assert rate.tokens_per_second == 8_192
    assert rate.tflops == pytest.approx(409.6)
    found = mfu_findings("x", rate, kind=kind_of("NVIDIA H200"), ceiling=800.0, goal=0.45)
    assert [(one.result, one.figure, one.goal) for one in found] == [
        (MEASURED, "51.2% of 800 TFLOP/s", ""),
        (FAIL, "41.4% of 989 TFLOP/s", ">= 45%"),
    ]
    (ceiling, sheet) = mfu_findings("x", rate, kind=None, ceiling=None, goal=0.45)
    assert (ceiling.result, ceiling.figure) == (COULD_NOT_RUN, "not measured")
    assert sheet.result == COULD_NOT_RUN


def test_missing_data_sheet_is_told_with_a_ceiling() -> None:
    rate = Rate(tokens=1, seconds=(1.0,), flops_per_token=1e12)
    (ceiling, sheet) = mfu_findings("x", rate, kind=None, ceiling=2.0, goal=0.45)
    assert ceiling.figure == "50.0% of 2 TFLOP/s"
    assert sheet.figure == "this GPU is not in recipes/machines/gpus.py"


@pytest.mark.parametrize(("ours", "result"), [(0.8, PASS), (1.004, PASS), (1.01, FAIL)])
def test_ratio(ours: float, result: str) -> None:
    found = ratio_finding("x", [ours, ours, 50.0], [1.0, 1.0], goal=1.0, words="the speed")
    assert found.result == result
    assert found.figure.startswith(f"{1 / ours:.2f}x the speed")


def test_tolerances() -> None:
    assert at_most("x", 1e-4, 1e-4, reason="sums").result == PASS
    assert at_most("x", float("nan"), 1e-4, reason="sums").result == FAIL
    assert at_most("x", 2e-4, 1e-4, reason="sums", what="w").figure == "2.00e-04 (w)"
    assert within_share("x", 86.0, 100.0, share=0.15, unit="GiB").result == PASS
    over = within_share("x", 116.0, 100.0, share=0.15, unit="GiB")
    assert (over.result, over.figure) == (FAIL, "116.0 GiB, estimated 100.0 (+16%)")


def test_table_and_exit_code() -> None:
    good, bad = passing("a|b"), Finding(check="c", result=FAIL, figure="2\n3", goal="> 3")
    lack = Finding(check="d", result=COULD_NOT_RUN, figure="no TE")
    table = markdown_table([good, bad, lack], MACHINE).splitlines()
    assert table[0] == "GPU proof on NVIDIA H200, torch 2.11.0."
    assert table[4:7] == [
        "| a/b | pass | 1 |  |", "| c | fail | 2 3 | > 3 |", "| d | could not run | no TE |  |",
    ]  # fmt: skip
    assert table[-1].startswith("3 findings: 1 pass, 1 fail, 0 measured, 1 could not run, 0 no t")
    assert exit_code([good, lack]) == 0
    assert exit_code([good, bad]) == 1
    assert exit_code([lack]) == 2, "nothing ran: nothing is proved"


# ---------------------------------------------------------------- the runner


def test_every_check_is_there_and_uses_only_earlier_ones() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for at, check in enumerate(CHECKS):
        module, function = check.place.split(":")
        assert callable(getattr(importlib.import_module(f"tests.gpu.{module}"), function))
        assert set(check.uses) <= set(names[:at]), check.name
        assert set(check.needs) <= {proof.CUDA, *proof.PROBED}, check.name
    assert sum(check.seconds for check in CHECKS) < proof.BUDGET_SECONDS - 600, "room to build"


def test_facts_lacks_and_time(tmp_path: Path) -> None:
    seen: list[tuple[str, Any]] = []

    def run(check: Check, facts: dict[str, Any], left: float) -> list[Finding]:
        seen.append((check.name, dict(facts)))
        return [passing(check.name, tflops=7.0)]

    checks = [
        Check(name="first", place="", seconds=1, needs=()),
        Check(name="lacks", place="", seconds=1, needs=("mamba_ssm",)),
        Check(name="long", place="", seconds=900, needs=()),
        Check(name="last", place="", seconds=1, needs=()),
    ]
    path = tmp_path / "folder" / "log.jsonl"
    found = prove(checks, MACHINE, Log(path), run=run, until=time.monotonic() + 100)
    assert [one.result for one in found] == [PASS, COULD_NOT_RUN, NO_TIME, PASS]
    assert found[1].figure == "mamba_ssm (ImportError: no)"
    assert found[2].figure.startswith("it takes about 900 s, ")
    assert [name for name, _ in seen] == ["first", "last"]
    assert seen[1][1] == {"machine": MACHINE, "tflops": 7.0}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["machine", *["finding"] * 4]
    assert lines[2]["result"] == COULD_NOT_RUN


def test_a_proof_that_is_cut_off_keeps_what_it_found(tmp_path: Path) -> None:
    def run(check: Check, facts: dict[str, Any], left: float) -> list[Finding]:
        if check.name == "second":
            raise KeyboardInterrupt
        return [passing(check.name)]

    checks = [Check(name=name, place="", seconds=1, needs=()) for name in ("first", "second")]
    path = tmp_path / "log.jsonl"
    with pytest.raises(KeyboardInterrupt):
        prove(checks, MACHINE, Log(path), run=run, until=time.monotonic() + 100)
    assert json.loads(path.read_text().splitlines()[-1])["check"] == "first"


STUB = (
    """
import json, os, signal, sys, time
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(arguments["--answers"], "w") as file:
    print(json.dumps({"check": "one", "result": "pass", "figure": "1"}), file=file)
"""
    + "{end}"
)


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("", (PASS, "1")),
        ("sys.exit('CUDA out of memory')", (FAIL, "its process ended with 1: CUDA out of memory")),
        ("os.kill(os.getpid(), signal.SIGSEGV)", (FAIL, "its process ended with -11: no message")),
        ("time.sleep(60)", (NO_TIME, "stopped after 2 s: the budget was spent")),
    ],
    ids=["well", "raises", "crashes", "hangs"],
)
def test_a_check_that_breaks_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, end: str, last: tuple[str, str]
) -> None:
    start = proof._start

    def swapped(command: list[str], seconds: float) -> Any:
        stub = STUB.replace("{end}", end)
        return start([sys.executable, "-c", stub, *command[3:]], seconds)

    monkeypatch.setattr(proof, "_start", swapped)
    found = proof.run_apart(CHECKS[0], {"machine": MACHINE}, 2.0)
    assert found[0].result == PASS, "what it said before stays"
    assert (found[-1].result, found[-1].figure) == last


def test_the_command_on_a_machine_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why = {proof.CUDA: "torch sees no CUDA device"}
    machine = {"device": "", "memory_bytes": 0, "packages": {"torch": "2"}, "missing": why}
    monkeypatch.setattr(proof, "probe_apart", lambda: machine)
    path = tmp_path / "log.jsonl"
    assert proof.main(["--log", str(path), "--checks", "fp8", "gemm_ceiling"]) == 2
    shown = capsys.readouterr().out
    assert "| gemm_ceiling | could not run | cuda (torch sees no CUDA device) |  |" in shown
    assert shown.index("gemm_ceiling") < shown.index("fp8"), "in order of worth, not as typed"
    last = json.loads(path.read_text().splitlines()[-1])
    assert (last["kind"], last["exit_code"]) == ("table", 2)
    assert last["text"] in shown


def test_looking_names_what_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "PROBED", ("yaml", "nothing_here"))
    found = proof.probe()
    assert list(found["packages"]) == ["yaml"]
    lack = "ModuleNotFoundError: No module named 'nothing_here'"
    assert found["missing"] == {"nothing_here": lack, proof.CUDA: "torch sees no CUDA device"}
    check = Check(name="x", place="", seconds=1, needs=("yaml", "nothing_here"))
    assert proof.lacking(check, found) == f"nothing_here ({lack})"


def test_a_lack_that_shows_late_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ceiling(facts: dict[str, Any]) -> Iterator[Finding]:
        yield passing("first half", tflops=facts["tflops"])
        raise CouldNotRun("no kernels")

    monkeypatch.setattr(importlib.import_module("tests.gpu.speed"), "gemm_ceiling", ceiling)
    path = tmp_path / "answers.jsonl"
    proof.run_one(CHECKS[0], {"tflops": 5.0}, path)
    found = [Finding(**json.loads(line)) for line in path.read_text().splitlines()]
    assert found[0] == passing("first half", tflops=5.0)
    assert (found[1].result, found[1].figure) == (COULD_NOT_RUN, "no kernels")


# ---------------------------------------------------------------- set-up


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script and, first on PATH, a python3 that says it has CUDA."""
    (tmp_path / "launch").mkdir()
    for name in ("launch/gpu_environment.sh", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "bin").mkdir()
    return tmp_path


def set_up(checkout: Path, python: str) -> subprocess.CompletedProcess[str]:
    fake = checkout / "bin" / "python3"
    fake.write_text(f"#!/bin/sh\n{python}\n")
    fake.chmod(0o755)
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    environment = {"PATH": path, "PYTHON": str(fake), "WHEELS": str(checkout / "wheels")}
    return subprocess.run(
        ["sh", "launch/gpu_environment.sh"],
        cwd=checkout, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_set_up_refuses_a_machine_without_cuda(checkout: Path) -> None:
    done = set_up(checkout, "exit 1")
    assert done.returncode == 2
    for word in ("gpu set-up asked for", "has no CUDA device", "needs", "run 'make gpu PYTHON="):
        assert word in done.stderr
    assert not (checkout / ".gpu").exists(), "nothing is written"


def test_set_up_refuses_a_machine_without_wheels(checkout: Path) -> None:
    done = set_up(checkout, "exit 0")
    assert done.returncode == 2
    assert "'make gpu-wheels'" in done.stderr
    assert not (checkout / ".gpu").exists()


def test_set_up_installs_from_the_folder_alone(checkout: Path) -> None:
    wheels = checkout / "wheels"
    wheels.mkdir()
    for name in ("good-1", "good-2", "bad-1"):
        (wheels / f"{name}-py3-none-any.whl").write_bytes(b"")
    (wheels / "mamba_ssm-9.tar.gz").write_bytes(b"")
    python = (
        'case "$*" in\n'
        '*pip*) echo "$*" >> pip.txt; case "$*" in *bad-1*) echo broken >&2; exit 1;; esac\n'
        "mkdir -p .gpu/part/shared; touch .gpu/part/shared/$(wc -l < pip.txt);;\n"
        "*get_device_capability*) echo 9.0;;\n"
        'where) echo "$PYTHONPATH";;\n'
        "esac"
    )
    done = set_up(checkout, python)
    assert done.returncode == 0, done.stderr
    asked = (checkout / "pip.txt").read_text().splitlines()
    assert all("--no-index --no-deps --target .gpu/part" in line for line in asked)
    names = ("bad-1", "good-1", "good-2")
    assert all(name in line for name, line in zip(names, asked, strict=True))
    assert "could not install bad-1-py3-none-any.whl: broken" in done.stdout
    assert "could not unpack mamba_ssm-9.tar.gz" in done.stdout
    shared = {path.name for path in (checkout / ".gpu/site/shared").iterdir()}
    assert shared == {"2", "3"}, "packages that share a folder are both there"
    where = subprocess.run(
        [checkout / ".gpu/python", "where"], capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": "more"},
    ).stdout.strip()  # fmt: skip
    assert where == f"{checkout / '.gpu/site'}:{checkout / '.imports'}:more"
    assert set_up(checkout, python).returncode == 0
    again = (checkout / "pip.txt").read_text().splitlines()[len(asked) :]
    assert len(again) == 1, "only what failed is tried again"
    assert "bad-1" in again[0]


def pack_source(wheels: Path, name: str, lines: list[str]) -> None:
    folder = wheels / name
    folder.mkdir()
    (folder / "setup.py").write_text("\n".join(lines))
    subprocess.run(["tar", "-czf", f"{name}.tar.gz", name], cwd=wheels, check=True)


def test_kernels_are_built_for_one_architecture(checkout: Path) -> None:
    wheels = checkout / "wheels"
    wheels.mkdir()
    lines = [
        "cc_flag = []",
        "if True:",
        '    cc_flag.append("-gencode")',
        '    cc_flag.append("arch=compute_80,code=sm_80")',
        'print("flags", cc_flag)',
    ]
    pack_source(wheels, "mamba_ssm-9", lines)
    python = (
        'case "$*" in\n'
        '*pip*) echo "$TORCH_CUDA_ARCH_LIST $MAMBA_FORCE_BUILD $*" > pip.txt\n'
        "mkdir -p .gpu/part;;\n"
        "*get_device_capability*) echo 9.0;;\n"
        "esac"
    )
    done = set_up(checkout, python)
    assert "gpu set-up: mamba_ssm-9, " in done.stdout
    asked = (checkout / "pip.txt").read_text()
    assert asked.startswith("9.0 TRUE ")
    assert "--no-build-isolation ./.gpu/source/mamba_ssm-9" in asked
    changed = checkout / ".gpu/source/mamba_ssm-9/setup.py"
    shown = subprocess.run([sys.executable, changed], capture_output=True, text=True, check=True)
    assert shown.stdout == "flags []\n"


def test_script_is_clean_shell() -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([checker, ROOT / "launch" / "gpu_environment.sh"], check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout
