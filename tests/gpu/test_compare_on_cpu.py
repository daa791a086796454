"""The checks' own lines at tiny size, CPU against CPU: they pass, and what is wrong fails them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from frontload.recipes.machines.cluster import TORCH
from tests.gpu import compare
from tests.gpu.compare import Size, torch_conv, torch_scan
from tests.gpu.findings import FAIL, PASS, CouldNotRun, Finding
from tests.parity.reference_model import recurrence

TINY = Size(model="hybrid_138k", documents=(24, 40, 16))
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


def test_packed_rows_and_what_it_lacks() -> None:
    findings = compare.packed_rows(BARE, TINY)
    found = [next(findings) for _ in range(4)]
    assert set(results(found).values()) == {PASS}
    with pytest.raises(CouldNotRun, match=r"needs transformer_engine\.pytorch, mamba_ssm"):
        next(findings)


def test_packed_rows_in_bf16_of_other_layers() -> None:
    found = list(compare.packed_rows(BARE, TINY, kernels=TORCH))
    assert len(found) == 7
    assert set(results(found).values()) == {PASS}


def test_a_leak_fails_packed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "document_resets", lambda ids: None)
    found = results(list(compare.packed_rows(BARE, TINY, kernels=TORCH)))
    for layers in ("torch layers", "kernels in bf16"):
        for part in ("logits", "loss", "gradients"):
            assert found[f"packed and separate, {layers}: {part}"] == FAIL, (layers, part)


def test_scan_kernels() -> None:
    def scan(inputs: Any, ids: torch.Tensor) -> torch.Tensor:
        tensors = (inputs.x, inputs.dt, inputs.A_H, inputs.B, inputs.C)
        return recurrence(*tensors, D_H=inputs.D_H, document_ids_BS=ids)[0]

    short = Size(model=TINY.model, documents=(5, 11, 8))
    found = list(compare.scan_kernels({}, short, scan=scan, conv=torch_conv))
    assert len(found) == 4
    assert set(results(found).values()) == {PASS}


def test_a_kernel_that_sees_no_documents_fails() -> None:
    found = compare.scan_kernels(
        {},
        TINY,
        scan=lambda inputs, ids: torch_scan(inputs, torch.zeros_like(ids)),
        conv=lambda *tensors: torch_conv(*tensors[:3], torch.zeros_like(tensors[3])),
    )
    assert set(results(list(found)).values()) == {FAIL}


def test_kernel_layers() -> None:
    found = list(compare.kernel_layers({}, TINY, kernels=TORCH))
    assert results(found) == {
        "kernels and torch layers in bf16: logits": PASS,
        "kernels and torch layers in bf16: loss": PASS,
    }


def test_a_checkpoint_that_is_not_loaded_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "load_weights", lambda *_: {"digest": ""})
    assert set(results(list(compare.kernel_layers({}, TINY, kernels=TORCH))).values()) == {FAIL}
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
