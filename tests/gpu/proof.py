"""`make gpu`: what one GPU can answer in nine minutes, in order of worth, in few processes.

    python -m tests.gpu.proof [--budget SECONDS] [--checks NAME ...] [--log FILE] [--rehearse]

Checks of one `process` share their imports and kernels. One that crashes, hangs or fills the memory
costs no other: the rest of its process goes on in a new one. What is known is written after each,
so that a proof that is cut off keeps what it found. Never run on a GPU yet; `--rehearse` runs the
same processes on a CPU, at tiny size, with torch in the place of kernels.
"""

import argparse
import importlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu.findings import COULD_NOT_RUN, FAIL, NO_TIME, CouldNotRun, Finding, exit_code
from tests.gpu.processes import Answers, Ended, start, watch
from tests.gpu.report import Log

CUDA, MEGATRON = "cuda", "megatron.core"
ENGINE = (CUDA, MEGATRON, "numpy", "einops")
SCAN = ("mamba_ssm", "causal_conv1d")
DATA = ("tokenizers", "yaml", "jinja2")
KERNELS = ("transformer_engine.pytorch", *SCAN)
PROBED = ("torch", "triton", "numpy", "einops", *DATA, MEGATRON, *KERNELS)
BUDGET_SECONDS = 560.0  # of a command's 600
SET_UP_SECONDS = 60.0  # to install what is carried, look at the machine, import; not measured
PROBE_SECONDS = 120.0
EXACT = {"TRITON_F32_DEFAULT": "ieee"}  # Triton multiplies float32 as TF32 unless it is told


@dataclass(frozen=True, kw_only=True)
class Check:
    """One function of a module of this folder; it takes the facts and returns findings."""

    name: str
    place: str  # module:function
    seconds: float  # expected on an H200, by counting work; not begun with less time left
    process: str
    needs: tuple[str, ...] = ENGINE
    uses: tuple[str, ...] = ()  # checks whose facts it reports against; it runs without them too
    environment: dict[str, str] = field(default_factory=dict)  # of the whole process

    @property
    def most_seconds(self) -> float:
        """After which it is taken for one that hangs."""
        return max(60.0, 3.0 * self.seconds)


CHECKS = (
    Check(name="cpu_and_cuda", place="compare:cpu_and_cuda", seconds=45, process="torch"),
    Check(name="packed_rows", place="compare:packed_rows", seconds=10, process="torch"),
    Check(name="checkpoints", place="compare:checkpoints", seconds=20, process="torch"),
    Check(name="phases", place="phases:phases", seconds=20, process="torch"),
    Check(
        name="scan_kernels", place="mixers:scan_kernels", seconds=60, process="kernels",
        needs=(*ENGINE, *SCAN),
    ),
    Check(
        name="kernel_layers", place="mixers:kernel_layers", seconds=30, process="kernels",
        needs=(*ENGINE, *SCAN),
    ),
    Check(
        name="kernel_rows", place="mixers:kernel_rows", seconds=10, process="kernels",
        needs=(*ENGINE, *SCAN),
    ),
    Check(name="gemm_ceiling", place="products:gemm_ceiling", seconds=10, process="speed"),
    Check(
        name="slice_8b", place="speed:slice_8b", seconds=75, process="speed",
        uses=("gemm_ceiling",),
    ),
    Check(
        name="kernels_and_torch", place="speed:kernels_and_torch", seconds=35, process="speed",
        needs=(*ENGINE, *SCAN),
    ),
    Check(name="fp8_products", place="products:fp8_products", seconds=20, process="speed"),
    Check(
        name="train_500", place="train:train_500", seconds=110, process="train",
        needs=(*ENGINE, *DATA),
    ),
    Check(
        name="scan_exact", place="mixers:scan_exact", seconds=35, process="exact",
        needs=(*ENGINE, *SCAN), environment=EXACT,
    ),
    Check(
        name="stock_spec", place="speed:stock_spec", seconds=60, process="engine",
        needs=(*ENGINE, *KERNELS),
    ),
    Check(
        name="fp8", place="speed:fp8", seconds=150, process="engine", needs=(*ENGINE, *KERNELS)
    ),
)  # fmt: skip
BY_NAME = {check.name: check for check in CHECKS}


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


Run = Callable[[Sequence[Check], dict[str, Any], float], Iterator[Ended]]


def prove(
    checks: Sequence[Check], machine: dict[str, Any], log: Log, *, run: Run, until: float
) -> list[Finding]:
    """Runs the checks in order and writes each finding down at once; `until` is monotonic time."""
    log.write("machine", **machine)
    facts: dict[str, Any] = {"machine": machine}
    found: list[Finding] = []
    for _, together in itertools.groupby(checks, key=lambda check: check.process):
        able: list[Check] = []
        for check in together:
            if why := lacking(check, machine):
                lack = Finding(check=check.name, result=COULD_NOT_RUN, figure=why)
                found += log.add(Ended(check.name, [lack], 0.0))
            else:
                able.append(check)
        for ended in run(able, facts, until) if able else ():
            for finding in ended.findings:
                facts |= finding.facts
            found += log.add(ended)
    return found


