"""Debian's Slurm unpacked into a folder: nothing is installed, and no root is needed.

Each checkout has a folder of its own, which git ignores. apt fetches the packages, from wherever
this machine has them.
"""

import fcntl
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".slurm"
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins")
DAEMON = "usr/sbin/slurmctld-wlm"
APT_SECONDS = 300.0


class UnavailableError(Exception):
    """Why there is no Slurm here, in one line."""


@dataclass(frozen=True, kw_only=True)
class Software:
    """Where the programs and plugins of Slurm lie."""

    root: Path

    @property
    def libraries(self) -> Path:
        return self.root / f"usr/lib/{platform.machine()}-linux-gnu"

    @property
    def plugins(self) -> Path:
        return self.libraries / "slurm-wlm"

    def daemon(self, name: str) -> str:
        """The path of slurmctld, slurmd or slurmstepd."""
        return str(self.root / f"usr/sbin/{name}-wlm")

    def variables(self, before: str) -> dict[str, str]:
        """PATH and LD_LIBRARY_PATH for the commands; `before` is the PATH so far."""
        return {
            "PATH": f"{self.root / 'usr/bin'}:{before}",
            "LD_LIBRARY_PATH": f"{self.libraries}:{self.plugins}",
        }


def unpack(folder: Path = FOLDER) -> Software:
    """Slurm's programs in `folder`; fetched and unpacked once, by one process at a time.

    Raises: UnavailableError where apt cannot fetch them.
    """
    root = folder / "root"
    if (root / DAEMON).is_file():
        return Software(root=root)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise UnavailableError("no apt-get and dpkg-deb on this machine to fetch Slurm with")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / DAEMON).is_file():
            _fetch(folder, root)
    return Software(root=root)


def _fetch(folder: Path, root: Path) -> None:
    """Unpacks into a folder aside, which gets its name once it is whole."""
    names = _missing()
    packages, aside = folder / "packages", folder / "root.partial"
    for path in (packages, aside):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    _apt(["download", *names], cwd=packages)
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(aside)], check=True)
    shutil.rmtree(packages)
    if not (aside / DAEMON).is_file():
        raise UnavailableError(f"the packages {', '.join(PACKAGES)} hold no {DAEMON}")
    aside.rename(root)


def _missing() -> list[str]:
    """The packages of Slurm, and what they need that this machine lacks: apt says which."""
    words = ["-s", "install", "--no-install-recommends", *PACKAGES]
    try:
        said = _apt(words)
    except UnavailableError:
        if os.geteuid() != 0:
            raise
        _apt(["update"])
        said = _apt(words)
    lacking = [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]
    return sorted({*PACKAGES, *lacking})


def _apt(words: Sequence[str], cwd: Path | None = None) -> str:
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=APT_SECONDS, cwd=cwd
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"`apt-get {words[0]}` took over {APT_SECONDS:g} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
        reason = lines[0].removeprefix("E: ") if lines else f"status {done.returncode}"
        raise UnavailableError(f"`apt-get {words[0]}` cannot fetch Slurm: {reason}")
    return done.stdout
