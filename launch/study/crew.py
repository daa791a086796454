"""The worker processes of a run: how many, and which GPU each one sees. Reads the environment."""

import os
from dataclasses import dataclass

from frontload.launch.origins.machine_kind import num_cores
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.placement import Placement

VISIBLE = "CUDA_VISIBLE_DEVICES"
NO_GPU = "-1"
"""What a worker without a GPU is told. Not the empty word: Ray counts that as fewer GPUs than the
one, of its own counting, that GRPO's processes on a CPU ask for."""

GPU_KINDS = ("pretrain", "sft", "evaluate", "own_samples", "set_loss", "benchmarks", "grpo")
"""Kinds that compute on a GPU where the placement names one; the others never need one."""


TORCHRUN_KINDS = ("pretrain", "sft")
"""Kinds whose ranks torchrun starts."""

RANKED = (*TORCHRUN_KINDS, "grpo")
"""Kinds that use every rank of their placement; the others are one process."""


@dataclass(frozen=True, kw_only=True)
class Crew:
    """The workers of a run."""

    workers: int  # without a GPU; they run every stage if `gpus` is empty
    gpus: tuple[str, ...] = ()  # one more worker each: the devices it sees


def count_workers(stated: int | None) -> int:
    """What `--workers` states; 0 where it was left out.

    Raises: RecipeError for a number below 1.
    """
    if stated is not None and stated < 1:
        raise RecipeError(
            "--workers",
            found=f"is {stated}",
            rule="--workers is 1 or more; the default is one per core",
            do="write 1 or more, or leave it out",
        )
    return stated or 0


def find_crew(placement: Placement, asked: int = 0) -> Crew:
    """The workers of a run on this machine; `asked` is the number without a GPU, 0 = not asked.

    A placement that names no GPU gets none, on any machine: its stages give a CPU's numbers.
    """
    if placement.gpus is None:
        share = placement.ranks_per_node * placement.threads_per_rank
        return Crew(workers=asked or placement.workers or max(1, num_cores() // share))
    gpus = share_gpus(visible_gpus(), placement)
    free = num_cores() - max(1, len(gpus))  # a GPU's worker keeps a core busy launching kernels
    return Crew(workers=asked or placement.workers or max(1, free), gpus=gpus)


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, in the words of CUDA_VISIBLE_DEVICES."""
    import torch  # two seconds, for runs that are placed on a GPU alone

    count = torch.cuda.device_count()
    named = [word.strip() for word in os.environ.get(VISIBLE, "").split(",") if word.strip()]
    return tuple(named[:count]) if named else tuple(map(str, range(count)))


def share_gpus(visible: tuple[str, ...], placement: Placement) -> tuple[str, ...]:
    """What each GPU worker sees: as many devices as a stage has ranks; no device in two groups.

    `stages_per_gpu` workers share a group. Devices that fill no group are left out.
    """
    size = placement.ranks_per_node
    groups = [visible[at : at + size] for at in range(0, len(visible) - size + 1, size)]
    return tuple(",".join(group) for group in groups) * placement.stages_per_gpu


def check_crew(placement: Placement, crew: Crew) -> None:
    """Refuses to run what is placed on GPUs that are not here.

    Raises: RecipeError naming the placement.
    """
    if placement.gpus is None or crew.gpus:
        return
    size = placement.ranks_per_node
    raise RecipeError(
        f"placement {placement.name}",
        found=f"places its stages on {size} {placement.gpus.kind}; this process sees "
        f"{len(visible_gpus())} CUDA devices",
        rule="a stage on a GPU runs where torch sees as many as it has ranks",
        do="run it on such a machine (`frontload doctor` says what this one has), or write "
        "placement=cpu to train on the CPU",
    )
