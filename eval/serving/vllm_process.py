"""vLLM as a process beside an evaluation: started on a Hugging Face folder, asked, ended.

Not run by this project's tests: they have no GPU. They run this module with `frontload serve` in
vLLM's place, which speaks the same protocol.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.serving.client import ServerAnswerer, ServerSettings
from frontload.recipes.errors import RecipeError, StageError

START_SECONDS = 1800.0  # ours: a checkpoint of 16 GB from a busy disk, and its kernels
STOP_SECONDS = 30.0
CONCURRENCY = 256  # vLLM's own default of rows side by side
LAST_WORDS = 2000  # bytes of its log in a message


@dataclass(frozen=True, kw_only=True)
class VllmSettings:
    """What is served, and where its output goes."""

    model: Path  # a Hugging Face folder
    log: Path
    program: tuple[str, ...] = ("vllm", "serve")


@contextmanager
def vllm_answerer(settings: VllmSettings) -> Iterator[ServerAnswerer]:
    """Starts the server on a free port of this machine, waits for it, ends it with the block.

    Raises: RecipeError when it is not installed, StageError when it ends before it answers.
    """
    port = _free_port()
    command = vllm_command(settings, port=port)
    with open(settings.log, "ab") as log:
        process = _start(command, log)
        try:
            _wait_until_it_listens(process, port, log=settings.log)
            url = f"http://127.0.0.1:{port}/v1"
            tokenizer = TextTokenizer.load(settings.model)
            yield ServerAnswerer(ServerSettings(url=url, concurrency=CONCURRENCY), tokenizer)
        finally:
            _stop(process)


def vllm_command(settings: VllmSettings, *, port: int) -> list[str]:
    """The command line of the server."""
    where = ["--host", "127.0.0.1", "--port", str(port)]
    return [*settings.program, str(settings.model), *where]


def _start(command: Sequence[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    except FileNotFoundError as error:
        raise RecipeError(
            "answerer vllm",
            found=f"no program {command[0]}",
            rule="vLLM is installed where the stage runs",
            do="install it there, or write evaluation.benchmarks.answerer: frontload",
        ) from error


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", port: int, *, log: Path) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise StageError(
                "starting vLLM",
                found=f"it ended with code {process.returncode}: {_last_words(log)}",
                rule="the server answers before the questions are asked",
                do="mend what its last words say; what is answered already stays",
            )
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise StageError(
        "starting vLLM",
        found=f"no answer in {START_SECONDS:g} s: {_last_words(log)}",
        rule="the server answers before the questions are asked",
        do="look into the log of the stage, and run the same command again",
    )


def _last_words(log: Path) -> str:
    text = log.read_bytes()[-LAST_WORDS:].decode("utf-8", "replace")
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[-400:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends the server and what it has started: they are a group of their own."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, how)
        try:
            process.wait(STOP_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue
