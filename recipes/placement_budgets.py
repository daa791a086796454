"""What must hold in a placement, whoever names it: a study, a training recipe, or a command."""

from typing import Any

from frontload.recipes.gpus import KINDS
from frontload.recipes.load import Loaded, nearest
from frontload.recipes.placement import Placement

COUNTS = ("num_nodes", "ranks_per_node", "threads_per_rank", "tensor_parallel")
COUNTS += ("pipeline_parallel", "context_parallel", "stages_per_gpu")
SIZES = ("workers", "micro_batch_sequences", "checkpoint_every_seconds")
SHARES = ("kernel_mfu", "link_share")


def check_placement(loaded: Loaded[Any], placement: Placement, *, under: str = "") -> None:
    """Refuses numbers that no machine has.

    Whether a model divides by them is `megatron_ext.layout`. `under` is what stands before a
    field's name in `loaded`.

    Raises: RecipeError with the place, the value and the rule.
    """
    for knob in COUNTS:
        at_least(loaded, f"{under}{knob}", value=getattr(placement, knob), least=1)
    for knob in SIZES:
        at_least(loaded, f"{under}{knob}", value=getattr(placement, knob), least=0)
    gpus = placement.gpus
    if gpus is None:
        return
    if gpus.kind not in KINDS:
        raise loaded.refuse(
            f"{under}gpus.kind",
            found=f"is '{gpus.kind}'",
            rule="it must be one of " + ", ".join(KINDS),
            do=nearest(gpus.kind, tuple(KINDS)),
        )
    for knob in SHARES:
        share = getattr(gpus, knob)
        if not 0.0 < share <= 1.0:
            raise loaded.refuse(
                f"{under}gpus.{knob}",
                found=f"is {share:g}",
                rule="a share of a rate that is reached lies above 0 and at most at 1",
                do="write e.g. 0.45",
            )
    if not gpus.network_gbyte_per_second > 0.0:
        raise loaded.refuse(
            f"{under}gpus.network_gbyte_per_second",
            found=f"is {gpus.network_gbyte_per_second:g}",
            rule="a network carries more than nothing",
            do="write e.g. 50.0",
        )
    for knob in ("reserved_gib", "dollars_per_hour"):
        at_least(loaded, f"{under}gpus.{knob}", value=getattr(gpus, knob), least=0)


def at_least(loaded: Loaded[Any], path: str, *, value: float, least: int) -> None:
    """Refuses a number below `least`, naming its place."""
    if value < least:
        raise loaded.refuse(
            path, found=f"is {value:g}", rule=f"it is {least} or more", do="change it"
        )
