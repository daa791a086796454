"""`make gpu-rehearsal`: the proof's set-up and processes on a CPU, with torch in place of kernels.

What a GPU would show is not shown. What is rehearsed: the carried packages install and import,
every check runs its own lines in its own process, and both logs are written.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from frontload.megatron_ext.model.ssd import ScanInputs
from frontload.recipes.machines.cluster import TORCH
from tests.gpu.compare import Size, load_model
from tests.gpu.luggage import LIMIT_MIB, folder_mib, repository_mib
from tests.gpu.mixers import ScanShape, torch_conv, torch_scan
from tests.gpu.speed import Job

BUDGET_SECONDS = 3_600.0
TINY = Size(model="hybrid_138k", documents=(24, 40, 16))
SHORT = ScanShape(tokens=96, heads=4, width=8, groups=2, states=8, chunk=16, document=20)
JOB = Job(model=load_model("hybrid_138k"), sequence_tokens=32, sequences=4, steps=2)
STUDY = ("model.pattern=M*-", "pretraining.precision=fp32", "placement.workers=1",
         "pretraining.tokens=128_000", "synthesis.base_tokens=130_000")  # fmt: skip


def rounded_scan(inputs: ScanInputs, ids: Tensor, chunk: int) -> Tensor:
    """Ours on inputs of any dtype, as the kernels take them."""
    dtype = inputs.x.dtype
    wide = replace(inputs, x=inputs.x.float(), B=inputs.B.float(), C=inputs.C.float())
    return torch_scan(wide, ids, chunk).to(dtype)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "cpu_and_cuda": {"size": TINY},
    "packed_rows": {"size": TINY},
    "checkpoints": {"size": TINY},
    "scan_kernels": {"shape": SHORT, "scan": rounded_scan, "conv": torch_conv},
    "scan_exact": {"shape": SHORT, "scan": torch_scan},
    "kernel_layers": {"size": TINY, "kernels": TORCH},
    "kernel_rows": {"size": TINY, "kernels": TORCH},
    "gemm_ceiling": {"gemms": [(64, 64, 64), (128, 64, 64)], "rounds": 3},
    "slice_8b": {"job": JOB},
    "kernels_and_torch": {"job": JOB, "kernels": TORCH},
    "fp8_products": {"model": "hybrid_138k", "tokens": 32, "rounds": 1},
    "train_500": {"study": "single_gpu_tiny", "overrides": STUDY, "kernels": TORCH},
}
"""Check -> what stands in for its sizes and its kernels."""

STAND_IN = """#!/bin/sh
case "$*" in
*torch.cuda.is_available*) exit 0 ;;
*get_device_capability*) echo 9.0 ;;
*) exec "{python}" "$@" ;;
esac
"""


def pretend(machine: dict[str, Any]) -> dict[str, Any]:
    """The machine with a device, and with the two packages whose kernels torch stands in for."""
    named = {"cuda", "mamba_ssm", "causal_conv1d"}
    missing = {name: why for name, why in machine["missing"].items() if name not in named}
    return machine | {"device": "a CPU, rehearsing", "memory_bytes": 150e9, "missing": missing}


def main() -> int:
    """Sets up in a folder of its own from .wheels, and runs the proof there."""
    root, wheels = Path(__file__).resolve().parents[2], Path(os.environ.get("WHEELS", ".wheels"))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "python3"
        python.write_text(STAND_IN.format(python=sys.executable))
        python.chmod(0o755)
        home = Path(folder) / "gpu"
        environment = {**os.environ, "PYTHON": str(python), "GPU_HOME": str(home)}
        set_up = ["sh", "launch/gpu_environment.sh"]
        code = subprocess.run(set_up, cwd=root, env=environment).returncode
        if code != 0:
            return code
        spent = time.monotonic() - began
        size = repository_mib() + folder_mib(wheels)
        print(f"set-up: {spent:.0f} s; luggage: {size:.1f} MiB of {LIMIT_MIB}", flush=True)
        log = os.environ.get("GPU_LOG", ".gpu/rehearsal.jsonl")
        words = [str(home / "python"), "-m", "tests.gpu.proof", "--rehearse"]
        # a shared machine's seconds are not a GPU machine's: the page says both kinds
        words += ["--spent", str(spent), "--log", log, "--budget", str(BUDGET_SECONDS)]
        environment["PYTHONPATH"] = str(root)
        return subprocess.run(words, cwd=root, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
