"""What parent and worker say to each other, and what every started process does first."""

import ctypes
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.launch.origins.machine_kind import UNKNOWN, MachineKind
from frontload.launch.store import Store, Ticket
from frontload.recipes.errors import FrontloadError
from frontload.recipes.machines.placement import Placement

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage to make, as sent to a worker."""

    ticket: Ticket
    function: str  # "module:name"
    recipe: Any
    inputs: Mapping[str, Path]
    placement: Placement
    store: Store


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A stage's word on its progress."""

    done: int
    total: int
    note: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The end of a job: how long it took, and the error if it failed."""

    cpu_seconds: float
    wall_seconds: float
    error: FrontloadError | None
    made_on: MachineKind = UNKNOWN
    uncounted_ranks: int = 0  # whose CPU seconds are not known


def load_function(name: str) -> Any:
    """The object behind "module:name"."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def die_with_parent() -> None:
    """Makes this process end when its parent does, however the parent ends."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
