"""A recipe rendered as a job: the script that is printed, what runs it, the run's folder."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.recipes.machines.placement import Placement
from frontload.recipes.stage import key_of, payload_of


@dataclass(frozen=True, kw_only=True)
class RenderedJob:
    """A job, ready to be printed, given to sbatch or run here."""

    script: str  # for sbatch, or for the shell of this machine
    command: tuple[str, ...]  # what this machine runs; () for a job of a cluster
    environment: Mapping[str, str]  # of the command
    folder: Path  # of the run
    needs: tuple[Path, ...]  # what must be there before it starts
    flags: str  # the options that name what it needs


CLI = ("python", "-m", "frontload.launch.cli")


def run_folder_name(name: str, kind: str, stages: Mapping[str, Any], needs: Sequence[Path]) -> str:
    """The name of a run's folder, where the user gives none.

    Its key is made of the stages and the paths that they read, which need not be there yet: a run
    of another recipe, model or data never goes on in this folder.
    """
    payloads = {stage: payload_of(kind, recipe, {}) for stage, recipe in stages.items()}
    return f"{name}-{key_of({'stages': payloads, 'inputs': [str(path) for path in needs]})}"


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
