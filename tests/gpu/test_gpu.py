"""`make gpu` under pytest: every check of the proof on this machine's GPU, if it has one."""

import time
from typing import Any

import pytest
import torch

from tests.gpu.findings import FAIL
from tests.gpu.proof import CHECKS, Check, lacking, probe_apart, run_apart

LIMIT_SECONDS = 600.0


@pytest.fixture(scope="module")
def machine() -> dict[str, Any]:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return probe_apart()


@pytest.mark.gpu
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_check(machine: dict[str, Any], check: Check) -> None:
    if why := lacking(check, machine):
        pytest.skip(why)
    (ended,) = run_apart([check], {"machine": machine}, time.monotonic() + LIMIT_SECONDS)
    found = ended.findings
    assert found
    assert not [one for one in found if one.result == FAIL]
