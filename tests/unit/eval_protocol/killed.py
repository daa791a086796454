"""Evaluates a drawn model once undisturbed and once with 20 kills; prints what happened.

A process of its own: it forks before torch has started a thread. A kill comes after a drawn number
of further bytes, whatever the machine's load.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from frontload.eval.protocol.evaluation import SAMPLES, evaluate_suite
from tests.unit.eval_protocol.protocol_inputs import few, make_answerer, make_root, quiet, request

NUM_KILLS = 20
SUITE = few("sft", "math500", "aime25", longest=6)  # 4 and 16 samples, each with its own seed


def main(folder: Path) -> None:
    root = make_root(folder / "root")
    answerer = make_answerer(folder / "tokenizer", pattern="M-")

    def run(name: str) -> None:
        evaluate_suite(request(SUITE, root, folder / name), answerer, watch=quiet)

    began = time.monotonic()
    _wait(_forked(lambda: run("whole")))
    seconds = time.monotonic() - began
    whole_bytes = (folder / "whole" / SAMPLES).stat().st_size
    stream, kills, resumed = random.Random(5), 0, 0
    samples = folder / "killed" / SAMPLES
    while kills < NUM_KILLS:
        before = samples.stat().st_size if samples.exists() else 0
        child = _forked(lambda: run("killed"))
        most = before + stream.uniform(0.0, 0.3) * whole_bytes
        while _is_running(child) and (samples.stat().st_size if samples.exists() else 0) < most:
            time.sleep(0.001)
        time.sleep(stream.uniform(0.0, 0.05) * seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        resumed += before > 0
        if (folder / "killed" / "evaluation.json").exists():
            for path in (folder / "killed").iterdir():  # it had ended: from the start again
                path.unlink()
    _wait(_forked(lambda: run("killed")))
    print(json.dumps({"num_kills": kills, "num_resumed": resumed}))


def _forked(act: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    return child


def _is_running(child: int) -> bool:
    """Whether it has not ended; its status stays to be read."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _wait(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise SystemExit(f"a run ended with status {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
