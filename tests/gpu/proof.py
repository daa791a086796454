"""`make gpu`: every check that needs one GPU, in order of worth, each in a process of its own.

    python -m tests.gpu.proof [--budget SECONDS] [--checks NAME ...] [--log FILE]

A process a check: one that crashes, hangs or fills the memory costs no other. What is known is
written after each, so that a proof that is cut off keeps what it found. Never run on a GPU yet.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from tests.gpu.findings import (
    COULD_NOT_RUN,
    FAIL,
    NO_TIME,
    CouldNotRun,
    Finding,
    exit_code,
    markdown_table,
)

CUDA, MEGATRON = "cuda", "megatron.core"
ENGINE = (CUDA, MEGATRON, "numpy", "einops")
SCAN = ("mamba_ssm", "causal_conv1d")
DATA = ("tokenizers", "yaml", "jinja2")
KERNELS = ("transformer_engine.pytorch", *SCAN)
PROBED = ("torch", "triton", "numpy", "einops", *DATA, MEGATRON, *KERNELS)
BUDGET_SECONDS = 1_500
PROBE_SECONDS = 180.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """One function of a module of this folder; it takes the facts and returns findings."""

    name: str
    place: str  # module:function
    seconds: float  # expected on an H200, by counting work; not started with less time left
    needs: tuple[str, ...] = ENGINE
    uses: tuple[str, ...] = ()  # checks whose facts it reports against; it runs without them too


CHECKS = (
    Check(name="gemm_ceiling", place="speed:gemm_ceiling", seconds=15, needs=ENGINE),
    Check(name="cpu_and_cuda", place="compare:cpu_and_cuda", seconds=60),
    Check(name="packed_rows", place="compare:packed_rows", seconds=25),
    Check(name="scan_kernels", place="compare:scan_kernels", seconds=40, needs=(*ENGINE, *SCAN)),
    Check(
        name="kernel_layers", place="compare:kernel_layers", seconds=60,
        needs=(*ENGINE, *KERNELS),
    ),
    Check(name="checkpoints", place="compare:checkpoints", seconds=45),
    Check(name="slice_8b", place="speed:slice_8b", seconds=90, uses=("gemm_ceiling",)),
    Check(name="step_1b", place="speed:step_1b", seconds=60, uses=("gemm_ceiling",)),
    Check(
        name="stock_spec", place="speed:stock_spec", seconds=60, needs=(*ENGINE, *KERNELS)
    ),
    Check(name="fp8", place="speed:fp8", seconds=150, needs=(*ENGINE, *KERNELS)),
    Check(
        name="train_500", place="train:train_500", seconds=240, needs=(*ENGINE, *DATA)
    ),
)  # fmt: skip


def probe() -> dict[str, Any]:
    """What this machine has: device and versions, or why a package does not import."""
    packages, missing = {}, {}
    for name in PROBED:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            told = (str(error).splitlines() or ["no message"])[0]
            missing[name] = f"{type(error).__name__}: {told}"
        else:
            packages[name] = str(getattr(module, "__version__", "?"))
    machine: dict[str, Any] = {"device": "", "memory_bytes": 0, "capability": ""}
    if "torch" in packages:
        torch = sys.modules["torch"]
        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            machine = {
                "device": properties.name,
                "memory_bytes": properties.total_memory,
                "capability": f"{properties.major}.{properties.minor}",
            }
    if not machine["device"]:
        missing[CUDA] = "torch sees no CUDA device"
    python = ".".join(map(str, sys.version_info[:3]))
    return machine | {"python": python, "packages": packages, "missing": missing}


def lacking(check: Check, machine: dict[str, Any]) -> str:
    """Why a check cannot run on this machine; empty if it can."""
    found = [f"{need} ({why})" for need, why in machine["missing"].items() if need in check.needs]
    return "; ".join(found)


class Log:
    """One file of JSON lines, on the disk after each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w")

    def write(self, kind: str, **content: Any) -> None:
        """Adds a line."""
        line = {"kind": kind, "time": round(time.time(), 1)} | content
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


Run = Callable[[Check, dict[str, Any], float], list[Finding]]


