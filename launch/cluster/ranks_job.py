"""A job whose ranks torchrun starts on every node: of `frontload train`, and of a study's stage."""

from collections.abc import Sequence
from pathlib import Path

from frontload.launch.cluster.rendered import CLI
from frontload.launch.cluster.slurm import ClusterJob, slurm_of
from frontload.launch.cluster.slurm_bodies import torchrun_body
from frontload.recipes.machines.placement import Placement

MAX_RESTARTS = 3  # of the ranks inside one job; ours


def ranks_job(
    words: Sequence[str], placement: Placement, *, name: str, folder: Path, disk: Path
) -> ClusterJob:
    """The job of a command line of `frontload` that every rank runs; `disk` is what it writes to.

    Raises: RecipeError for a placement without a `slurm` section.
    """
    gpus = placement.ranks_per_node if placement.gpus else 0
    checks = (*CLI, "doctor", "--brief", "--gpus", str(gpus), "--disk", str(disk))
    return ClusterJob(
        name=name,
        folder=folder,
        environment=ranks_environment(placement),
        body=torchrun_body(
            rank_command(words),
            checks,
            max_restarts=MAX_RESTARTS,
            max_failures=slurm_of(placement).max_failures,
        ),
    )


def rank_command(words: Sequence[str]) -> tuple[str, ...]:
    """What torchrun starts; it takes none of these words for its own flags."""
    return ("--module", "--", CLI[-1], *words)


def ranks_environment(placement: Placement) -> dict[str, str]:
    """What the libraries of a rank read when they are imported."""
    return stage_environment(placement) | {
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",  # Megatron: orders its kernels by it
    }


def stage_environment(placement: Placement) -> dict[str, str]:
    """The same of any process that makes a stage."""
    return {
        "OMP_NUM_THREADS": str(placement.threads_per_rank),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONHASHSEED": "0",
    }
