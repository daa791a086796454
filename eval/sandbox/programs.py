"""A program and its tests, run in the sandbox: what it returned for each test, and how it ended."""

import inspect
import json
import marshal
from dataclasses import dataclass, replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

from frontload.eval.sandbox import inside
from frontload.eval.sandbox.isolation import LIMITS_ONLY, Isolation
from frontload.eval.sandbox.process import Ended, Ending, Limits, run_limited
from frontload.recipes.errors import StageError


@dataclass(frozen=True, kw_only=True)
class Program:
    """Code and what it is run on."""

    code: str
    entry: str | None  # the function that each test calls; None: each test is a standard input
    tests: tuple[Any, ...]  # the arguments of each call, or the text of each input


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a program answered to one test."""

    wire: Any = None  # the value as `inside.encode` wrote it, or the text of its standard output
    size: int = 0  # characters of the line that held it
    raised: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A program's run: the replies to the first tests, all of them where nothing went wrong."""

    replies: tuple[Reply, ...]
    loading: str | None  # the error that kept the program from being loaded
    ending: Ending
    exit_code: int
    cpu_seconds: float
    wall_seconds: float


def run_in_sandbox(program: Program, isolation: Isolation, *, limits: Limits) -> Ran:
    """Runs a program once on all of its tests.

    Raises: StageError when the sandbox itself does not start.
    """
    command = isolation.command(source_inside(), disk_bytes=limits.disk_bytes)
    given = marshal.dumps(_request(program, limits))
    # one line of the replies holds a whole output, and JSON may write a character as six
    most = replace(limits, output_bytes=8 * limits.output_bytes)
    if isolation.name == LIMITS_ONLY:
        with TemporaryDirectory(prefix="frontload-program-") as folder:
            ended = run_limited(command, given, limits=most, folder=folder)
    else:
        ended = run_limited(command, given, limits=most)
    return read_replies(ended, num_tests=len(program.tests))


@cache
def source_inside() -> str:
    """`inside` as the text that the sandbox is given: it sees no file of this environment.

    It is compiled here, by the same Python, once for all programs.
    """
    code = compile(inspect.getsource(inside), "inside.py", "exec", dont_inherit=True, optimize=2)
    return f"import marshal; exec(marshal.loads(bytes.fromhex('{marshal.dumps(code).hex()}')))"


def _request(program: Program, limits: Limits) -> dict[str, Any]:
    kept = {
        "memory_bytes": limits.memory_bytes,
        "process_cpu_seconds": limits.process_cpu_seconds or limits.cpu_seconds,
        "file_bytes": limits.file_bytes,
        "open_files": limits.open_files,
        "processes": limits.processes,
        "output_bytes": limits.output_bytes,
    }
    if program.entry is None:
        return {"kind": "inputs", "code": program.code, "inputs": program.tests, "limits": kept}
    return {
        "kind": "calls",
        "code": program.code,
        "entry": program.entry,
        "calls": [inside.encode(list(arguments)) for arguments in program.tests],
        "limits": kept,
    }


def read_replies(ended: Ended, *, num_tests: int) -> Ran:
    """The replies in order, up to the first that is missing; lines that are none are passed over.

    A program can write here what it likes. It cannot know what would be right.
    """
    here, ready, *lines = *ended.output.split(b"\n"), b""
    if _parsed(here) != {inside.HERE: True} or _parsed(ready) != {inside.READY: True}:
        told = ended.errors.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        raise StageError(
            "starting the sandbox for a program",
            found=f"it ended ({ended.ending}, exit code {ended.exit_code}): {told[-1][:200]}",
            rule="it has started before on this machine; the program was not yet loaded",
            do="look at the machine's memory, processes and load, and run the same command again",
        )
    loading: str | None = None
    replies: list[Reply] = []
    for line in lines:
        message = _parsed(line)
        if "loading" in message and not replies:
            loading = str(message["loading"])
            break
        if message.get("test") != len(replies) or len(replies) == num_tests:
            continue
        raised = message.get("raised")
        reply = Reply(
            wire=message.get("value"),
            size=len(line),
            raised=None if raised is None else str(raised),
        )
        replies.append(reply)
    return Ran(
        replies=tuple(replies),
        loading=loading,
        ending=ended.ending,
        exit_code=ended.exit_code,
        cpu_seconds=ended.cpu_seconds,
        wall_seconds=ended.wall_seconds,
    )


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
