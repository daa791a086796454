"""Agents of `frontload launch` that are forked, as their ranks are, from a process with imports.

Importing torch and Megatron is nine tenths of a short job's work. All else is as in a real job:
torchrun's agent, the rendezvous, processes with their own ids, signals, restarts, the look-out for
hangs. Reads requests from stdin, a JSON line each, and answers with the agent's exit code.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from frontload.launch.torchrun import run_agent
from frontload.megatron_ext import cpu
from tests.soak import faulty_rank

WAIT_SECONDS = 0.01
RANK = "tests.soak.faulty_rank"
HANDLER = "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler"
PRELOADED = (
    "frontload.megatron_ext.training.loop",
    "frontload.megatron_ext.training.datasets",
    "frontload.megatron_ext.stages",
    "frontload.launch.commands",
    "torch._dynamo",  # what the first optimizer step imports
    "torch.distributed.run",
    HANDLER,
)


class Forked:
    """A forked process that runs a function; what torchrun's agent uses of `subprocess.Popen`."""

    def __init__(self, function: Callable[[], int], environment: dict[str, str]) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            os.setpgid(0, 0)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                signal.signal(number, signal.SIG_DFL)
            os.environ.clear()
            os.environ.update(environment)
            code = function()
        except SystemExit as asked:
            code = asked.code if isinstance(asked.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, once it has one."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the exit code."""
        end = time.monotonic() + (timeout or float("inf"))
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("forked", timeout or 0.0)
            time.sleep(WAIT_SECONDS)
        return code


def _fork_rank(_: Any, words: tuple[str, ...], environment: dict[str, str]) -> Forked:
    def be_rank() -> int:
        sys.argv = list(words[words.index(RANK) :])
        return faulty_rank.main()

    rank = Forked(be_rank, environment)
    while os.getpgid(rank.pid) != rank.pid:  # torchrun signals its group
        time.sleep(WAIT_SECONDS)
    return rank


def _answer(request: dict[str, Any]) -> int:
    """Runs one agent to its end."""

    def be_agent() -> int:
        with open(request["said"], "wb") as said, open(os.devnull, "rb") as nothing:
            for number, file in enumerate((nothing, said, said)):
                os.dup2(file.fileno(), number)
        return run_agent(request["command"])

    agent = Forked(be_agent, {**os.environ, **request["environment"]})
    try:
        return agent.wait(request["seconds"])
    except subprocess.TimeoutExpired:
        os.kill(agent.pid, signal.SIGKILL)
        return agent.wait()


def main() -> int:
    """Imports what ranks import, then answers until stdin ends."""
    cpu.prepare()
    for name in PRELOADED:
        importlib.import_module(name)
    sys.modules[HANDLER].SubprocessHandler._popen = _fork_rank  # type: ignore[attr-defined]
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
