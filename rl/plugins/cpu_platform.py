"""veRL on a machine without an accelerator: the platform `cpu`, and what stands in veRL's way.

veRL imports this module in every process (VERL_USE_EXTERNAL_MODULES) and builds the platform when
VERL_PLATFORM says `cpu`; only then is anything of veRL changed. Lines are of verl 0.9.1.
"""

import contextlib
import functools
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch._C._distributed_c10d import HashStore
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

from frontload.rl.plugins.lean_queue import use_lean_rows
from frontload.rl.plugins.lean_start import keep_what_is_there, prepare
from frontload.rl.plugins.log_probabilities import score_tokens_at_once

ROLLOUT = "frontload"
"""The name of our rollout in veRL's settings."""

_prepared = False


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """The CPU as veRL's accelerator: one device, nothing to wait for, gloo between processes."""

    def __init__(self) -> None:
        prepare_process()

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return cpu_device_module()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never found by itself, only named by VERL_PLATFORM

    def current_device(self) -> Any:
        return "cpu"  # transformer_impl.py:1552 writes `batch.to(get_device_id())`

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        pass  # torch.manual_seed, which veRL calls beside it, seeds the CPU

    def manual_seed_all(self, seed: int) -> None:
        pass

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:  # type: ignore[override]
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        # base.py:230 counts GPU and NPU only: Ray is told of a GPU that is only a number
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


@functools.cache
def cpu_device_module() -> types.ModuleType:
    """What veRL takes for `torch.cuda`: every question about memory is answered with zero."""
    module = types.ModuleType("torch.cpu_as_device")
    module.__dict__.update(
        is_available=lambda: False,
        device_count=lambda: 1,
        current_device=lambda: "cpu",
        set_device=lambda *_: None,
        synchronize=lambda *_: None,
        empty_cache=lambda: None,
        ipc_collect=lambda: None,
        manual_seed=lambda _: None,
        manual_seed_all=lambda _: None,
        mem_get_info=lambda *_: (0, 0),
        get_device_name=lambda *_: "CPU",
        get_rng_state=lambda *_: torch.get_rng_state(),
        set_rng_state=lambda state, *_: torch.set_rng_state(state),
        __getattr__=_device_attribute,
    )
    return module


def _device_attribute(name: str) -> Any:
    if "memory" in name:
        return lambda *_, **__: 0
    return getattr(torch.cpu, name)


def prepare_process() -> None:
    """Makes this process ready for veRL, once; its imports below ask for the platform again."""
    global _prepared
    if _prepared:
        return
    _prepared = True
    prepare()
    use_gloo_without_sockets()
    answer_for_the_master()
    register_rollout()


def register_rollout() -> None:
    """Enters the rollout under its name: what the actor holds, and what veRL counts as a server."""
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    _ROLLOUT_REGISTRY[(ROLLOUT, "async")] = "frontload.rl.plugins.rollout.ActorRollout"
    RolloutReplicaRegistry.register(ROLLOUT, _replica)


def _replica() -> type:
    from frontload.rl.plugins.rollout import ActorReplica

    return ActorReplica


def use_gloo_without_sockets() -> None:
    """utils/distributed.py:89: asks for "cpu:gloo,cpu:gloo", which torch refuses as a repetition.

    One process needs no meeting place either: with a store in memory nothing listens on a port.
    The name is looked up at the call, so torch's own is replaced, for this one request.
    """
    initialize = torch.distributed.init_process_group

    def initialize_once(backend: str | None = None, **options: Any) -> None:
        if backend != "cpu:gloo,cpu:gloo":
            initialize(backend, **options)
            return
        use_pageable_memory()  # the engine is imported by now, and built next
        score_tokens_at_once()
        use_lean_rows()
        keep_what_is_there()
        timeout = options.get("timeout")
        initialize("gloo", store=HashStore(), rank=0, world_size=1, timeout=timeout)

    torch.distributed.init_process_group = initialize_once


def answer_for_the_master() -> None:
    """single_controller/ray/base.py:523: starts a process, which imports all of veRL, to look for a
    free port. One process meets nobody there (see above), so no port is needed."""
    from verl.single_controller.ray import RayWorkerGroup

    def name_nobody(self: RayWorkerGroup, *_: Any, **__: Any) -> None:
        self._master_addr, self._master_port = "127.0.0.1", "0"

    RayWorkerGroup._get_master_addr_port = name_nobody


def use_pageable_memory() -> None:
    """transformer_impl.py:462: the reference model's policy pins memory, for which torch asks an
    accelerator; a CPU has nothing to copy to."""
    from torch.distributed.fsdp import CPUOffloadPolicy
    from verl.workers.engine.fsdp import transformer_impl

    def policy(pin_memory: bool = True) -> CPUOffloadPolicy:
        del pin_memory
        return CPUOffloadPolicy(pin_memory=False)

    transformer_impl.__dict__["CPUOffloadPolicy"] = policy
