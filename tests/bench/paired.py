"""Timings of variants of one thing, taken in turns so that a noisy machine hits all alike."""

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# for reference_model by its own name: veRL installs a package `tests`, which would hide ours
sys.path.append(str(Path(__file__).resolve().parents[1] / "parity"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: one thread a process

import torch

torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one call: CPU time of the process and wall time."""

    cpu: list[float]
    wall: list[float]

    @property
    def best(self) -> float:
        return min(self.cpu)


def measure(
    variants: dict[str, Callable[[], object]], *, rounds: int, calls: int = 1
) -> dict[str, Timing]:
    """Runs every variant `rounds` times in turns, after one turn that is not counted."""
    timings = {name: Timing(cpu=[], wall=[]) for name in variants}
    for turn in range(rounds + 1):
        for name, call in variants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(calls):
                call()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                timings[name].cpu.append(cpu / calls)
                timings[name].wall.append(wall / calls)
    return timings


def show(title: str, timings: dict[str, Timing], *, base: str, tokens: int | None = None) -> None:
    """Prints a table; `speed` is the base's best CPU time over the row's."""
    print(f"\n{title}")
    print(f"{'':44s} {'CPU ms: best':>12s} {'median':>8s} {'wall best':>10s}", end="")
    print(f" {'tokens/CPU s':>13s} {'speed':>7s}" if tokens else f" {'speed':>7s}")
    for name, timing in timings.items():
        row = f"{name:44s} {timing.best * 1e3:12.2f} {statistics.median(timing.cpu) * 1e3:8.2f} "
        row += f"{min(timing.wall) * 1e3:10.2f} "
        if tokens:
            row += f"{tokens / timing.best:13.0f} "
        print(f"{row}{timings[base].best / timing.best:7.3f}")
    print(flush=True)
