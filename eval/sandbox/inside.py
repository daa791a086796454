"""What runs inside the sandbox, started with `python -c`: strangers' code, under limits.

It imports the standard library only. It never sees what an answer should be: it is given a program
and arguments, and writes down what the program returns, as plain data that the other side compares.
So the worst that a program can do to this process is to return a value of its own choice, which
it may do anyway. `encode` and `decode` are the two ends of that wire.
"""

from __future__ import annotations

# Each program pays for what is imported here. `json` and `signal` import re, enum and functools,
# which is most of a start: their C halves come with the interpreter, whose version is fixed.
import _json
import _signal  # pyright: ignore[reportMissingImports]
import builtins
import marshal
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import IO, Any

STACK_BYTES = 128 << 20  # the kernel keeps this much free below the stack, whatever its limit was
PLAIN_TEXT = 1 << 16  # a longer text is sent as its digest: texts are compared for equality alone
PLAIN_BITS = 4096  # a longer whole number is written in hexadecimal, which is read in linear time
RAISED, OUT_OF_MEMORY = 85, 86  # exit codes of a program that reads its standard input; ours
MOST_PARTS = 5_000_000  # of a value that is sent: about 100 MB of JSON; ours
TOO_LARGE = "a value of too many parts"
TIME_LIMIT, MEMORY_ERROR = "time limit", "MemoryError"
HERE = "here"  # the key of the first line: the sandbox stands, and the request may be sent
READY = "ready"  # the key of the second line, which is written before the program is loaded


def encode(value: Any, *, digests: bool = False) -> Any:
    """A value as JSON can hold it, by its built-in type: what a subclass redefines is ignored.

    A value of no built-in type becomes the name of its type and its `repr`. With `digests` a long
    text becomes its digest.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        plain = int.__add__(value, 0)
        return plain if plain.bit_length() <= PLAIN_BITS else {"int": f"{plain:x}"}
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, str):
        text = str.__add__(value, "")
        return {"text": _digest(text)} if digests and len(text) > PLAIN_TEXT else text
    if isinstance(value, list):
        return [encode(one, digests=digests) for one in list.__iter__(value)]
    return _encode_tagged(value, digests=digests)


def _encode_tagged(value: Any, *, digests: bool) -> Any:
    if isinstance(value, tuple):
        return {"tuple": [encode(one, digests=digests) for one in tuple.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [encode([*pair], digests=digests) for pair in dict.items(value)]}
    if isinstance(value, frozenset):
        return {"frozenset": [encode(one, digests=digests) for one in frozenset.__iter__(value)]}
    if isinstance(value, set):
        return {"set": [encode(one, digests=digests) for one in set.__iter__(value)]}
    if isinstance(value, bytes):
        return {"bytes": bytes.hex(value)}
    if isinstance(value, complex):
        return {"complex": [complex.real.__get__(value), complex.imag.__get__(value)]}
    kind = type(value)
    if kind.__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return encode(value.item(), digests=digests)
    return {"object": [f"{kind.__module__}.{kind.__qualname__}", repr(value)]}


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def has_at_most(value: Any, num_parts: int) -> bool:
    """Whether a value holds no more than that many values, all levels counted."""
    waiting, seen = [value], 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            parts = [part for pair in dict.items(one) for part in pair]
        elif isinstance(one, (list, tuple, set, frozenset)):
            parts = one
        else:
            continue
        seen += len(parts)
        if seen > num_parts:
            return False
        waiting.extend(parts)
    return True


def decode(wire: Any) -> Any:
    """The value that `encode` was given; one of no built-in type, or a long text, as a tuple.

    Raises: ValueError for what `encode` does not write.
    """
    if isinstance(wire, list):
        return [decode(one) for one in wire]
    if not isinstance(wire, dict):
        return wire
    if len(wire) != 1:
        raise ValueError("a tagged value has one tag")
    ((tag, body),) = wire.items()
    if tag not in _READERS:
        raise ValueError(f"no tag {tag!r}")
    return _READERS[tag](body)


_READERS: dict[str, Callable[[Any], Any]] = {
    "text": lambda body: ("text", body),
    "int": lambda body: int(body, 16),
    "tuple": lambda body: tuple(map(decode, body)),
    "set": lambda body: set(map(decode, body)),
    "frozenset": lambda body: frozenset(map(decode, body)),
    "dict": lambda body: {decode(key): decode(one) for key, one in body},
    "bytes": bytes.fromhex,
    "complex": lambda body: complex(*body),
    "object": lambda body: ("object", *body),
}


def run_request(request: dict[str, Any], replies: IO[str]) -> None:
    """Sets the limits, then runs the program on every test; a line of JSON a reply."""
    set_limits(request["limits"])
    if not hasattr(builtins, "exit"):  # Python was started without `site`
        builtins.exit = builtins.quit = sys.exit
    write_line(replies, {READY: True})
    if request["kind"] == "calls":
        answer_calls(request, replies)
    else:
        answer_inputs(request, replies)


def set_limits(limits: dict[str, int]) -> None:
    """Hard limits of this process and of what it starts. Only processes in here are counted."""
    for name, value in (
        ("AS", limits["memory_bytes"]),
        ("CPU", limits["process_cpu_seconds"]),
        ("FSIZE", limits["file_bytes"]),
        ("NOFILE", limits["open_files"]),
        ("NPROC", limits["processes"]),
        ("CORE", 0),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    size = STACK_BYTES if hard == resource.RLIM_INFINITY else min(hard, STACK_BYTES)
    resource.setrlimit(resource.RLIMIT_STACK, (size, hard))


def write_line(replies: IO[str], message: dict[str, Any]) -> None:
    """Writes one message as `json.dumps` does."""
    replies.write("".join(_in_json(message, 0)) + "\n")
    replies.flush()


def _refuse(value: object) -> None:
    raise TypeError(f"{type(value).__name__} has no form in JSON")


_in_json: Callable[[dict[str, Any], int], tuple[str, ...]] = _json.make_encoder(
    None, _refuse, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True
)


def answer_calls(request: dict[str, Any], replies: IO[str]) -> None:
    """Loads the program as a module and calls its function on the arguments of each test."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    sys.stdin = open(0)  # noqa: SIM115
    module = type(sys)("answer")
    sys.modules["answer"] = module
    calls = [decode(call) for call in request["calls"]]
    try:
        exec(compile(request["code"], "answer.py", "exec"), module.__dict__)
        function = find_function(module, request["entry"])
    except BaseException as error:
        write_line(replies, {"loading": _named(error)})
        return
    for index, arguments in enumerate(calls):
        try:
            value = function(*arguments)
            fits = has_at_most(value, MOST_PARTS)
            reply = {"value": encode(value, digests=True)} if fits else {"raised": TOO_LARGE}
        except BaseException as error:
            reply = {"raised": _named(error)}
        write_line(replies, {"test": index, **reply})
        if "raised" in reply:
            return  # a program passes all tests or fails


