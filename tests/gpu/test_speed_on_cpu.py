"""The measuring checks' own lines at tiny size on a CPU: figures are real, slices fit."""

from dataclasses import replace
from typing import Any

import pytest

from frontload.megatron_ext.model.layers import TorchHybridStack
from frontload.megatron_ext.model.stack import layer_specs
from frontload.megatron_ext.sizing.memory import GIB
from frontload.recipes.errors import StageError
from frontload.recipes.machines.cluster import TORCH, TRANSFORMER_ENGINE
from tests.gpu import products, speed, train
from tests.gpu.compare import load_model
from tests.gpu.findings import COULD_NOT_RUN, MEASURED, PASS, CouldNotRun
from tests.gpu.products import CEILING
from tests.gpu.proof import KERNELS, SCAN
from tests.gpu.rehearsal import JOB as TINY
from tests.gpu.rehearsal import STUDY
from tests.gpu.speed import Job

H200: dict[str, Any] = {"machine": {"packages": {}, "memory_bytes": 150e9, "device": "NVIDIA H200"}}


def test_gemm_ceiling() -> None:
    unknown = {"machine": {"packages": {}, "device": "a card nobody knows"}}
    (found,) = products.gemm_ceiling(unknown, [(64, 64, 64), (128, 64, 64)], rounds=3)
    assert found.result == MEASURED
    assert found.facts[CEILING] > 0
    (found,) = products.gemm_ceiling(H200, [(64, 64, 64)], rounds=3)
    assert found.result == "fail", "a CPU reaches no 60% of an H200"


def test_steps_of_the_engine() -> None:
    found = list(speed.slice_8b(H200 | {CEILING: 0.5}, TINY))
    assert [one.check for one in found] == [
        "8B slice, BF16: speed",
        "8B slice, BF16: MFU of the measured BF16 GEMM ceiling",
        "8B slice, BF16: MFU of the data sheet",
        "8B slice, BF16: where a step's time goes",
    ]
    assert {one.result for one in found} == {MEASURED}
    assert "6 layers, 0.00 B parameters, torch layers, 4 x 32 tokens a step" in found[0].figure
    top = found[3].figure.split("; ")
    shares = [float(one.rsplit(" ", 1)[1].rstrip("%")) for one in top]
    assert len(top) == 15
    assert shares == sorted(shares, reverse=True)
    found = list(speed.slice_8b(H200, TINY))
    assert found[1].result == COULD_NOT_RUN, "no ceiling was measured"


def test_kernels_beside_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = {"machine": {"packages": {}, "device": "a card nobody knows"}}
    (found,) = speed.kernels_and_torch(unknown, TINY)
    assert found.result == MEASURED
    assert "x the speed of torch layers (6 layers, torch)" in found.figure
    seen: list[str] = []
    rate, measured = speed.measure_job(TINY).rate, speed.Measured

    def measure(job: Job) -> Any:
        seen.append(job.kernels)
        seconds = 2.0 if job.kernels == "mamba_ssm" else 1.0
        return measured(rate=replace(rate, seconds=(seconds,)), peak_gib=0.0)

    monkeypatch.setattr(speed, "measure_job", measure)
    facts = {"machine": H200["machine"] | {"packages": dict.fromkeys(SCAN, "1")}}
    (found,) = speed.kernels_and_torch(facts, TINY)
    assert (found.result, seen) == ("fail", ["mamba_ssm", "torch"]), "kernels slower than torch"


def test_memory_is_compared_where_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = speed.estimated_gib(TINY)
    found = speed.measure_job(TINY)
    for share, result in ((1.1, PASS), (1.2, "fail")):
        other = replace(found, peak_gib=expected * share)
        monkeypatch.setattr(speed, "measure_job", lambda job, other=other, **_: other)
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
    assert len(layers) in (15, 16), "more say no more"
    cut = speed.fitting_slice(job, 79.6 * GIB)
    layers = cut.model.pattern
    assert job.model.pattern.startswith(layers)
    assert 8 <= len(layers) < 15
    assert speed.estimated_gib(cut) <= 0.9 * 79.6
    longer = replace(job, model=replace(job.model, pattern=job.model.pattern[: len(layers) + 3]))
    assert speed.estimated_gib(longer) > 0.9 * 79.6
    with pytest.raises(CouldNotRun, match="8 layers of 4096 do not fit"):
        speed.fitting_slice(job, 20 * GIB)


def test_kernels_are_used_only_where_all_are_there() -> None:
    for needs, expected in ((KERNELS, TRANSFORMER_ENGINE), (SCAN, "mamba_ssm"), (SCAN[1:], TORCH)):
        facts = {"machine": {"packages": dict.fromkeys(needs, "1")}}
        assert speed.best_kernels(facts) == expected


FAST = STUDY[:3]  # without 250 steps' worth of tokens


def test_the_study_trains_through_its_own_stages() -> None:
    (found,) = train.train_500(H200, "single_gpu_tiny", overrides=STUDY)
    assert found.result == PASS, found.figure
    assert found.check.startswith("250 steps of the study")
    assert "placement.kernels=torch" in found.figure


def test_a_study_that_learns_nothing_fails() -> None:
    slow = (*FAST, "pretraining.learning_rate=1.0e-9")
    (found,) = train.train_500(H200, "single_gpu_tiny", overrides=slow)
    assert found.result == "fail", found.figure
    nan = train.compare_losses([1.0, float("nan")], bound=2.0, words="")
    assert nan.result == "fail"


def test_a_stage_that_fails_is_told() -> None:
    wild = (*FAST, "pretraining.learning_rate=1.0e30")
    with pytest.raises(StageError, match="step 2"):
        list(train.train_500(H200, "single_gpu_tiny", overrides=wild))
