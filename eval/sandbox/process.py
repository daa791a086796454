"""One process group under limits kept from outside: wall time, sums over processes, output."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Ending = Literal["exited", "cpu", "wall", "memory", "output", "files"]
"""Ended by itself, or the limit for which it was killed."""

LOOK_SECONDS = 0.05  # between two looks at a running group; what grows in between is the overshoot
FIRST_LOOK_SECONDS = 0.2  # most programs have ended by then, and cost no look; ours
KERNEL_SECONDS = 1.0  # a process that dies this close to its limit of CPU time died of it; ours
CLOSE_SECONDS = 10.0  # for the kernel to end what was killed
ERRORS_BYTES = 4096  # of standard error that are kept
READY = "RD"  # states of proc(5): running or runnable, and waiting for the disk
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use, all its processes together where nothing else is said.

    wall_seconds = 0 stands for 2 * cpu_seconds + 10, so that one that only sleeps ends. Time in
    which a thread waits for a core is not counted: a busy machine delays a program and does not
    fail it.
    """

    cpu_seconds: int = 10
    process_cpu_seconds: int = 0  # of each process; 0 stands for cpu_seconds
    wall_seconds: float = 0.0
    memory_bytes: int = 1 << 30  # address space of each process, and resident memory of all
    processes: int = 16  # threads count
    files: int = 10_000  # in its folder
    disk_bytes: int = 64 << 20  # of its folder
    file_bytes: int = 32 << 20  # each
    open_files: int = 64  # of each process
    output_bytes: int = 16 << 20

    @property
    def seconds(self) -> float:
        """The wall time after which the group is killed, less what it waited for a core."""
        return self.wall_seconds or 2.0 * self.cpu_seconds + 10.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a group of processes ended and what it left."""

    ending: Ending
    exit_code: int  # minus the signal, as `subprocess` has it
    output: bytes
    errors: bytes  # the first of its standard error
    cpu_seconds: (
        float  # of the whole group, at the last look; 0 for one that ended before the first
    )
    wall_seconds: float


STATUS = "<status>"
"""Stands in a command for the descriptor on which bubblewrap names its first process."""


@dataclass
class _Group:
    """A started group and what has been read from it."""

    process: subprocess.Popen[bytes]
    status: int  # the read end of the pipe on which bubblewrap names its first process
    limits: Limits
    given: memoryview  # what is still to be written to its input
    began: float = field(default_factory=time.monotonic)
    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)
    cpu_seconds: float = 0.0  # at the last look
    waited_seconds: float = 0.0  # in which some thread was ready and had no core
    waits: dict[str, float] = field(default_factory=dict)  # of each thread, at the last look
    looked: float = field(default_factory=time.monotonic)  # when that was

    @property
    def deadline(self) -> float:
        """When the wall limit is over, by what is known of its waiting."""
        return self.began + self.limits.seconds + self.waited_seconds


def run_limited(
    command: Sequence[str], given: bytes, *, limits: Limits, folder: str = "/"
) -> Ended:
    """Runs a command in a folder with `given` as its input until it ends or passes a limit.

    The input is sent once the command has written something. By then bubblewrap has tied every
    process of the sandbox to this one's life; before, one that loses this one finds no input.
    The group is killed as a whole, and nothing of it is left when this returns or raises.
    """
    group = _start(command, given, limits=limits, folder=folder)
    process = group.process
    try:
        ending = _watch(group)
    finally:
        _kill(group)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
    used = max(group.cpu_seconds, usage.ru_utime + usage.ru_stime)
    killed_by_itself = process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    if ending == "exited" and killed_by_itself and used > limits.cpu_seconds - KERNEL_SECONDS:
        ending = "cpu"  # the kernel's own limit of one process came before a look
    return Ended(
        ending=ending,
        exit_code=process.returncode,
        output=bytes(group.output),
        errors=bytes(group.errors),
        cpu_seconds=used,
        wall_seconds=time.monotonic() - group.began,
    )


def _start(command: Sequence[str], given: bytes, *, limits: Limits, folder: str) -> _Group:
    status, status_end = os.pipe()
    try:
        process = subprocess.Popen(
            [str(status_end) if word == STATUS else word for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(status_end,),
            start_new_session=True,
            cwd=folder,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    except BaseException:
        os.close(status)
        raise
    finally:
        os.close(status_end)
    return _Group(process=process, status=status, limits=limits, given=memoryview(given))


def _watch(group: _Group) -> Ending:
    """Reads both streams until they close or a limit is passed; sends the input in between."""
    process, limits = group.process, group.limits
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {
        process.stdout.fileno(): (group.output, limits.output_bytes + 1),
        process.stderr.fileno(): (group.errors, ERRORS_BYTES),
    }
    poller = select.poll()
    for descriptor in kept:
        os.set_blocking(descriptor, False)
        poller.register(descriptor, select.POLLIN)
    sending, is_asked = process.stdin.fileno(), False
    next_look = group.began + FIRST_LOOK_SECONDS
    while kept:
        now = time.monotonic()
        if now >= group.deadline and _is_over(group):
            return "wall"
        if now >= next_look:
            passed = _passed_limit(group)
            if passed is not None:
                return passed
            next_look = time.monotonic() + LOOK_SECONDS
        until = min(next_look, max(group.deadline, now + LOOK_SECONDS))
        for descriptor, _ in poller.poll(1000 * max(0.0, until - now) + 1):
            if descriptor in kept and not _read(descriptor, kept[descriptor]):
                poller.unregister(descriptor)
                del kept[descriptor]
            elif descriptor == sending and not _write(group):
                poller.unregister(descriptor)
                process.stdin.close()
        if group.output and not is_asked:
            is_asked = True
            os.set_blocking(sending, False)
            poller.register(sending, select.POLLOUT)
        if len(group.output) > limits.output_bytes:
            return "output"
    return _wait(group)


def _wait(group: _Group) -> Ending:
    """Waits for a group that has closed its output: it may still run."""
    while os.waitid(os.P_PID, group.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= group.deadline and _is_over(group):
            return "wall"
        passed = _passed_limit(group)
        if passed is not None:
            return passed
        time.sleep(0.002)
    return "exited"


def _read(descriptor: int, into: tuple[bytearray, int]) -> bool:
    """Reads what is there and keeps the first bytes up to a number; False at the stream's end."""
    kept, most = into
    try:
        block = os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return True
    kept += block[: max(0, most - len(kept))]
    return bool(block)


