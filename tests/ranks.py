"""Runs a function of a test file in fresh interpreters that talk over gloo on this machine."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


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
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), str(file), function]
    ranks = [
        subprocess.Popen(
            [*command, json.dumps(arguments or {})],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    outputs = _wait(ranks, timeout_seconds)
    if any(process.returncode for process in ranks):
        shown = [
            f"--- rank {rank}, exit {ranks[rank].returncode}\n{text[-3000:]}"
            for rank, text in enumerate(outputs)
        ]
        raise AssertionError("\n".join(shown))
    return [json.loads(text.splitlines()[-1]) for text in outputs]


def _wait(ranks: list[subprocess.Popen[str]], timeout_seconds: float) -> list[str]:
    """Waits for all; when one fails or time is up, ends the rest after a moment."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        codes = [process.poll() for process in ranks]
        if all(code is not None for code in codes):
            break
        if any(codes):
            time.sleep(3.0)
            break
        time.sleep(0.05)
    for process in ranks:
        if process.poll() is None:
            process.kill()
    return [process.communicate()[0] for process in ranks]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _main() -> None:
    file, function, arguments = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("ranks_under_test", file)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = getattr(module, function)(**json.loads(arguments))
    print(json.dumps(result), flush=True)
    os._exit(0)  # gloo's threads may outlive the interpreter


if __name__ == "__main__":
    _main()
