"""Runs a function of a test file in processes that talk over gloo on this machine.

One fresh interpreter imports the engine and becomes the ranks by forking: the import is paid once.
"""

import importlib
import importlib.util
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENGINE = (
    "torch._dynamo",  # torch/_compile.py:47: else each rank imports it at its first optimizer
    "frontload.megatron_ext.training.loop",
)


def run_on_ranks(
    file: str | Path,
    function: str,
    world: int,
    *,
    arguments: dict[str, Any] | None = None,
    timeout_seconds: float = 300.0,
) -> list[Any]:
    """Calls `function(**arguments)` on `world` ranks and returns their JSON results by rank.

    Raises: AssertionError with the end of every rank's output when one fails; the others are ended.
    """
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / ".imports"), str(ROOT)]),
    }
    words = [str(file), function, json.dumps(arguments or {}), str(timeout_seconds)]
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-3000:]}"
    ranks: list[tuple[int | None, str]] = json.loads(done.stdout.splitlines()[-1])
    if any(code for code, _ in ranks):
        shown = [
            f"--- rank {rank}, exit {code}\n{text[-3000:]}"
            for rank, (code, text) in enumerate(ranks)
        ]
        raise AssertionError("\n".join(shown))
    return [json.loads(text.splitlines()[-1]) for _, text in ranks]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# ---------------------------------------------------------------- the interpreter that forks


def _main() -> None:
    """Becomes WORLD_SIZE ranks, waits for them and prints how each ended and what it said."""
    from frontload.megatron_ext import cpu

    file, function, arguments, timeout_seconds = sys.argv[1:]
    cpu.prepare()
    for name in ENGINE:
        importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("ranks_under_test", file)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(rank) for rank in range(int(os.environ["WORLD_SIZE"]))]
        call = (getattr(module, function), json.loads(arguments))
        ranks = [
            multiprocessing.get_context("fork").Process(target=_act, args=(rank, log, *call))
            for rank, log in enumerate(logs)
        ]
        for process in ranks:
            process.start()
        _wait(ranks, float(timeout_seconds))
        told = [log.read_text(errors="replace") if log.exists() else "" for log in logs]
    codes = [process.exitcode for process in ranks]
    print(json.dumps(list(zip(codes, told, strict=True))), flush=True)


def _wait(ranks: Sequence[BaseProcess], timeout_seconds: float) -> None:
    """Waits for all; when one fails or time is up, ends the rest after a moment."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        codes = [process.exitcode for process in ranks]
        if all(code is not None for code in codes):
            break
        if any(codes):
            time.sleep(3.0)
            break
        time.sleep(0.05)
    for process in ranks:
        process.kill()
        process.join()


def _act(rank: int, log: Path, function: Any, arguments: dict[str, Any]) -> None:
    """What a rank does: its output goes to its log, whose last line is the result."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    with open(log, "w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    code = 0
    try:
        print(json.dumps(function(**arguments)), flush=True)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)  # gloo's threads may outlive the interpreter


if __name__ == "__main__":
    _main()
