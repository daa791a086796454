"""Every use of a Megatron internal: what lets megatron-core 0.19.2 train without a CUDA device.

`prepare()` is the door to the engine; call it before the first import of `megatron.core`. Torch
itself stays as it is: named Megatron modules get a stand-in for `torch` whose device is the CPU.
Where there is a CUDA device only the version check, the in-process writer, the reader and, without
Apex and Transformer Engine, what torch's AdamW needs apply.
"""

import contextlib
import functools
import importlib
import queue
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from frontload.megatron_ext.checkpoints.table import COMMON, CheckpointReader, read_object
from frontload.recipes.errors import StageError

MEGATRON_VERSION = "0.19.2"

TORCH_USERS = (
    "distributed.param_and_grad_buffer",  # :632, :1180, :1186 buffers and streams
    "dist_checkpointing.strategies.filesystem_async",  # :248 synchronize after staging
    "dist_checkpointing.strategies.state_dict_saver",  # :252 failure flag
    "models.common.language_module.language_module",  # :307 tied embedding across stages
    "optimizer.clip_grads",  # :108, :180 norm and overflow buffers
    "optimizer.distrib_optimizer",  # :998, :1362 loading shards
    "optimizer.optimizer",  # :690, :1249 loss scale
    "pipeline_parallel.p2p_communication",  # :334, :342, :419 receive buffers
    "pipeline_parallel.schedules",  # :749, :1121, :2292 token counters
    "ssm.mamba_mixer",  # :326, :375, :410, :422 parameters
    "tensor_parallel.layers",  # :305, :647, :1000, :1041 parameters, gathered inputs
    "tensor_parallel.mappings",  # :95, :145, :185 gathers
    "tensor_parallel.random",  # :303, :490 seeds
    "utils",  # :715 global memory buffer
)
"""Modules below `megatron.core` that name the device themselves, with their lines."""

_FACTORIES = ("arange", "empty", "full", "ones", "rand", "tensor", "zeros")
_prepared = False


def prepare() -> None:
    """Imports megatron.core, checks its version and makes it run on this machine's device.

    Raises: StageError if another version of megatron-core is installed.
    """
    global _prepared
    if _prepared:
        return
    on_cuda = torch.cuda.is_available()
    with warnings.catch_warnings(), contextlib.nullcontext() if on_cuda else _no_compiler():
        warnings.simplefilter("ignore")  # "Transformer Engine and Apex are not installed", 4 times
        with _without("wandb"):  # timers.py:13: a writer of timings, unused here; 1.3 s of a core
            core = importlib.import_module("megatron.core")
        _check_version(core)
        _write_checkpoints_in_process()
        _read_checkpoints_without_running_them()
        if _core("optimizer").USING_PYTORCH_OPTIMIZER:  # neither Apex nor Transformer Engine
            _use_fused_adam()
            _mend_distributed_optimizer()
        if not on_cuda:
            _use_cpu_device()
            _use_cpu_random_state()
            _use_cpu_gradient_clipping()
            _skip_weight_shards()
            _build_as_on_cuda("optimizer.optimizer", "Float16OptimizerWithFloat16Params")
            _build_as_on_cuda("optimizer.distrib_optimizer", "DistributedOptimizer")
    _prepared = True


def _check_version(core: types.ModuleType) -> None:
    found = core.__version__.split("+")[0]
    if found != MEGATRON_VERSION:
        raise StageError(
            "the engine's megatron-core",
            found=f"version {found}",
            rule=f"its internals are used as of {MEGATRON_VERSION}",
            do=f"pip install megatron-core=={MEGATRON_VERSION}",
        )


def _core(name: str) -> types.ModuleType:
    return importlib.import_module(f"megatron.core.{name}")


@contextlib.contextmanager
def _no_compiler() -> Iterator[None]:
    """jit.py:29: decorators compile at import, which loads dynamo and inductor: 2 s for nothing."""
    compiler = torch.compile
    torch.compile = lambda function=None, **_: function if function else (lambda f: f)  # type: ignore
    try:
        yield
    finally:
        torch.compile = compiler


