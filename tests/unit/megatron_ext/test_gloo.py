"""One gloo device a process: fewer threads, the same groups."""

import contextlib
from pathlib import Path

import torch
import torch.distributed as dist

from frontload.megatron_ext.ranks.gloo import one_gloo_device
from tests.ranks import run_on_ranks

GROUPS = 12


def reduce_in_groups() -> list[int]:
    """Threads that groups cost, on one device and on a device each; every group reduces."""
    counts: list[int] = []
    for context in (one_gloo_device(), contextlib.nullcontext()):
        with context:
            if not dist.is_initialized():
                dist.init_process_group("gloo")
            before = threads()
            groups = [dist.new_group([0, 1]) for _ in range(GROUPS)]
        for number, group in enumerate(groups):
            tensor = torch.full((3,), float(dist.get_rank() + number))
            dist.all_reduce(tensor, group=group)
            assert tensor.tolist() == [2.0 * number + 1.0] * 3
        counts.append(threads() - before)
    dist.destroy_process_group()
    return counts


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_groups_share_a_device_and_reduce_as_before() -> None:
    for shared, each in run_on_ranks(__file__, "reduce_in_groups", 2):
        assert each - shared == GROUPS, "a thread less for each group"
