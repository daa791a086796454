"""The kind of machine that a stage was made on: what else than its key decides its bytes.

A key promises the same bytes on one kind only: torch, its libraries and numpy's BLAS choose their
code by the CPU, and each choice sums in another order. Kept in the provenance, in no key.
"""

import json
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from frontload.launch.store import Store
from frontload.recipes.stage import Stage

FIELD = "made_on"  # of a provenance file
SHOWN_STAGES = 4


@dataclass(frozen=True, kw_only=True)
class MachineKind:
    """What chooses the code that computes. An empty word: not known."""

    cpu: str = ""  # its model
    instructions: str = ""  # the set that torch chose, where torch was loaded
    torch: str = ""
    blas: str = ""  # numpy's, with its version
    numpy: str = ""

    def __str__(self) -> str:
        """The kind in a line."""
        if self == UNKNOWN:
            return "unknown kind"
        torch = f"torch {self.torch}" if self.torch else ""
        numpy = f"numpy {self.numpy}" if self.numpy else ""
        parts = (self.cpu, self.instructions, torch, numpy, self.blas)
        return ", ".join(filter(None, parts))

    def agrees(self, other: "MachineKind") -> bool:
        """Whether nothing that both know differs."""
        mine, theirs = asdict(self), asdict(other)
        return all(not theirs[name] or value in ("", theirs[name]) for name, value in mine.items())


UNKNOWN = MachineKind()


def machine_kind() -> MachineKind:
    """The kind of this machine, as this process has it; torch is asked only if it is loaded."""
    torch: Any = sys.modules.get("torch")
    return MachineKind(
        cpu=_cpu_model(Path("/proc/cpuinfo")),
        instructions=torch.backends.cpu.get_cpu_capability() if torch else "",
        torch=_installed("torch"),
        blas=_blas(),
        numpy=_installed("numpy"),
    )


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model(file: Path) -> str:
    """The model as Linux names it, with its numbers: words alone are the same of many, or none."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    first = dict(re.findall(r"^([^\t:\n]+?)\s*: *(.*)$", text.partition("\n\n")[0], re.MULTILINE))
    named = " ".join(first.get("model name", "").split()) or platform.machine()
    x86 = [first.get(name, "") for name in ("cpu family", "model", "stepping")]
    arm = [first.get(f"CPU {name}", "") for name in ("implementer", "part", "variant", "revision")]
    numbers = "/".join(filter(None, x86 if any(x86) else arm))
    return f"{named} ({numbers})" if numbers else platform.processor() or named


def _blas() -> str:
    """The library that numpy multiplies with."""
    numpy: Any = import_module("numpy")
    found = numpy.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name', '')} {found.get('version', '')}".strip()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def read_machine(store: Store, folder: str) -> MachineKind:
    """The kind that made `<kind>/<label>-<key>`; of an older version's provenance, unknown."""
    path = store.root / "provenance" / f"{folder}.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))[FIELD]
        return MachineKind(**{one.name: str(told[one.name]) for one in fields(MachineKind)})
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN


def kinds_of(store: Store, stages: Iterable[Stage]) -> Mapping[MachineKind, Sequence[Stage]]:
    """The kinds that the built stages were made on, with their stages; most stages first.

    A stage that needed no torch counts with those that agree in all else.
    """
    found: dict[MachineKind, list[Stage]] = {}
    built = [stage for stage in stages if (store.root / stage.folder).is_dir()]
    made = [(read_machine(store, stage.folder), stage) for stage in built]
    for kind, stage in sorted(made, key=lambda one: not one[0].instructions):
        same = (one for one in found if UNKNOWN not in (one, kind) and one.agrees(kind))
        found.setdefault(next(same, kind), []).append(stage)
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))


def machine_lines(store: Store, stages: Iterable[Stage]) -> list[str]:
    """On which kind of machine the stages were made; of several, which stages on which."""
    found = kinds_of(store, stages)
    if len(found) < 2:
        return [f"made on {kind}" for kind in found]
    lines = [
        f"made on {len(found)} kinds of machine: a key promises the same bytes on one kind, "
        "so cells may differ by that too"
    ]
    for place, (kind, made) in enumerate(found.items()):
        counts = Counter(stage.kind for stage in made)
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        lines.append(f"  {len(made)} on {kind}: {told}")
        if place:  # the fewer ones are those to make again
            names = [stage.folder for stage in made[:SHOWN_STAGES]]
            more = len(made) - len(names)
            lines.append(f"      {', '.join(names)}" + (f" and {more} more" if more else ""))
    return lines
