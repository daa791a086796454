"""Measures every rank of a job: GEMM, all-reduce by size, storage, clock; names the slow nodes."""

import json
import os
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from frontload.launch.doctor.finding import NOTE, OK, WRONG, Finding

MIB = 1 << 20
GEMM_WIDTH = {"cuda": 8_192, "cpu": 384}  # large enough to reach the rate, short enough to repeat
ALL_REDUCE_BYTES = {
    "cuda": (MIB, 16 * MIB, 256 * MIB, 1_024 * MIB),
    "cpu": (MIB // 16, MIB // 2, 4 * MIB),
}
STORAGE_BYTES = {"cuda": 1_024 * MIB, "cpu": 8 * MIB}
REPEATS = 5
MOST_CLOCK_SECONDS = 1.0  # ours: file times and logs of a run are compared across nodes


@dataclass(frozen=True, kw_only=True)
class NodeRates:
    """What one node reached. Its ranks' slowest GEMM, as the slowest decides."""

    node: str
    gemm_tflops: float
    write_mib: float  # a second, to the folder that the job uses
    read_mib: float
    clock_seconds: float  # ahead of rank 0


def judge(nodes: Sequence[NodeRates], *, least_share: float) -> list[Finding]:
    """A finding for each node and rate that is below `least_share` of the median of all nodes."""
    found: list[Finding] = []
    for name, unit, do in (
        ("gemm_tflops", "TFLOP/s in a matrix product", "drain it; look at clocks and temperature"),
        ("write_mib", "MiB/s written", "look at its mount of the shared file system"),
        ("read_mib", "MiB/s read", "look at its mount of the shared file system"),
    ):
        middle = statistics.median(getattr(one, name) for one in nodes)
        for one in nodes:
            rate = getattr(one, name)
            if rate < least_share * middle:
                told = f"{rate:.4g} {unit}, {rate / middle:.0%} of the median {middle:.4g}"
                found.append(Finding(name=one.node, state=WRONG, found=told, do=do))
    for one in nodes:
        if abs(one.clock_seconds) > MOST_CLOCK_SECONDS:
            told = f"its clock is {one.clock_seconds:+.1f} s from the first node's"
            found.append(Finding(name=one.node, state=NOTE, found=told, do="chronyc makestep"))
    return found


def measure(folder: Path, *, least_share: float) -> tuple[list[Finding], dict[str, Any]]:
    """Measures this job's ranks; rank 0 gets findings and figures, the others nothing.

    Every rank must have been started by torchrun or with its variables set.
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        device = torch.device("cuda", torch.cuda.current_device())
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    try:
        mine = {
            "node": _node_name(),
            "gemm_tflops": _gemm_tflops(device, GEMM_WIDTH[kind]),
            **_storage(folder, STORAGE_BYTES[kind]),
        }
        dist.barrier()
        mine["clock_seconds"] = time.time()
        ranks: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(ranks, mine)
        reduced = _all_reduce_rates(device, ALL_REDUCE_BYTES[kind])
        if dist.get_rank():
            return [], {}
    finally:
        dist.destroy_process_group()
    nodes = by_node(ranks)
    bad = judge(nodes, least_share=least_share)
    good = Finding(
        name="nodes",
        state=OK,
        found=f"{len(nodes)} nodes, {len(ranks)} ranks; {len({one.name for one in bad})} named",
    )
    figures = {"nodes": [asdict(one) for one in nodes], "all_reduce_gib_by_mib": reduced}
    return [good, *bad], figures


def by_node(ranks: Sequence[Mapping[str, Any]]) -> list[NodeRates]:
    """Rates of ranks, put together by node; the clock is told from the first rank's."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for one in ranks:
        grouped.setdefault(one["node"], []).append(one)
    return [
        NodeRates(
            node=node,
            gemm_tflops=min(one["gemm_tflops"] for one in ones),
            write_mib=min(one["write_mib"] for one in ones),
            read_mib=min(one["read_mib"] for one in ones),
            clock_seconds=ones[0]["clock_seconds"] - ranks[0]["clock_seconds"],
        )
        for node, ones in grouped.items()
    ]


def _node_name() -> str:
    """The host, with torchrun's or Slurm's number of it: names of hosts may repeat."""
    number = os.environ.get("GROUP_RANK") or os.environ.get("SLURM_NODEID") or "0"
    return f"{number}:{socket.gethostname()}"


def _gemm_tflops(device: torch.device, width: int) -> float:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn(width, width, dtype=dtype, device=device) for _ in range(2))
    seconds = _best(lambda: torch.mm(left, right), device)
    return 2.0 * width**3 / seconds / 1e12


def _all_reduce_rates(device: torch.device, sizes: Sequence[int]) -> dict[str, float]:
    """Size in MiB -> bus bandwidth in GiB/s: 2 (n - 1) / n of the bytes pass each rank's link."""
    world, found = dist.get_world_size(), {}
    for size in sizes:
        buffer = torch.zeros(size // 4, dtype=torch.float32, device=device)
        seconds = _best(lambda buffer=buffer: dist.all_reduce(buffer), device)
        found[f"{size / MIB:g}"] = 2 * (world - 1) / world * size / seconds / (1 << 30)
    return found


def _best(act: Callable[[], Any], device: torch.device) -> float:
    """The shortest of some runs, after one to warm up; never 0."""
    times = []
    for _ in range(REPEATS + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return max(min(times[1:]), 1e-9)


def _storage(folder: Path, size: int) -> dict[str, float]:
    """MiB a second that this rank writes, to the disk itself, and reads back."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".doctor-{socket.gethostname()}-{os.getpid()}"
    block = os.urandom(min(size, 8 * MIB))
    try:
        began = time.perf_counter()
        with open(path, "wb") as file:
            for _ in range(size // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        written = time.perf_counter() - began
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            while file.read(len(block)):
                pass
            read = time.perf_counter() - began
    finally:
        path.unlink(missing_ok=True)
    return {"write_mib": size / MIB / written, "read_mib": size / MIB / max(read, 1e-9)}


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """The figures as a table for a person."""
    lines = ["node  GEMM TFLOP/s  write MiB/s  read MiB/s  clock s"]
    for one in figures["nodes"]:
        lines.append(
            f"{one['node']}  {one['gemm_tflops']:.4g}  {one['write_mib']:.4g}"
            f"  {one['read_mib']:.4g}  {one['clock_seconds']:+.3f}"
        )
    rates = figures["all_reduce_gib_by_mib"].items()
    lines.append("all-reduce GiB/s by MiB: " + ", ".join(f"{a}: {b:.3g}" for a, b in rates))
    return lines


def as_text(figures: Mapping[str, Any]) -> str:
    """The figures for a program."""
    return json.dumps(figures, sort_keys=True)
