"""Each shim does what the line of Megatron that it stands for would do on a device."""

import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from frontload.megatron_ext import cpu
from frontload.recipes.errors import StageError

cpu.prepare()

from megatron.core import optimizer as core_optimizer  # noqa: E402
from megatron.core import parallel_state  # noqa: E402
from megatron.core.optimizer import clip_grads  # noqa: E402

from frontload.megatron_ext.ranks.parallelism import join_groups, leave_groups  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402


def gradients(scale: float) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for shape in ((7, 5), (3,), (2, 2, 2)):
        parameter = torch.nn.Parameter(torch.randn(shape, generator=generator))
        parameter.grad = torch.randn(shape, generator=generator) * scale
        found.append(parameter)
    return found


@pytest.mark.parametrize("scale", [0.001, 10.0])
def test_clipping_is_torchs(scale: float) -> None:
    ours, theirs = gradients(scale), gradients(scale)
    norm = clip_grads.get_grad_norm_fp32([p.grad for p in ours if p.grad is not None])
    clip_grads.clip_grad_by_total_norm_fp32(ours, 1.0, norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    assert norm == pytest.approx(float(expected), rel=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, other.grad, rtol=1e-6), "clipped otherwise"  # type: ignore[arg-type]


def test_fused_adam_is_adam() -> None:
    curves: list[list[torch.nn.Parameter]] = []
    for adam in (torch.optim.AdamW, core_optimizer.torch.optim.AdamW):  # type: ignore[attr-defined]
        parameters = gradients(1.0)
        options: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1}
        if adam is not torch.optim.AdamW:
            options["capturable"] = False
        made = adam(params=parameters, **options)
        for _ in range(5):
            made.step()
        curves.append(parameters)
    for plain, fused in zip(*curves, strict=True):
        assert torch.allclose(plain, fused, rtol=1e-6, atol=1e-6)


def test_stand_in_is_torch_on_the_cpu() -> None:
    stand_in: Any = cpu.cpu_torch()
    assert stand_in.zeros(2, device="cuda").device.type == "cpu"
    assert stand_in.empty(2, device=stand_in.cuda.current_device()).device.type == "cpu"
    assert stand_in.Tensor is torch.Tensor
    assert stand_in.nn is torch.nn
    if not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError)):
            torch.zeros(2, device="cuda")  # torch itself is untouched


def test_type_names_change_only_inside() -> None:
    tensor = torch.zeros(1)
    with cpu.cuda_type_names():
        assert tensor.type() == "torch.cuda.FloatTensor"
    assert tensor.type() == "torch.FloatTensor"


def test_another_megatron_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_prepared", False)
    monkeypatch.setattr(cpu, "MEGATRON_VERSION", "0.0.1")
    with pytest.raises(StageError, match=r"pip install megatron-core==0\.0\.1"):
        cpu.prepare()


def test_a_package_is_left_out_of_megatrons_import_and_of_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    found = importlib.util.find_spec("megatron.core.timers")
    assert found is not None and found.loader is not None  # noqa: PT018
    timers = importlib.util.module_from_spec(found)
    with cpu._without("wandb"):
        found.loader.exec_module(timers)
    assert timers.wandb is None  # :15, what it is where the package is not installed
    assert "wandb" not in sys.modules
    with cpu._without("json"):
        assert importlib.import_module("json"), "what is there already stays"


@pytest.mark.parametrize(("has_kernels", "is_mended"), [(False, True), (True, False)])
def test_torchs_adamw_is_mended_on_a_gpu_too_and_no_other(
    *, has_kernels: bool, is_mended: bool
) -> None:
    """A process that believes in a GPU; with Apex, whose Adam needs no mending, as a stand-in."""
    code = (
        "import sys, types, torch\n"
        "torch.cuda.is_available = lambda: True\n"
        f"if {has_kernels}:\n"
        "    for name in ('apex', 'apex.optimizers'):\n"
        "        sys.modules[name] = types.ModuleType(name)\n"
        "    sys.modules['apex.optimizers'].FusedAdam = torch.optim.Adam\n"
        "    sys.modules['apex.optimizers'].FusedSGD = torch.optim.SGD\n"
        "from frontload.megatron_ext import cpu\n"
        "cpu.prepare()\n"
        "from megatron.core import optimizer\n"
        "from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer as cut\n"
        "names = ('state_dict', '_set_main_param_and_optimizer_states', 'load_state_dict')\n"
        "print([getattr(cut, name).__module__ == cpu.__name__ for name in names])\n"
        "print(optimizer.torch is not torch)\n"
    )
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=here)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [str([is_mended] * 3), str(is_mended)]


@pytest.mark.parametrize("is_distributed", [False, True])
def test_gloo_groups_are_those_that_megatron_hands_out(is_distributed: bool) -> None:
    leave_groups()
    assert not cpu.has_gloo_groups()
    try:
        join_groups(Placement(distributed_optimizer=is_distributed))
        assert cpu.has_gloo_groups() == is_distributed
        if is_distributed:
            parallel_state.get_data_parallel_group_gloo()
        else:
            with pytest.raises(AssertionError, match="is not initialized"):
                parallel_state.get_data_parallel_group_gloo()
    finally:
        leave_groups()
