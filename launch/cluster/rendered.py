"""A training recipe rendered as a job: the script that is printed, and what runs it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from frontload.recipes.machines.placement import Placement


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A job, ready to be printed, given to sbatch or run here."""

    script: str  # for sbatch, or for the shell of this machine
    command: tuple[str, ...]  # what this machine runs; () for a job of a cluster
    environment: Mapping[str, str]  # of the command
    folder: Path  # of the run
    needs: tuple[Path, ...]  # what must be there before it starts
    flags: str  # the options that name what it needs


def local_script(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """A command of this machine, as a shell would take it."""
    lines = [f"export {name}={shlex.quote(text)}" for name, text in environment.items()]
    lines.append(" \\\n    ".join(shlex.quote(word) for word in command))
    return "\n".join(lines) + "\n"


def absolute(name: str) -> str:
    """A recipe or placement named by its path is found from any working folder."""
    return str(Path(name).resolve()) if name.endswith(".yaml") else name


def whole_path(path: Path, placement: Placement) -> Path:
    """A path that a job of a cluster finds from any folder; unchanged for this machine."""
    return path.absolute() if placement.slurm else path
