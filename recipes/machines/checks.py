"""What must hold in a placement, whoever names it: a study, a training recipe, or a command."""

from typing import Any

from frontload.recipes.grammar.limits import (
    require_all_at_least,
    require_at_least,
    require_at_most,
    require_choice,
    require_share,
)
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.cluster import KERNELS, Gpus
from frontload.recipes.machines.gpus import KINDS
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.slurm_checks import check_slurm
from frontload.recipes.machines.upkeep import Upkeep

COUNTS = ("num_nodes", "ranks_per_node", "threads_per_rank", "tensor_parallel")
COUNTS += ("pipeline_parallel", "context_parallel", "stages_per_gpu")
SIZES = ("workers", "micro_batch_sequences", "checkpoint_every_seconds")
RL_COUNTS = ("rollout_tensor_parallel", "rollout_sequences", "rollout_batched_tokens")
RL_COUNTS += ("agent_workers", "reward_workers", "checkpoints_kept", "ray_cpus")
LEAST_SPIKE_WINDOW = 8  # ours: a median of fewer losses says nothing
LEAST_PAUSE_SECONDS = 1.0  # it is a time limit of collectives too
MOST = {"threads_per_rank": 1_024, "stages_per_gpu": 64}  # ours: no machine is larger
MOST_PAUSE_SECONDS = 604_800.0  # ours, a week: a limit of collectives has no room for 1e30
SHARES = ("kernel_mfu", "link_share")
OPTIONAL_SHARES = ("fp8_mfu", "memory_share")  # 0 = not stated


def check_placement(loaded: Loaded[Any], placement: Placement, *, under: str = "") -> None:
    """Refuses numbers that no machine has.

    Whether a model divides by them is `megatron_ext.layout`. `under` is what stands before a
    field's name in `loaded`.

    Raises: RecipeError with the place, the value and the rule.
    """
    for knob in COUNTS:
        require_at_least(loaded, f"{under}{knob}", value=getattr(placement, knob), least=1)
    for knob in SIZES:
        require_at_least(loaded, f"{under}{knob}", value=getattr(placement, knob), least=0)
    for knob, most in MOST.items():
        require_at_most(loaded, f"{under}{knob}", value=getattr(placement, knob), most=most)
    require_choice(loaded, f"{under}kernels", value=placement.kernels, names=KERNELS)
    check_upkeep(loaded, placement.upkeep, under=f"{under}upkeep.")
    require_all_at_least(loaded, f"{under}rl", of=placement.rl, least=dict.fromkeys(RL_COUNTS, 1))
    require_at_least(loaded, f"{under}rl.hang_seconds", value=placement.rl.hang_seconds, least=0.0)
    if placement.rl.checkpoints_kept == 1:
        raise loaded.refuse(
            f"{under}rl.checkpoints_kept",
            found="is 1",
            rule="veRL removes the older checkpoint before it names the newer one: a kill between "
            "the two would leave none to go on from",
            do="write 2 or more",
        )
    path = f"{under}rl.rollout_memory_share"
    require_share(loaded, path, value=placement.rl.rollout_memory_share, is_needed=True)
    if placement.slurm is not None:
        check_slurm(loaded, placement.slurm, under=f"{under}slurm")
    if placement.gpus is not None:
        _check_gpus(loaded, placement.gpus, under=under)


def _check_gpus(loaded: Loaded[Any], gpus: Gpus, *, under: str) -> None:
    require_choice(loaded, f"{under}gpus.kind", value=gpus.kind, names=tuple(KINDS))
    for knob in SHARES:
        require_share(loaded, f"{under}gpus.{knob}", value=getattr(gpus, knob), is_needed=True)
    if not gpus.network_gbyte_per_second > 0.0:
        raise loaded.refuse(
            f"{under}gpus.network_gbyte_per_second",
            found=f"is {gpus.network_gbyte_per_second:g}",
            rule="a network carries more than nothing",
            do="write e.g. 50.0",
        )
    for knob in ("reserved_gib", "dollars_per_hour", *OPTIONAL_SHARES):
        require_at_least(loaded, f"{under}gpus.{knob}", value=getattr(gpus, knob), least=0)
    for knob in OPTIONAL_SHARES:
        require_at_most(loaded, f"{under}gpus.{knob}", value=getattr(gpus, knob), most=1)


def check_upkeep(loaded: Loaded[Any], upkeep: Upkeep, *, under: str) -> None:
    """Refuses an upkeep that no run can have.

    Raises: RecipeError with the place, the value and the rule.
    """
    for knob in ("checkpoint_every_steps", "keep_every_steps", "rank_log_every_steps"):
        require_at_least(loaded, f"{under}{knob}", value=getattr(upkeep, knob), least=0)
    require_at_least(loaded, f"{under}keep_last", value=upkeep.keep_last, least=1)
    require_at_least(loaded, f"{under}hang_seconds", value=upkeep.hang_seconds, least=0.0)
    least = max(LEAST_PAUSE_SECONDS, upkeep.hang_seconds)
    require_at_least(loaded, f"{under}pause_seconds", value=upkeep.pause_seconds, least=least)
    require_at_most(
        loaded, f"{under}pause_seconds", value=upkeep.pause_seconds, most=MOST_PAUSE_SECONDS
    )
    require_at_least(loaded, f"{under}spike_deviations", value=upkeep.spike_deviations, least=0)
    if upkeep.spike_window_steps == 0:
        return
    require_at_least(
        loaded,
        f"{under}spike_window_steps",
        value=upkeep.spike_window_steps,
        least=LEAST_SPIKE_WINDOW,
    )
    if upkeep.spike_deviations <= 0.0:
        raise loaded.refuse(
            f"{under}spike_deviations",
            found=f"is {upkeep.spike_deviations:g} with a window of {upkeep.spike_window_steps}",
            rule="a look-out for spikes says how far above the median one is",
            do="write e.g. 10.0, or spike_window_steps: 0",
        )
