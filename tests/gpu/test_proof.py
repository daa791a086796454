"""The proof's runner, arithmetic and table, without a GPU."""

import importlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import proof, rehearsal
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
from tests.gpu.processes import Ended, start
from tests.gpu.proof import CHECKS, Check, prove, run_apart, run_here
from tests.gpu.report import Log

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


def check(name: str, **options: Any) -> Check:
    return Check(
        **{"name": name, "place": "", "seconds": 1, "process": "one", "needs": ()} | options
    )


def log(path: Path) -> Log:
    return Log(path, MACHINE, began=time.monotonic() - 30.0)


def test_every_check_is_there_and_uses_only_earlier_ones() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for at, one in enumerate(CHECKS):
        module, function = one.place.split(":")
        assert callable(getattr(importlib.import_module(f"tests.gpu.{module}"), function))
        assert set(one.uses) <= set(names[:at]), one.name
        assert set(one.needs) <= {proof.CUDA, *proof.PROBED}, one.name
    together = [list(same) for _, same in itertools.groupby(CHECKS, lambda one: one.process)]
    assert len(together) == len({one.process for one in CHECKS}), "one process after the other"
    for checks in together:
        assert len({str(one.environment) for one in checks}) == 1


def test_the_proof_fits_its_budgets() -> None:
    """Of what can be carried: Transformer Engine cannot. What failed fits a second, short call."""
    able = [one for one in CHECKS if "transformer_engine.pytorch" not in one.needs]
    assert sum(one.seconds for one in able) + proof.SET_UP_SECONDS <= proof.BUDGET_SECONDS
    assert proof.BUDGET_SECONDS <= 570, "a command ends at 600"
    assert max(one.seconds for one in able) + proof.SET_UP_SECONDS <= 180
    assert set(rehearsal.ARGUMENTS) == {one.name for one in able} - {"phases"}


def test_facts_and_lacks(tmp_path: Path) -> None:
    seen: list[Any] = []

    def run(checks: Sequence[Check], facts: dict[str, Any], until: float) -> Iterator[Ended]:
        seen.append(([one.name for one in checks], dict(facts)))
        for one in checks:
            yield Ended(one.name, [passing(one.name, tflops=7.0)], 2.4)

    checks = [
        check("first"), check("lacks", needs=("mamba_ssm",)), check("third"),
        check("alone", process="two", needs=("mamba_ssm",)), check("last", process="three"),
    ]  # fmt: skip
    path = tmp_path / "folder" / "log.jsonl"
    found = prove(checks, MACHINE, log(path), run=run, until=time.monotonic() + 100)
    assert [(one.check, one.result) for one in found] == [
        ("lacks", COULD_NOT_RUN), ("first", PASS), ("third", PASS), ("alone", COULD_NOT_RUN),
        ("last", PASS),
    ]  # fmt: skip
    assert found[0].figure == "mamba_ssm (ImportError: no)"
    assert [names for names, _ in seen] == [["first", "third"], ["last"]]
    assert seen[1][1] == {"machine": MACHINE, "tflops": 7.0}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["machine", *["finding", "check"] * 5]
    assert lines[3]["check"] == "first"
    page = path.with_suffix(".md").read_text()
    assert page.startswith("Failed: nothing.\n\nGPU proof on NVIDIA H200")
    assert "Seconds of each check: first 2, third 2, last 2; 30 in all" in page


def test_a_proof_that_is_cut_off_keeps_what_it_found(tmp_path: Path) -> None:
    def run(checks: Sequence[Check], facts: dict[str, Any], until: float) -> Iterator[Ended]:
        yield Ended("first", [Finding(check="first", result=FAIL, figure="2")], 1.0)
        raise KeyboardInterrupt

    path = tmp_path / "log.jsonl"
    checks = [check("first"), check("second")]
    with pytest.raises(KeyboardInterrupt):
        prove(checks, MACHINE, log(path), run=run, until=time.monotonic() + 100)
    assert json.loads(path.read_text().splitlines()[-2])["check"] == "first"
    assert path.with_suffix(".md").read_text().startswith("Failed: first.")


