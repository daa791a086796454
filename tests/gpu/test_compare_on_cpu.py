"""The checks' own lines at tiny size, CPU against CPU: they pass, and what is wrong fails them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from frontload.recipes.machines.cluster import TORCH
from tests.gpu import compare, mixers, phases, products
from tests.gpu.findings import FAIL, MEASURED, PASS, Finding
from tests.gpu.mixers import torch_conv, torch_scan
from tests.gpu.rehearsal import SHORT, TINY, rounded_scan

BARE: dict[str, Any] = {"machine": {"packages": {}, "memory_bytes": 0, "device": ""}}


def results(findings: list[Finding]) -> dict[str, str]:
    return {one.check: one.result for one in findings}


def test_cpu_and_cuda() -> None:
    found = list(compare.cpu_and_cuda(BARE, TINY, ask=compare.answer))
    assert len(found) == 6
    assert set(results(found).values()) == {PASS}


def test_another_weight_on_one_device_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*words: str) -> None:
        compare.answer(*words)
        for path in Path(words[1]).glob("*.pt"):
            outcome = torch.load(path)
            outcome["logits"] = outcome["logits"] * (1 + 3e-4)
            torch.save(outcome, path)

    found = results(list(compare.cpu_and_cuda(BARE, TINY, ask=ask)))
    assert found["fp32 logits, CPU and CUDA"] == FAIL
    assert found["fp32 loss, CPU and CUDA"] == PASS


def test_packed_rows() -> None:
    found = [*compare.packed_rows(BARE, TINY), *mixers.kernel_rows(BARE, TINY, kernels=TORCH)]
    assert len(found) == 7
    assert set(results(found).values()) == {PASS}


def test_a_leak_fails_packed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "document_resets", lambda ids: None)
    findings = [*compare.packed_rows(BARE, TINY), *mixers.kernel_rows(BARE, TINY, kernels=TORCH)]
    found = results(findings)
    for layers in ("torch layers", "torch in bf16"):
        for part in ("logits", "loss", "gradients"):
            assert found[f"packed and separate, {layers}: {part}"] == FAIL, (layers, part)


def test_scan_kernels() -> None:
    found = list(mixers.scan_kernels({}, SHORT, scan=rounded_scan, conv=torch_conv))
    assert [one.result for one in found] == [MEASURED, *[PASS] * 8]
    found = list(mixers.scan_exact({}, SHORT, scan=torch_scan))
    assert [one.result for one in found] == [PASS, PASS]


def test_a_kernel_that_sees_no_documents_fails() -> None:
    found = mixers.scan_kernels(
        {},
        SHORT,
        scan=lambda inputs, ids, chunk: rounded_scan(inputs, torch.zeros_like(ids), chunk),
        conv=lambda *tensors: torch_conv(*tensors[:3], torch.zeros_like(tensors[3])),
    )
    told = results(list(found))
    for name in ("scan in float32", "scan in bfloat16", "convolution in float32, causal-conv1d"):
        assert {told[one] for one in told if one.startswith(name)} == {FAIL}, name


def test_heads_whose_gradient_is_noise_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was of our own scan: the right size beside the other heads', the wrong sign."""
    run = mixers.run_scan

    def noisy(scan: Any, tensors: Any, ids: Any, chunk: int) -> Any:
        found = run(scan, tensors, ids, chunk)
        if tensors[0].dtype is torch.float32:
            found["3"] = found["3"] + 1e-6 * found["3"].abs().max()
        return found

    monkeypatch.setattr(mixers, "run_scan", noisy)
    found = results(list(mixers.scan_kernels({}, SHORT, scan=rounded_scan, conv=torch_conv)))
    assert found["gradient of A of heads that forget, mamba-ssm"] == FAIL
    assert found["scan in float32: gradients"] == PASS


def test_kernel_layers() -> None:
    assert results(list(mixers.kernel_layers({}, TINY, kernels=TORCH))) == {
        "torch and torch layers in bf16: logits": PASS,
        "torch and torch layers in bf16: loss": PASS,
        "torch and torch layers in bf16: gradients": PASS,
    }


def test_bf16_weights_are_those_that_train() -> None:
    """Megatron's Float16Module casts A_log, D and dt_bias too."""
    module = compare.build(TINY.recipe, precision="bf16")
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


def test_masters_that_are_lost_at_a_phase_border_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = phases.phases({})
    assert (found.result, found.figure) == (PASS, "0.00e+00")
    train = phases.train_phases

    def other(*words: Any) -> Any:
        whole, trunk, branch = train(*words)
        branch[1][1]["train__loss"] += 8e-4
        return whole, trunk, branch

    monkeypatch.setattr(phases, "train_phases", other)
    (found,) = phases.phases({})
    assert found.result == FAIL


def test_products_in_fp8_are_the_emulated_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"model": "hybrid_138k", "tokens": 32, "rounds": 1}
    found = list(products.fp8_products(BARE, **arguments))
    assert [one.result for one in found] == [MEASURED, MEASURED, PASS]
    narrow = products.to_fp8
    monkeypatch.setattr(products, "to_fp8", lambda values, _: narrow(values, torch.float8_e5m2))
    assert products.emulation_finding(32, 64, 48).result == FAIL
    shapes = products.product_shapes("hybrid_8b")
    assert shapes[4096, 21_504] == 22, "linear_fc1 of the MLPs that are not among the ends"


def test_a_checkpoint_that_is_not_loaded_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "load_weights", lambda *_: {"digest": ""})
    monkeypatch.setattr(mixers, "load_weights", lambda *_: {"digest": ""})
    assert set(results(list(mixers.kernel_layers({}, TINY, kernels=TORCH))).values()) == {FAIL}
    found = compare.checkpoints({}, TINY, ask=lambda *_: None)
    assert set(results(list(found)).values()) == {FAIL}


def test_checkpoints_through_a_process_without_a_gpu() -> None:
    found = list(compare.checkpoints({}, TINY))
    assert [one.result for one in found] == [PASS, PASS]


def test_not_a_number_is_never_within_a_tolerance() -> None:
    exact = {"logits": torch.ones(2), "loss": torch.ones(1), "w": torch.ones(2)}
    bad = exact | {"w": torch.tensor([1.0, float("nan")])}
    assert compare.largest_error(bad, exact)["gradients"] == (float("inf"), "w")
    (*_, last) = compare.bf16_findings("x", bad, exact, exact)
    assert last.result == FAIL
