"""The measuring checks' own lines at tiny size on a CPU: figures are real, slices fit."""

from dataclasses import replace
from typing import Any

import pytest

from frontload.megatron_ext.model.layers import TorchHybridStack
from frontload.megatron_ext.model.stack import layer_specs
from frontload.megatron_ext.sizing.memory import GIB
from frontload.recipes.errors import StageError
from frontload.recipes.machines.cluster import TORCH, TRANSFORMER_ENGINE
from tests.gpu import speed, train
from tests.gpu.compare import load_model
from tests.gpu.findings import COULD_NOT_RUN, MEASURED, PASS, CouldNotRun
from tests.gpu.proof import KERNELS
from tests.gpu.speed import Job

H200: dict[str, Any] = {"machine": {"packages": {}, "memory_bytes": 150e9, "device": "NVIDIA H200"}}
TINY = Job(model=load_model("hybrid_138k"), sequence_tokens=32, sequences=4, steps=2)


def test_gemm_ceiling() -> None:
    unknown = {"machine": {"packages": {}, "device": "a card nobody knows"}}
    (found,) = speed.gemm_ceiling(unknown, [(64, 64, 64), (128, 64, 64)], rounds=3)
    assert found.result == MEASURED
    assert found.facts[speed.CEILING] > 0
    (found,) = speed.gemm_ceiling(H200, [(64, 64, 64)], rounds=3)
    assert found.result == "fail", "a CPU reaches no 60% of an H200"


def test_steps_of_the_engine() -> None:
    facts = H200 | {speed.CEILING: 0.5}
    found = list(speed.step_1b(facts, TINY))
    assert [one.check for one in found] == [
        "1B, BF16: speed",
        "1B, BF16: MFU of the measured BF16 GEMM ceiling",
        "1B, BF16: MFU of the data sheet",
    ]
    assert {one.result for one in found} == {MEASURED}
    assert "6 layers, 0.00 B parameters, torch layers, 4 x 32 tokens a step" in found[0].figure
    found = list(speed.slice_8b(H200, TINY))
    assert found[1].result == COULD_NOT_RUN, "no ceiling was measured"


def test_memory_is_compared_where_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = speed.estimated_gib(TINY)
    rate, _ = speed.measure_job(TINY)
    for share, result in ((1.1, PASS), (1.2, "fail")):
        monkeypatch.setattr(speed, "measure_job", lambda job, s=share: (rate, expected * s))
        (*_, memory) = speed.step_findings(H200, TINY, check="x")
        assert (memory.check, memory.result) == ("x: peak memory", result)


def test_ours_beside_the_stock_layers() -> None:
    (found,) = speed.stock_spec(H200, TINY, spec=layer_specs(TINY.model))
    assert "x the speed of megatron-core's stock layers (6 layers)" in found.figure


def test_the_stock_specification_is_the_one_built(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(TorchHybridStack):
        pass

    seen: list[type] = []
    monkeypatch.setattr(speed, "take_steps", lambda engine, *_: seen.append(
        type(engine.module.decoder)) or [1.0])  # fmt: skip
    list(speed.stock_spec(H200, TINY, spec=replace(layer_specs(TINY.model), module=Other)))
    assert seen[:2] == [TorchHybridStack, Other]


def test_fp8_is_measured_beside_bf16() -> None:
    found = list(speed.fp8(H200, TINY, precisions=("bf16", "fp32")))
    assert [one.check for one in found] == ["FP8 bf16", "FP8 fp32"]
    assert all("6 layers of the 8B's width" in one.figure for one in found)


def test_a_slice_is_the_longest_that_fits() -> None:
    job = Job(model=load_model("hybrid_8b"), kernels=TRANSFORMER_ENGINE)
    memory = 140.4 * GIB  # an H200's
    cut = speed.fitting_slice(job, memory)
    layers = cut.model.pattern
    assert job.model.pattern.startswith(layers)
    assert 20 < len(layers) < 52
    assert speed.estimated_gib(cut) <= 0.9 * 140.4
    longer = replace(job, model=replace(job.model, pattern=job.model.pattern[: len(layers) + 3]))
    assert speed.estimated_gib(longer) > 0.9 * 140.4
    with pytest.raises(CouldNotRun, match="8 layers of 4096 do not fit"):
        speed.fitting_slice(job, 20 * GIB)


def test_kernels_are_used_only_where_all_are_there() -> None:
    packages = dict.fromkeys(KERNELS, "1")
    assert speed.best_kernels({"machine": {"packages": packages}}) == TRANSFORMER_ENGINE
    packages.popitem()
    assert speed.best_kernels({"machine": {"packages": packages}}) == TORCH


FAST = ("model.pattern=M*-", "pretraining.precision=fp32", "placement.workers=1")
LONGER = ("pretraining.tokens=128_000", "synthesis.base_tokens=130_000")  # 150 and 100 steps


def test_the_study_trains_through_its_own_stages() -> None:
    (found,) = train.train_500(H200, "single_gpu_tiny", (*FAST, *LONGER))
    assert found.result == PASS, found.figure
    assert found.check.startswith("250 steps of the study")
    assert "placement.kernels=torch" in found.figure


def test_a_study_that_learns_nothing_fails() -> None:
    slow = (*FAST, "pretraining.learning_rate=1.0e-9")
    (found,) = train.train_500(H200, "single_gpu_tiny", slow)
    assert found.result == "fail", found.figure
    nan = train.compare_losses([1.0, float("nan")], bound=2.0, words="")
    assert nan.result == "fail"


def test_a_stage_that_fails_is_told() -> None:
    wild = (*FAST, "pretraining.learning_rate=1.0e30")
    with pytest.raises(StageError, match="step 2"):
        list(train.train_500(H200, "single_gpu_tiny", wild))