def _write(group: _Group) -> bool:
    """Writes what the input takes; False when nothing is left to write."""
    assert group.process.stdin is not None
    try:
        group.given = group.given[os.write(group.process.stdin.fileno(), group.given) :]
    except BlockingIOError:
        return True
    except BrokenPipeError:
        group.given = group.given[:0]  # it has ended without reading
    return bool(group.given)


def _passed_limit(group: _Group) -> Ending | None:
    """The limit that a group has passed as a whole, by the kernel's own counts."""
    pid, limits = group.process.pid, group.limits
    _note_waiting(group)
    cpu_ticks = memory_pages = 0
    last = pid
    for member in _members(pid):
        counts = _counts(member)
        cpu_ticks += counts[0]
        memory_pages += counts[1]
        last = member
    group.cpu_seconds = max(group.cpu_seconds, cpu_ticks / TICKS)
    if group.cpu_seconds > limits.cpu_seconds:
        return "cpu"
    if memory_pages * PAGE_BYTES > limits.memory_bytes:
        return "memory"
    return "files" if _files_made(last) > limits.files else None


def _is_over(group: _Group) -> bool:
    """Whether the wall limit is over after a look at what the group waited.

    A wait is counted by the kernel when it ends. A thread that is ready now may be in one; it runs
    on, under the limit of CPU time.
    """
    _note_waiting(group)
    return time.monotonic() >= group.deadline and not _is_ready(group.process.pid)


def _is_ready(pid: int) -> bool:
    """Whether a thread of a group runs, waits for a core, or waits for the disk."""
    lines = (line for _, line in _thread_lines(pid, "stat"))
    return any(line.rpartition(")")[2].split()[0] in READY for line in lines)


def _thread_lines(pid: int, name: str) -> Iterator[tuple[str, str]]:
    """Every thread of a group with a file of the kernel about it; without one that has ended."""
    for member in _members(pid):
        folder = f"/proc/{member}/task"
        with suppress(OSError):
            threads = [Path(folder, one) for one in os.listdir(folder)]
            yield from [(one.name, (one / name).read_text()) for one in threads]


def _note_waiting(group: _Group) -> None:
    """Adds the time since the last look in which a thread was ready to run and had no core."""
    now, waits = time.monotonic(), _waits(group.process.pid)
    longest = max((one - group.waits.get(name, 0.0) for name, one in waits.items()), default=0.0)
    group.waited_seconds += max(0.0, min(longest, now - group.looked))
    group.waits, group.looked = waits, now


def _waits(pid: int) -> dict[str, float]:
    """Seconds that each thread of a group has waited for a core, by the kernel's count."""
    lines = _thread_lines(pid, "schedstat")
    return {thread: int(line.split()[1]) / 1e9 for thread, line in lines}


def _files_made(pid: int) -> int:
    """Files in the folder of a process that has a /tmp of its own; 0 for every other one."""
    folder = os.path.join("/proc", str(pid), "root", "tmp")
    try:
        if os.stat(folder).st_dev == os.stat("/tmp").st_dev:
            return 0
        room = os.statvfs(folder)
    except OSError:
        return 0  # it has just ended
    return room.f_files - room.f_ffree


def _members(pid: int) -> Iterator[int]:
    """A process and its descendants, children after their parents."""
    yield pid
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children = file.read().split()
            for child in children:
                yield from _members(int(child))
    except OSError:
        return  # it has ended


def _counts(pid: int) -> tuple[int, int]:
    """CPU ticks of a process and of its children that have ended, and its resident pages."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            words = file.read().rpartition(")")[2].split()
    except OSError:
        return 0, 0
    # proc(5): utime, stime, cutime, cstime are fields 14 to 17, rss is 24; the state is field 3
    return sum(map(int, words[11:15])), int(words[21])


def _kill(group: _Group) -> None:
    """Kills the group and every descendant that is seen, and waits until they are gone.

    What hides from both is in bubblewrap's process namespace: the kernel ends a namespace with its
    first process, and that process is gone only after all others in it.
    """
    pid = group.process.pid
    members = list(_members(pid))
    handles = [_handle(member) for member in [*members[1:], *_first_process(group)]]
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for member in members:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
    for handle in handles:
        if handle is not None:
            waiter = select.poll()
            waiter.register(handle, select.POLLIN)
            waiter.poll(1000 * CLOSE_SECONDS)
            os.close(handle)


def _first_process(group: _Group) -> list[int]:
    """The first process of bubblewrap's namespace, if bubblewrap came so far as to name it."""
    os.set_blocking(group.status, False)
    try:
        line = os.read(group.status, 4096).partition(b"\n")[0]
        return [json.loads(line)["child-pid"]]
    except (BlockingIOError, ValueError, KeyError):
        return []
    finally:
        os.close(group.status)


def _handle(pid: int) -> int | None:
    """A descriptor that is readable when the process is gone; None when it is gone already."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
