"""What `frontload --version` prints: what a report of a fault has to name."""

import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "megatron-core", "transformers", "verl")


def version_lines() -> list[str]:
    """Version and commit, Python, and the packages that decide what a model computes."""
    commit = find_commit()
    lines = [f"frontload {_installed('frontload')} ({commit or 'no git checkout'})"]
    lines.append(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    return lines + [f"{name} {_installed(name)}" for name in PACKAGES]


@cache
def find_commit() -> str:
    """The checkout's commit, with + for uncommitted changes; empty outside a checkout."""
    if shutil.which("git") is None:
        return ""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
        cwd=Path(__file__).resolve().parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() if found.returncode == 0 else ""


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
