"""What an estimated time or price assumes, in words; printed wherever one is shown."""

from frontload.recipes.machines.cluster import Gpus
from frontload.recipes.machines.gpus import find_gpu
from frontload.recipes.machines.placement import Placement

GUESS = "a guess: placement.gpus.source names no run"
# Luciole-8B, OpenLLM-France/Luciole-Training: consumption.csv books 237,036.7 GPU-hours for the
# 5.1036e12 tokens of its model card; at the 6,489 tokens/s per GPU of its log they take 218,474
LEFT_OUT_SHARE = 237_036.7 / (5.103_612e12 / 6_489 / 3_600) - 1
LEFT_OUT = (
    "hours leave out saves, restarts, queueing and loading of data: the whole training of "
    f"Luciole-8B took {LEFT_OUT_SHARE:.0%} more GPU-hours than its steps"
)


def overlap_text(placement: Placement) -> str:
    """Which communication is taken to run beside computation."""
    if placement.overlap_communication:
        return "replicas exchange beside the last backward and the first forward pass (a guess)"
    return "no communication is overlapped (placement.overlap_communication)"


def rates_text(gpus: Gpus) -> str:
    """The rates behind the seconds that a GPU computes, and where they come from."""
    kind = find_gpu(gpus.kind)
    rates = [f"{gpus.kernel_mfu:.0%} of {kind.bf16_tflops:,.0f} TFLOP/s in bf16"]
    if kind.fp8_tflops:
        share = gpus.fp8_mfu or gpus.kernel_mfu
        rates.append(f"{share:.0%} of {kind.fp8_tflops:,.0f} in FP8")
    if gpus.memory_share:
        memory = kind.memory_gbyte_per_second
        rates.append(f"Mamba's scan at {gpus.memory_share:.0%} of {memory:,.0f} GB/s")
    return f"{gpus.kind} computes at " + ", ".join(rates) + f" ({gpus.source or GUESS})"


def time_assumptions(placement: Placement) -> list[str]:
    """What the seconds of a step assume, and what hours leave out; none without GPUs."""
    gpus = placement.gpus
    if gpus is None:
        return []
    kind = find_gpu(gpus.kind)
    within = f"{kind.link_gbyte_per_second:,.0f} GB/s within a node"
    between = f"{gpus.network_gbyte_per_second:g} GB/s per GPU between nodes"
    return [
        rates_text(gpus),
        f"links carry {gpus.link_share:.0%} of {within} and of {between} (a guess)",
        overlap_text(placement),
        LEFT_OUT,
    ]


def price_text(gpu_hours: float, gpus: Gpus) -> str:
    """Dollars with the rate that they assume; empty where the placement states none."""
    if not gpus.dollars_per_hour:
        return ""
    dollars = gpu_hours * gpus.dollars_per_hour
    return f"{dollars:,.0f} dollars at {gpus.dollars_per_hour:g} per GPU-hour"
