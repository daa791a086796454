"""The environment of NeMo-Skills: made once from a lock file and a commit, never at run time.

It is apart because its packages (litellm, nemo-run, click < 8.2) do not stand beside ours.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from frontload.recipes.artifact import write_json
from frontload.recipes.errors import ArtifactError, RecipeError, StageError

FOLDER = Path(".nemo-skills")
REPOSITORY = "https://github.com/NVIDIA-NeMo/Skills.git"
TESTED_COMMIT = "8b18f3992854bcb668095228a146e214c567b370"  # 0.7.0, 2025-10-17
LOCK = Path(__file__).with_name("lock.txt")
STAMP, STARTED = "environment.json", "started"
PROOF = "import nemo_skills.inference.generate, nemo_skills.pipeline.eval"


@dataclass(frozen=True, kw_only=True)
class NemoEnvironment:
    """What an environment was made of; part of the protocol of every score that it gives."""

    commit: str
    source: str
    lock_sha256: str
    python: str  # its version


def lock_digest() -> str:
    """sha256 of the lock file."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def read_environment(folder: Path) -> NemoEnvironment | None:
    """What the folder's environment was made of; None if there is none.

    Raises: ArtifactError for one that was not finished, or is of another lock file.
    """
    stamp = folder / STAMP
    if not stamp.is_file():
        if (folder / STARTED).is_file():
            raise _stale(folder, "an environment that was begun and not finished")
        return None
    try:
        found = NemoEnvironment(**json.loads(stamp.read_text()))
    except (ValueError, TypeError) as error:
        raise _stale(folder, f"a {STAMP} that cannot be read ({error})") from error
    if found.lock_sha256 != lock_digest():
        raise _stale(folder, "the packages of another lock file")
    return found


def make_environment(
    folder: Path, *, source: str = REPOSITORY, commit: str = TESTED_COMMIT
) -> NemoEnvironment:
    """Makes the environment, or returns the one that is there and of the same parts.

    `source` is a clone on this machine, bare or not, or what `git clone` takes.

    Raises: RecipeError for a source without the commit, or a folder of something else; StageError
            when a command fails. The same call then begins again.
    """
    try:
        found = read_environment(folder)
    except ArtifactError:
        found = None
    if found is not None and found.commit == commit:
        return found
    _check_folder(folder)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        clone = _find_clone(source, scratch)
        whole = _find_commit(clone, commit, source=source)
        archive, tree = scratch / "tree.tar", scratch / "tree"
        _run(["git", "-C", str(clone), "archive", "--output", str(archive), whole])
        with tarfile.open(archive) as packed:
            packed.extractall(tree, filter="data")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / STARTED).touch()
        _run([sys.executable, "-m", "venv", str(folder / "venv")])
        _install(folder, ["-r", str(LOCK)])
        _install(folder, ["--no-build-isolation", str(tree)])
    _run([str(python_of(folder)), "-c", PROOF])
    made = NemoEnvironment(
        commit=whole,
        source=source,
        lock_sha256=lock_digest(),
        python=".".join(map(str, sys.version_info[:3])),
    )
    write_json(folder / STAMP, asdict(made))
    (folder / STARTED).unlink()
    return made


def python_of(folder: Path) -> Path:
    """The interpreter of the environment."""
    return folder.resolve() / "venv" / "bin" / "python"


def _check_folder(folder: Path) -> None:
    """A new folder, or one that this module made or began."""
    ours = (folder / STAMP).is_file() or (folder / STARTED).is_file()
    if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise RecipeError(
            f"eval environment nemo-skills --folder {folder}",
            found="something that is no environment of this command",
            rule="it makes a new folder, or makes its own one again",
            do="name another folder",
        )


def _find_clone(source: str, scratch: Path) -> Path:
    if Path(source).exists():
        return Path(source).resolve()
    clone = scratch / "clone"
    try:
        _run(["git", "clone", "--quiet", "--bare", source, str(clone)])
    except StageError as error:
        raise RecipeError(
            f"eval environment nemo-skills --from {source}",
            found=f"neither a folder here nor what git can clone ({error.found})",
            rule="NeMo-Skills comes from its own repository, by git",
            do="clone it where there is a network, and name the clone with --from",
        ) from error
    return clone


def _find_commit(clone: Path, commit: str, *, source: str) -> str:
    asked = ["git", "-C", str(clone), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return found.stdout.strip()
    raise RecipeError(
        f"eval environment nemo-skills --from {source}",
        found=f"no git repository with commit {commit[:12]}",
        rule="scores name the commit of the harness that gave them",
        do="fetch the commit there, or name another with --commit",
    )


def _install(folder: Path, what: Sequence[str]) -> None:
    """Installs exactly these packages: the lock file is whole, so nothing is resolved."""
    python = str(python_of(folder))
    if uv := shutil.which("uv"):
        _run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, *what])
    else:
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--no-deps", *what])


def _run(command: Sequence[str]) -> None:
    """Runs a command to its end.

    Raises: StageError with the last lines that it wrote.
    """
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).strip().splitlines()[-3:]
        raise StageError(
            f"eval environment nemo-skills: `{' '.join(command[:4])} ...`",
            found=f"it ended with {ended.returncode}: {' | '.join(lines)[-400:]}",
            rule="the environment is made whole or not at all",
            do="mend that, then run the same command again",
        )


def _stale(folder: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"NeMo-Skills in {folder}",
        found=found,
        rule="scores come from the packages that this version was tested with",
        do=f"run `frontload eval environment nemo-skills --folder {folder}` again",
    )
