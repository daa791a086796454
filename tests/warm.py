"""Processes of the tests that start warm: forked from one that has imported torch and the engine.

Those imports are nine tenths of a short job's work. All else is as where Python is started afresh:
each has its own id, session, signals, files and environment, and what it starts by `subprocess` as
`python -m` of this project is forked from it in the same way. Some tests start Python itself, so
that the commands stay proved: test_torchrun_job.py, test_launch_train.py, one of
test_runner_faults.py, and the smoke study.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import pickle
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1  # linux/prctl.h
WAIT_SECONDS = 0.01
PRELOADED = (
    *(f"frontload.megatron_ext.{name}" for name in ("loop", "datasets", "stages")),
    "frontload.launch.commands",
    "torch._dynamo",  # torch/_compile.py:47: else each rank imports it at its first optimizer
    "torch.distributed.run",
    "torch.distributed.elastic.rendezvous.dynamic_rendezvous",
)
RENDEZVOUS = "torch.distributed.elastic.rendezvous.dynamic_rendezvous"
SAME = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
"""What libraries read once: a process that asks for something else is started afresh."""


# ---------------------------------------------------------------- the side of the tests


class WarmProcess:
    """What the tests use of `subprocess.Popen`, of a process whose parent is the warm one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, once it has one."""
        if self.returncode is None:
            self.returncode = _ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 600.0) -> int:
        """Waits for the exit code."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(WAIT_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it still lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it."""
        self.send_signal(signal.SIGKILL)


def start(
    *words: str, out: Path, environment: Mapping[str, str] | None = None, errors: Path | None = None
) -> WarmProcess:
    """Starts `python -m WORDS`; its output goes to `out`, that of stderr to `errors` if given."""
    path = os.pathsep.join([str(ROOT / ".imports"), str(ROOT)])
    request = {
        "start": words,
        "environment": {**os.environ, "PYTHONPATH": path, **(environment or {}), **SAME},
        "folder": os.getcwd(),
        "out": str(out),
        "errors": str(errors or ""),
    }
    return WarmProcess(_ask(request))


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module says in a process of its own, which may start others.

    Raises: what the function raised; AssertionError with the process's output if it died.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = (function.__module__, function.__name__, arguments)
        (folder / "asked").write_bytes(pickle.dumps(asked))
        process = start("tests.warm", name, out=folder / "out")
        code = process.wait()
        said = (folder / "out").read_text(errors="replace")
        assert code == 0, f"exit {code}\n{said[-4000:]}"
        value, error = pickle.loads((folder / "value").read_bytes())
    if error is not None:
        raise error
    return value


def _answer_call(folder: Path) -> None:
    module, name, arguments = pickle.loads((folder / "asked").read_bytes())
    value, error = None, None
    try:
        value = getattr(importlib.import_module(module), name)(*arguments)
    except Exception as raised:
        traceback.print_exc()
        error = raised
    (folder / "value").write_bytes(pickle.dumps((value, error)))


@functools.cache
def _server() -> "subprocess.Popen[str]":
    path = os.pathsep.join([str(ROOT / ".imports"), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.warm"],
        env=os.environ | SAME | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    return process


def _ask(request: dict[str, Any]) -> Any:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


# ---------------------------------------------------------------- the warm process


def main() -> int:
    """Imports what ranks import, then answers until stdin ends; with a folder, answers its call."""
    if len(sys.argv) > 1:
        _answer_call(Path(sys.argv[1]))
        return 0
    from frontload.megatron_ext import cpu

    gc.disable()  # a tenth of what is imported now, or more
    cpu.prepare()
    for name in PRELOADED:
        importlib.import_module(name)
    gc.enable()
    subprocess.Popen._execute_child = _fork_or_execute  # type: ignore[attr-defined]
    sys.modules[RENDEZVOUS].get_method_name = _name_of_caller  # type: ignore[attr-defined]
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)
    return 0


def _answer(request: dict[str, Any]) -> int | None:
    if "poll" in request:
        pid, status = os.waitpid(request["poll"], os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def dress() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.chdir(request["folder"])
        out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        errors = request["errors"]
        errors = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if errors else out
        _put([os.open(os.devnull, os.O_RDONLY), out, errors], keep=())

    return _fork(["-m", *request["start"]], request["environment"], dress)


def _name_of_caller(depth: int = 2) -> str:
    """As the rendezvous has it, without `inspect.stack`, which asks each of the warm modules."""
    return sys._getframe(depth).f_code.co_name


def _put(files: Sequence[int], *, keep: Sequence[int]) -> None:
    """Makes files the standard ones, where one is given, and closes all others but `keep`."""
    copies = [os.dup(file) if file >= 0 else -1 for file in files]
    for number, copy in enumerate(copies):
        if copy >= 0:
            os.dup2(copy, number)
    kept = [2, *sorted(keep), os.sysconf("SC_OPEN_MAX")]
    for low, high in zip(kept, kept[1:], strict=False):
        os.closerange(low + 1, high)


def _fork_or_execute(self: Any, arguments: Any, *more: Any) -> None:
    """Stands for `Popen._execute_child`: Python of this project is forked, all else executed."""
    (executable, preexec, close, passed, folder, environment, _, _, shell) = more[:9]
    (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite) = more[9:15]
    is_session = more[20]
    known = {**os.environ} if environment is None else {**environment}
    words = _words_of(arguments, known)
    if words is None or executable or preexec or shell:
        _execute(self, arguments, *more)
        return

    def dress() -> None:
        if is_session:
            os.setsid()
        if folder is not None:
            os.chdir(folder)
        if close:
            _put([p2cread, c2pwrite, errwrite], keep=passed)

    self.pid = _fork(words, known, dress)
    self._child_created = True
    self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


_execute = subprocess.Popen._execute_child  # type: ignore[attr-defined]


def _words_of(arguments: Any, environment: Mapping[str, str]) -> list[str] | None:
    """What follows `python` in a command that can be forked."""
    if isinstance(arguments, (str, bytes, os.PathLike)):
        return None
    words = [os.fspath(word) for word in arguments]
    if words[0] != sys.executable:
        return None
    at = next((at for at, word in enumerate(words) if word == "-m"), len(words))
    is_known = {*words[1:at]} <= {"-u", "-W", "ignore"} and at + 1 < len(words)
    if not is_known or words[at + 1].partition(".")[0] not in ("frontload", "tests"):
        return None
    same = all(environment.get(name, value) == value for name, value in SAME.items())
    return words[at:] if same else None


def _fork(words: Sequence[str], environment: Mapping[str, str], dress: Callable[[], None]) -> int:
    """A child that runs `python WORDS`; returns when it has its session and its files."""
    sys.stdout.flush()
    sys.stderr.flush()
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        _dress(dress, told)
        _become(words, environment)
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    return pid


def _dress(dress: Callable[[], None], told: int) -> None:
    try:
        gc.freeze()  # files of the parent stay open objects: their numbers are others' now
        atexit._clear()
        dress()
        with contextlib.suppress(OSError):  # closed with all others
            os.close(told)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _become(words: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Runs a module as Python itself would, and ends the process."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [
        path for path in environment.get("PYTHONPATH", "").split(os.pathsep)
        if path and path not in sys.path
    ]  # fmt: skip
    code = 0
    try:
        warnings.simplefilter("ignore")
        sys.argv = list(words[1:])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    except SystemExit as asked:
        if isinstance(asked.code, str):
            print(asked.code, file=sys.stderr)
        code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
