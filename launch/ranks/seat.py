"""Which rank this process is, and what of its environment belongs into a run's record."""

import os
import platform
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from frontload.launch.origins.machine_kind import FIELD, machine_kind
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.slurm_checks import SECRET

TOLD_PREFIXES = ("CUDA", "GLOO", "MASTER_", "NCCL", "NVTE", "OMP", "SLURM", "TORCH", "UCX")
PACKAGES = ("torch", "megatron-core", "transformer-engine", "mamba-ssm", "causal-conv1d", "numpy")


@dataclass(frozen=True, kw_only=True)
class Seat:
    """This process among the ranks of a run; alone, it is the only one."""

    rank: int = 0
    world: int = 1
    ranks_here: int = 1  # on this node
    restarts: int = 0  # how often torchrun started the ranks anew

    @property
    def is_leader(self) -> bool:
        """Rank 0 writes what one rank writes."""
        return self.rank == 0

    def place(self, placement: Placement) -> Placement:
        """The placement with the ranks that torchrun gave, whatever it asked for.

        So a job that comes back with fewer nodes goes on, with fewer copies of the model.
        """
        nodes = self.world // self.ranks_here
        return replace(placement, num_nodes=nodes, ranks_per_node=self.ranks_here)


def take_seat(environment: Mapping[str, str]) -> Seat:
    """The seat that torchrun, or another launcher with its variables, gives this process.

    Raises: RecipeError for some of the variables without the others.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    found = {name: environment[name] for name in names if name in environment}
    if not found:
        return Seat()
    if len(found) < len(names) or not all(text.isdigit() for text in found.values()):
        raise RecipeError(
            "the environment of train",
            found=", ".join(f"{name}={environment.get(name, '')}" for name in names),
            rule="ranks are started by torchrun, which sets all of them",
            do="start it with `frontload launch` or torchrun, or unset them to train alone",
        )
    rank, world, here = (int(found[name]) for name in names)
    restarts = int(environment.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return Seat(rank=rank, world=world, ranks_here=here, restarts=restarts)


def describe_start(seat: Seat, placement: Placement) -> dict[str, Any]:
    """What a later reader wants to know of one start: host, kind, versions, variables, layout."""
    if installed("torch"):
        import_module("torch")  # which this process computes with, and which chooses by the CPU
    told = {
        name: text
        for name, text in sorted(os.environ.items())
        if name.startswith(TOLD_PREFIXES) and not SECRET.search(name)
    }
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "command": sys.argv,
        FIELD: asdict(machine_kind()),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
        "ranks": seat.world,
        "nodes": placement.num_nodes,
        "restart": seat.restarts,
        "layout": {
            "tensor_parallel": placement.tensor_parallel,
            "pipeline_parallel": placement.pipeline_parallel,
            "context_parallel": placement.context_parallel,
            "sequence_parallel": placement.sequence_parallel,
            "distributed_optimizer": placement.distributed_optimizer,
        },
        "environment": told,
    }


def installed(package: str) -> str:
    """The version of an installed package, or an empty text."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