def run_apart(
    checks: Sequence[Check], facts: dict[str, Any], until: float, *, rehearse: bool = False
) -> Iterator[Ended]:
    """Runs checks in one process, and in a new one after a check that broke it."""
    todo = list(checks)
    while todo:
        with tempfile.TemporaryDirectory() as folder:
            given, answers = Path(folder) / "facts.json", Path(folder) / "answers.jsonl"
            left = until - time.monotonic()
            given.write_text(json.dumps({"facts": facts, "seconds": left}))
            words = ["--facts", str(given), "--answers", str(answers), "--checks"]
            words = ["--run", *words, *(check.name for check in todo)]
            command = [sys.executable, "-m", "tests.gpu.proof", *words]
            command += ["--rehearse"] if rehearse else []
            process = start(command, environment=todo[0].environment)
            most = {check.name: check.most_seconds for check in todo}
            for ended in watch(process, answers, [check.name for check in todo], most, until):
                todo = todo[1:]
                for finding in ended.findings:
                    facts = facts | finding.facts
                yield ended


def run_here(names: Sequence[str], given: Path, answers: Path, *, rehearse: bool) -> None:
    """Runs checks in this process. A lack that shows only now is a finding; others pass."""
    content = json.loads(given.read_text())
    facts, until = content["facts"], time.monotonic() + content["seconds"]
    replaced: dict[str, Any] = {}
    if rehearse:
        replaced = importlib.import_module("tests.gpu.rehearsal").ARGUMENTS
    with Answers(answers) as file:
        for check in (BY_NAME[name] for name in names):
            left = until - time.monotonic()
            file.begin(check.name)
            if left < check.seconds and not rehearse:
                figure = f"it takes about {check.seconds:.0f} s, {max(left, 0.0):.0f} s were left"
                file.add(Finding(check=check.name, result=NO_TIME, figure=figure))
                file.end(check.name)
                continue
            module, function = check.place.split(":")
            call = getattr(importlib.import_module(f"tests.gpu.{module}"), function)
            try:
                for finding in call(facts, **replaced.get(check.name, {})):
                    facts |= finding.facts
                    file.add(finding)
            except CouldNotRun as error:
                file.add(Finding(check=check.name, result=COULD_NOT_RUN, figure=str(error)))
            except Exception as error:  # one process holds several checks: the next ones go on
                file.add(Finding(check=check.name, result=FAIL, figure=said(error)))
                importlib.import_module("traceback").print_exc()
            file.end(check.name)


def said(error: Exception) -> str:
    """The kind of an error and its first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"


def main(words: Sequence[str] | None = None) -> int:
    """The command; prints the table at the end."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.proof")
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="seconds in all")
    parser.add_argument("--spent", type=float, default=0.0, help="seconds of it already gone")
    parser.add_argument("--checks", nargs="*", choices=list(BY_NAME), default=list(BY_NAME))
    parser.add_argument("--log", type=Path, default=Path(".gpu/proof.jsonl"))
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, at tiny size")
    for name in ("--run", "--probe"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    for name in ("--facts", "--answers"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if asked.probe:
        asked.answers.write_text(json.dumps(probe()))
        return 0
    if asked.run:
        run_here(asked.checks, asked.facts, asked.answers, rehearse=asked.rehearse)
        return 0
    began = time.monotonic() - asked.spent
    machine = probe_apart()
    if asked.rehearse:
        machine = importlib.import_module("tests.gpu.rehearsal").pretend(machine)
    log = Log(asked.log, machine, began=began)
    chosen = [check for check in CHECKS if check.name in (asked.checks or BY_NAME)]

    def run(checks: Sequence[Check], facts: dict[str, Any], until: float) -> Iterator[Ended]:
        return run_apart(checks, facts, until, rehearse=asked.rehearse)

    found = prove(chosen, machine, log, run=run, until=began + asked.budget)
    print(f"\n{log.close(exit_code(found))}\n\nlog: {asked.log}, {log.page}")
    return exit_code(found)


def probe_apart() -> dict[str, Any]:
    """Imports break in many ways on a bare machine; this process keeps out of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "machine.json"
        process = start(
            [sys.executable, "-m", "tests.gpu.proof", "--probe", "--answers", str(path)]
        )
        code, tail = process.finish(PROBE_SECONDS)
        if code == 0:
            return json.loads(path.read_text())
    why = dict.fromkeys((CUDA, *PROBED), f"looking ended with {code}: {tail}")
    return {"device": "", "memory_bytes": 0, "packages": {}, "missing": why}


if __name__ == "__main__":
    sys.exit(main())