@contextlib.contextmanager
def _without(name: str) -> Iterator[None]:
    """Lets an optional package look absent to what is imported meanwhile, and to nothing else."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _use_cpu_device() -> None:
    stand_in = cpu_torch()
    for name in TORCH_USERS:
        module = _core(name)
        assert module.__dict__["torch"] is torch, f"{name} holds another torch"
        module.__dict__["torch"] = stand_in


@functools.cache
def cpu_torch() -> types.ModuleType:
    """A module that answers like torch, except that the current CUDA device is the CPU."""
    stand_in = types.ModuleType("torch")
    stand_in.__dict__.update(torch.__dict__)
    stand_in.__dict__["__getattr__"] = functools.partial(getattr, torch)
    for name in _FACTORIES:
        stand_in.__dict__[name] = _on_cpu(getattr(torch, name))
    cuda = types.ModuleType("torch.cuda")
    cuda.__dict__.update(torch.cuda.__dict__)
    cuda.__dict__.update(
        current_device=lambda: torch.device("cpu"),
        current_stream=_NoStream,
        empty_cache=lambda: None,
        get_rng_state=lambda *_: torch.get_rng_state(),
        manual_seed=torch.manual_seed,
        stream=lambda _: contextlib.nullcontext(),
        synchronize=lambda *_: None,
    )
    stand_in.__dict__["cuda"] = cuda
    return stand_in


class _NoStream:
    """param_and_grad_buffer.py:632: a CPU has one queue, so there is nothing to wait for."""

    def wait_stream(self, other: Any) -> None:
        del other

    def wait_event(self, event: Any) -> None:
        del event


def _on_cpu(factory: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def make(*args: Any, **options: Any) -> torch.Tensor:
        if options.get("device") == "cuda":
            options["device"] = "cpu"
        return factory(*args, **options)

    return make


def _use_cpu_random_state() -> None:
    """tensor_parallel/random.py:104, :135: recomputation replays the generator of the device."""
    random = _core("tensor_parallel.random")
    random.__dict__["_get_cuda_rng_state"] = lambda *_, **__: torch.get_rng_state()
    random.__dict__["_set_cuda_rng_state"] = lambda state, *_, **__: torch.set_rng_state(state)


def _use_cpu_gradient_clipping() -> None:
    """clip_grads.py:53, :138: norm and scale, there a loop over tensors and a CUDA type string."""

    def norm(grads: Any, norm_type: float = 2, grad_stats_parallel_group: Any = None) -> float:
        assert norm_type == 2
        tensors = [grads] if isinstance(grads, torch.Tensor) else list(grads)
        total = torch.nn.utils.get_total_norm(tensors, foreach=True).square()
        if grad_stats_parallel_group is not None and grad_stats_parallel_group.size() > 1:
            torch.distributed.all_reduce(total, group=grad_stats_parallel_group)
        return float(total) ** 0.5

    def clip(
        parameters: Any, max_norm: float, total_norm: float, use_decoupled_grad: bool = False
    ) -> None:
        assert not use_decoupled_grad
        if total_norm > max_norm:
            norm = torch.tensor(total_norm)
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm, foreach=True)

    for name in ("optimizer.optimizer", "optimizer.clip_grads"):
        module = _core(name)
        module.__dict__["get_grad_norm_fp32"] = norm
        module.__dict__["clip_grad_by_total_norm_fp32"] = clip


def _use_fused_adam() -> None:
    """optimizer/__init__.py:557: falls back to torch's AdamW in its slow, unfused form."""
    module = _core("optimizer")
    stand_in = types.ModuleType("torch")
    stand_in.__dict__.update(torch.__dict__)
    optim = types.ModuleType("torch.optim")
    optim.__dict__.update(torch.optim.__dict__)

    def adamw(*, capturable: bool, **options: Any) -> torch.optim.AdamW:
        assert not capturable
        return torch.optim.AdamW(fused=True, **options)

    optim.__dict__["AdamW"] = adamw
    stand_in.__dict__["optim"] = optim
    module.__dict__["torch"] = stand_in


def _skip_weight_shards() -> None:
    """tensor_parallel/layers.py:121: asks for a process group once a parameter and step.

    It looks for replicas of weights sharded by GTP, which this engine never switches on.
    """
    _core("tensor_parallel").__dict__["param_is_not_gtp_duplicate"] = lambda param: True