def find_function(module: ModuleType, entry: str) -> Callable[..., Any]:
    """The function of that name, or the method of that name of the class `Solution`.

    Raises: LookupError when the program has neither.
    """
    solution = getattr(module, "Solution", None)
    if solution is not None and hasattr(solution, entry):
        return getattr(solution(), entry)
    if not hasattr(module, entry):
        raise LookupError(f"the program defines no {entry}")
    return getattr(module, entry)


def _named(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text[:200]}"


def answer_inputs(request: dict[str, Any], replies: IO[str]) -> None:
    """Runs the program once for each test, in a process of its own that reads the test's text."""
    try:
        code = compile(request["code"], "answer.py", "exec")
    except BaseException as error:
        write_line(replies, {"loading": _named(error)})
        return
    limit = request["limits"]["output_bytes"]
    # the kernel kills at the limit by its ticks, which differ from what it reports
    most_seconds = request["limits"]["process_cpu_seconds"] - 1
    for index, text in enumerate(request["inputs"]):
        given, written = os.memfd_create("input"), os.memfd_create("output")
        with open(given, "wb", closefd=False) as file:
            file.write(text.encode())
        os.lseek(given, 0, os.SEEK_SET)
        child = os.fork()
        if child == 0:
            _run_as_main(code, given=given, written=written)
        _, status, usage = os.wait4(child, 0)
        output = os.pread(written, limit, 0).decode("utf-8", "replace")
        os.close(given)
        os.close(written)
        spent = usage.ru_utime + usage.ru_stime
        reply = _ending(status)
        if os.WIFSIGNALED(status) and spent > most_seconds:
            reply = {"raised": TIME_LIMIT}
        write_line(replies, {"test": index, **(reply or {"value": output})})
        if reply:
            return


def _ending(status: int) -> dict[str, str]:
    if os.WIFSIGNALED(status):
        return {"raised": f"died of signal {os.WTERMSIG(status)}"}
    code = os.WEXITSTATUS(status)
    if code == OUT_OF_MEMORY:
        return {"raised": MEMORY_ERROR}
    return {"raised": f"ended with exit code {code}"} if code else {}


def _run_as_main(code: Any, *, given: int, written: int) -> None:
    os.dup2(given, 0)
    os.dup2(written, 1)
    os.closerange(3, 256)  # the replies among them: this program has its own output only
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    ending = 0
    try:
        exec(code, module.__dict__)
    except SystemExit:
        pass  # whatever the code: LiveCodeBench's own checker judges the output alone
    except MemoryError:
        ending = OUT_OF_MEMORY
    except BaseException:
        ending = RAISED
    try:
        sys.stdout.flush()
    except BaseException:
        ending = ending or RAISED
    os._exit(ending)


if __name__ == "__main__":
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_IGN)  # a file beyond its limit is an OSError
    wire = os.fdopen(os.dup(1), "w")
    write_line(wire, {HERE: True})
    # nothing comes, and this process ends, when the grader has died
    job = marshal.loads(sys.stdin.buffer.read())
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    run_request(job, wire)
    os._exit(0)  # a thread that the program left behind would keep this process
