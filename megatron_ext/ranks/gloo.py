"""Gloo groups that share one device: a thread a process, not a thread a group."""

import contextlib
import functools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch.distributed.distributed_c10d as c10d
from torch._C._distributed_c10d import ProcessGroupGloo


@contextlib.contextmanager
def one_gloo_device() -> Iterator[None]:
    """Groups that are made meanwhile share this process's gloo device.

    Megatron makes about 40 groups, torch 2.13 gives each a device (distributed_c10d.py:2169), and
    each device has a thread that wakes 100 times a second: 6% of a core a rank while it only waits,
    0.2% with one. Not for several nodes, whose devices GLOO_SOCKET_IFNAME may name.
    """
    before = c10d.ProcessGroupGloo
    c10d.ProcessGroupGloo = _SharedGloo
    try:
        yield
    finally:
        c10d.ProcessGroupGloo = before


@functools.cache
def _device() -> Any:
    return ProcessGroupGloo.create_default_device()


class _SharedGloo(ProcessGroupGloo):
    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        gloo: Any = ProcessGroupGloo  # its stub leaves the options out
        options = gloo._Options()
        options._devices = [_device()]
        options._timeout = timeout
        super().__init__(store, rank, size, options)
