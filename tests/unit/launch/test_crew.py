"""How many workers a run has and which GPUs they see, on devices that the test makes up."""

import os

import pytest
import torch

from frontload.launch.study import crew
from frontload.launch.study.crew import (
    Crew,
    check_crew,
    count_workers,
    find_crew,
    share_gpus,
    visible_gpus,
)
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.cluster import Gpus
from frontload.recipes.machines.placement import Placement

H100 = Gpus(kind="h100_sxm", kernel_mfu=0.06)
ONE_GPU = Placement(name="one_gpu", gpus=H100, threads_per_rank=8)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(crew, "num_cores", lambda: 16)


@pytest.mark.usefixtures("four_gpus")
def test_a_placement_without_gpus_gets_none_on_any_machine() -> None:
    assert find_crew(Placement()) == Crew(workers=16)
    assert find_crew(Placement(threads_per_rank=4, ranks_per_node=2)) == Crew(workers=2)
    assert find_crew(Placement(workers=5)) == Crew(workers=5)
    assert find_crew(Placement(workers=5), asked=3) == Crew(workers=3)


@pytest.mark.parametrize("stated", [0, -1])
def test_no_worker_at_all_is_refused(stated: int) -> None:
    with pytest.raises(RecipeError) as caught:
        count_workers(stated)
    assert caught.value.found == f"is {stated}"
    assert (count_workers(3), count_workers(None)) == (3, 0)


@pytest.mark.usefixtures("four_gpus")
def test_every_visible_gpu_has_a_worker_and_the_other_cores_make_data() -> None:
    assert find_crew(ONE_GPU) == Crew(workers=12, gpus=("0", "1", "2", "3"))
    assert find_crew(ONE_GPU, asked=2).workers == 2


@pytest.mark.usefixtures("four_gpus")
def test_the_variable_names_the_gpus_that_a_run_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa, GPU-bb")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ("GPU-aa", "GPU-bb")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert find_crew(ONE_GPU).gpus == ("3",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert visible_gpus() == ()


def test_groups_are_as_large_as_a_stage_and_share_no_device() -> None:
    pair = Placement(gpus=H100, ranks_per_node=2)
    assert share_gpus(("0", "1", "2", "3", "4"), pair) == ("0,1", "2,3")
    assert share_gpus(("0",), pair) == ()
    shared = Placement(gpus=H100, stages_per_gpu=3)
    assert share_gpus(("0", "1"), shared) == ("0", "1", "0", "1", "0", "1")


def test_a_run_on_gpus_that_are_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RecipeError) as caught:
        check_crew(Placement(name="two", gpus=H100, ranks_per_node=2), Crew(workers=1))
    assert "placement two" in str(caught.value)
    assert "2 h100_sxm; this process sees 1 CUDA device" in str(caught.value)
    assert "placement=cpu" in caught.value.do
    check_crew(Placement(), Crew(workers=1))
    check_crew(ONE_GPU, Crew(workers=1, gpus=("0",)))


def test_what_hides_the_gpus_hides_them_from_torch_and_not_from_rays_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where Ray reads that there is no device, it refuses to count the one that GRPO asks for."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", crew.NO_GPU)
    from torch.cuda import _parse_visible_devices

    assert _parse_visible_devices() == []
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager as Rays

    assert len(Rays.get_current_process_visible_accelerator_ids() or ()) == 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