def prove(
    checks: Sequence[Check], machine: dict[str, Any], log: Log, *, run: Run, until: float
) -> list[Finding]:
    """Runs the checks in order and writes each finding down at once; `until` is monotonic time."""
    log.write("machine", **machine)
    facts: dict[str, Any] = {"machine": machine}
    found: list[Finding] = []
    for check in checks:
        left, why = until - time.monotonic(), lacking(check, machine)
        if why:
            answers = [Finding(check=check.name, result=COULD_NOT_RUN, figure=why)]
        elif left < check.seconds:
            figure = f"it takes about {check.seconds:.0f} s, {max(left, 0.0):.0f} s were left"
            answers = [Finding(check=check.name, result=NO_TIME, figure=figure)]
        else:
            answers = run(check, facts, left)
        for answer in answers:
            facts |= answer.facts
            log.write("finding", **asdict(answer))
            print(f"{answer.result:14s} {answer.check}: {answer.figure}", flush=True)
        found += answers
    return found


def run_apart(check: Check, facts: dict[str, Any], seconds: float) -> list[Finding]:
    """Runs one check in a process of its own and group, which is ended when the time is up."""
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder) / "facts.json", Path(folder) / "findings.jsonl"
        given.write_text(json.dumps(facts))
        words = ["--one", check.name, "--facts", str(given), "--answers", str(answers)]
        code, tail = _start([sys.executable, "-m", "tests.gpu.proof", *words], seconds)
        lines = answers.read_text().splitlines() if answers.exists() else []
    found = [Finding(**json.loads(line)) for line in lines]
    if code is None:
        figure = f"stopped after {seconds:.0f} s: the budget was spent"
        found.append(Finding(check=check.name, result=NO_TIME, figure=figure))
    elif code != 0:
        figure = f"its process ended with {code}: {tail}"
        found.append(Finding(check=check.name, result=FAIL, figure=figure))
    return found


def _start(command: list[str], seconds: float) -> tuple[int | None, str]:
    """Exit code (None: stopped) and the last line of stderr, which is passed on too."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, start_new_session=True, stderr=errors)
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        errors.seek(0)
        text = errors.read()
    if code != 0:
        sys.stderr.write(text[-4_000:])
    return code, (text.strip().splitlines() or ["no message"])[-1]


def run_one(check: Check, facts: dict[str, Any], answers: Path) -> None:
    """Runs one check here. A lack that shows only now is a finding; other exceptions pass."""
    module, function = check.place.split(":")
    call = getattr(importlib.import_module(f"tests.gpu.{module}"), function)
    with answers.open("a") as file:
        try:
            for answer in call(facts):
                file.write(json.dumps(asdict(answer)) + "\n")
                file.flush()
        except CouldNotRun as error:
            lack = Finding(check=check.name, result=COULD_NOT_RUN, figure=str(error))
            file.write(json.dumps(asdict(lack)) + "\n")


def main(words: Sequence[str] | None = None) -> int:
    """The command; prints the table at the end."""
    names = [check.name for check in CHECKS]
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.proof")
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="seconds in all")
    parser.add_argument("--spent", type=float, default=0.0, help="seconds of it already gone")
    parser.add_argument("--checks", nargs="*", choices=names, default=names)
    parser.add_argument("--log", type=Path, default=Path(".gpu/proof.jsonl"))
    parser.add_argument("--one", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--facts", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    by_name = {check.name: check for check in CHECKS}
    if asked.probe:
        asked.answers.write_text(json.dumps(probe()))
        return 0
    if asked.one:
        run_one(by_name[asked.one], json.loads(asked.facts.read_text()), asked.answers)
        return 0
    until = time.monotonic() + asked.budget - asked.spent
    log = Log(asked.log)
    machine = probe_apart()
    chosen = [by_name[name] for name in names if name in (asked.checks or names)]
    found = prove(chosen, machine, log, run=run_apart, until=until)
    table = markdown_table(found, machine)
    log.write("table", text=table, exit_code=exit_code(found))
    print(f"\n{table}\n\nlog: {asked.log}")
    return exit_code(found)


def probe_apart() -> dict[str, Any]:
    """Imports break in many ways on a bare machine; this process keeps out of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "machine.json"
        command = [sys.executable, "-m", "tests.gpu.proof", "--probe", "--answers", str(path)]
        code, tail = _start(command, PROBE_SECONDS)
        if code == 0:
            return json.loads(path.read_text())
    why = dict.fromkeys((CUDA, *PROBED), f"looking ended with {code}: {tail}")
    return {"device": "", "memory_bytes": 0, "packages": {}, "missing": why}


if __name__ == "__main__":
    sys.exit(main())