def _build_as_on_cuda(module: str, name: str) -> None:
    """optimizer.py:1009, :1028, distrib_optimizer.py:401, :466, :758: they know types by name."""
    cls = getattr(_core(module), name)
    build = cls.__init__

    def build_as_on_cuda(self: Any, *args: Any, **options: Any) -> None:
        with cuda_type_names():
            build(self, *args, **options)

    cls.__init__ = build_as_on_cuda


def _mend_distributed_optimizer() -> None:
    """distrib_optimizer.py with torch's AdamW: three defects that Apex and TE do not meet."""
    module = _core("optimizer.distrib_optimizer")
    cls = module.DistributedOptimizer
    state_dict = cls.state_dict
    set_states, load = cls._set_main_param_and_optimizer_states, cls.load_state_dict

    def state_dict_with_step(self: Any) -> Any:
        for group in self.optimizer.param_groups:  # :839 asserts a step before the first step
            for param in group["params"]:
                state = self.optimizer.state[param]
                # beside the parameter, where the fused form on a GPU looks for it
                state.setdefault("step", torch.zeros((), device=param.device))
                state.setdefault("exp_avg", torch.zeros_like(param))
                state.setdefault("exp_avg_sq", torch.zeros_like(param))
        return state_dict(self)

    def set_states_without_step(self: Any, model_param: Any, tensors: Any) -> None:
        set_states(self, model_param, {"step": None, **tensors})  # :1223 KeyError 'step'

    def load_with_own_steps(self: Any, state: Any) -> None:
        load(self, state)  # :1032 hands one step tensor to every parameter; Adam advances each
        for entry in self.optimizer.state.values():
            entry["step"] = entry["step"].clone()

    cls.state_dict = state_dict_with_step
    cls._set_main_param_and_optimizer_states = set_states_without_step
    cls.load_state_dict = load_with_own_steps


class cuda_type_names(torch.overrides.TorchFunctionMode):
    """While active, `tensor.type()` names the CUDA type."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.type and isinstance(result, str):
            return result.replace("torch.", "torch.cuda.", 1)
        return result


def _write_checkpoints_in_process() -> None:
    """filesystem_async.py:54: even a synchronous save starts a process for its result queue.

    Also :289: an error of the writer is turned into its class name; raised, its text survives.
    """
    module = _core("dist_checkpointing.strategies.filesystem_async")
    module.__dict__["get_write_results_queue"] = lambda mp_mode="spawn": queue.Queue()
    writer = module.FileSystemWriterAsync
    write = writer.write_preloaded_data

    def write_or_raise(*args: Any, **options: Any) -> Any:
        output = write(*args, **options)
        if output is not None and isinstance(output[1], Exception):
            raise output[1]
        return output

    writer.write_preloaded_data = staticmethod(write_or_raise)


def _read_checkpoints_without_running_them() -> None:
    """strategies/torch.py:902, serialization.py:230: torch's reader, which runs what a file says.

    Also serialization.py:225: common.pt of an old checkpoint, unless the environment forbids it.
    """
    serialization = _core("dist_checkpointing.serialization")
    for module in (_core("dist_checkpointing.strategies.torch"), serialization):
        module.__dict__["_get_filesystem_reader"] = lambda folder, **_: CheckpointReader(folder)
    serialization.__dict__["load_common"] = lambda folder: read_object(
        Path(folder) / COMMON, asked=f"checkpoint {folder}"
    )


def use_torch_mamba(gated_norm: type[torch.nn.Module]) -> None:
    """mamba_mixer.py:63: the mixer refuses to be built, and has no norm, without mamba-ssm."""
    module = _core("ssm.mamba_mixer")
    if module.HAVE_MAMBA_SSM:
        return
    module.__dict__.update(HAVE_MAMBA_SSM=True, ExtendedRMSNorm=gated_norm)


def has_gloo_groups() -> bool:
    """parallel_state.py:44: whether the groups of this process have gloo twins.

    The public get_data_parallel_group_gloo (:1810) asserts it instead of answering.
    """
    return _core("parallel_state")._DATA_PARALLEL_GROUP_GLOO is not None