STUB = """
import json, os, signal, sys, time
names = sys.argv[sys.argv.index("--checks") + 1:]
with open(sys.argv[sys.argv.index("--answers") + 1], "a") as file:
    def say(*words):
        print(json.dumps(words), file=file, flush=True)
    for name in names:
        say("begin", name)
        say("finding", {"check": name, "result": "pass", "figure": str(os.getpid())})
        if name == "breaks":
            {end}
        say("end", name)
"""


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("sys.exit('CUDA out of memory')", (FAIL, "its process ended with 1: CUDA out of memory")),
        ("os.kill(os.getpid(), signal.SIGSEGV)", (FAIL, "its process ended with -11: no message")),
        ("time.sleep(60)", (FAIL, "stopped after 1 s: at most 1 s are given to it")),
    ],
    ids=["raises", "crashes", "hangs"],
)
def test_a_check_that_breaks_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, end: str, last: tuple[str, str]
) -> None:
    def swapped(command: list[str], **options: Any) -> Any:
        return start([sys.executable, "-c", STUB.replace("{end}", end), *command[3:]], **options)

    monkeypatch.setattr(proof, "start", swapped)
    monkeypatch.setattr(Check, "most_seconds", property(lambda one: one.seconds))
    checks = [check("first", seconds=50), check("breaks"), check("after", seconds=50)]
    ended = list(run_apart(checks, {"machine": MACHINE}, time.monotonic() + 100))
    assert [one.check for one in ended] == ["first", "breaks", "after"]
    assert [one.result for one in ended[1].findings] == [PASS, FAIL], "what it said before stays"
    assert (ended[1].findings[1].result, ended[1].findings[1].figure) == last
    processes = [one.findings[0].figure for one in ended]
    assert processes[0] == processes[1] != processes[2], "one process until it breaks"


def test_a_process_ends_with_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(command: list[str], **options: Any) -> Any:
        stub = STUB.replace("{end}", "time.sleep(60)")
        return start([sys.executable, "-c", stub, *command[3:]], **options)

    monkeypatch.setattr(proof, "start", swapped)
    (ended,) = run_apart([check("breaks")], {"machine": MACHINE}, time.monotonic() + 2)
    assert ended.findings[-1].result == NO_TIME
    assert ended.findings[-1].figure.endswith("the budget was spent")


def test_checks_of_a_process_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lack that shows late and an error are findings; facts go on; what takes too long waits."""

    def ceiling(facts: dict[str, Any]) -> Iterator[Finding]:
        yield passing("first half", tflops=facts["tflops"] + 1)
        raise CouldNotRun("no kernels")

    def rows(facts: dict[str, Any]) -> Iterator[Finding]:
        yield passing("rows", seen=facts["tflops"])
        raise ValueError("first line\nsecond")

    monkeypatch.setattr(importlib.import_module("tests.gpu.products"), "gemm_ceiling", ceiling)
    monkeypatch.setattr(importlib.import_module("tests.gpu.compare"), "packed_rows", rows)
    given, answers = tmp_path / "facts.json", tmp_path / "answers.jsonl"
    given.write_text(json.dumps({"facts": {"tflops": 5.0}, "seconds": 60.0}))
    names = ["gemm_ceiling", "packed_rows", "slice_8b"]
    run_here(names, given, answers, rehearse=False)
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [content for kind, content in lines if kind != "finding"] == [
        name for name in names for _ in range(2)
    ]
    told = [Finding(**content) for kind, content in lines if kind == "finding"]
    assert [(one.result, one.figure) for one in told[:-1]] == [
        (PASS, "1"), (COULD_NOT_RUN, "no kernels"), (PASS, "1"), (FAIL, "ValueError: first line"),
    ]  # fmt: skip
    assert told[2].facts == {"seen": 6.0}
    assert told[-1].result == NO_TIME
    assert told[-1].figure.startswith("it takes about 75 s, ")


def test_the_rehearsal_runs_checks_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    words = ["--rehearse", "--log", str(path), "--checks", "packed_rows", "kernel_rows"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.proof", *words, "stock_spec"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT / '.imports'}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = path.with_suffix(".md").read_text()
    assert "GPU proof on a CPU, rehearsing, torch " in page
    assert "| packed and separate, torch layers: logits | pass |" in page
    assert "| stock_spec | could not run | transformer_engine.pytorch (" in page
    assert page.strip() in done.stdout


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
    both = check("x", needs=("yaml", "nothing_here"))
    assert proof.lacking(both, found) == f"nothing_here ({lack})"
