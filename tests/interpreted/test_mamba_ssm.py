"""mamba-ssm's own Triton kernels against the recurrence, and Megatron's mixer on them against ours.

They run interpreted on a CPU, in one process for the whole file, in float32: the interpreter
computes with numpy, which has no bf16. Tolerances are those of tests/parity/test_ssd.py: 2e-5 of
the largest entry for float32, 1e-4 of each head's own gradient of A where all its tokens forget.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interpreted.kernels import ENVIRONMENT, FOLDER

ROOT = Path(__file__).resolve().parents[2]
FLOAT32, OWN = 2e-5, 1e-4
MODEL = 1e-5  # two float32 models, each some 1e-6 from the exact one
LEAK = 0.01
SCANS = [
    "one document", "documents", "groups and states, odd length", "documents and states",
    "chunks of 24", "forgets in a token",
]  # fmt: skip
KERNELS = {
    "_bmm_chunk_fwd_kernel", "_bmm_chunk_bwd_kernel", "_chunk_cumsum_fwd_kernel",
    "_chunk_cumsum_bwd_kernel", "_chunk_scan_fwd_kernel", "_chunk_scan_bwd_dc_kernel",
    "_chunk_scan_bwd_dcb_kernel", "_chunk_scan_bwd_ddAcs_stable_kernel",
    "_chunk_scan_bwd_dstates_kernel", "_chunk_scan_bwd_dz_kernel",
    "_chunk_scan_chunk_state_bwd_dx_kernel", "_chunk_state_fwd_kernel",
    "_chunk_state_bwd_db_kernel", "_state_passing_fwd_kernel", "_state_passing_bwd_kernel",
    "_layer_norm_fwd_1pass_kernel", "_layer_norm_bwd_kernel",
}  # fmt: skip


@pytest.fixture(scope="module")
def answers() -> Any:
    """What the process says; about 30 CPU s."""
    assert FOLDER.is_dir(), f"{FOLDER} is not there: `make environment` makes it"
    found = subprocess.run(
        [sys.executable, "-m", "tests.interpreted.cases"],
        cwd=ROOT, capture_output=True, text=True,
        env={
            **os.environ, **ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT / ".imports"), str(ROOT)]),
        },
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4_000:]
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", SCANS)
def test_kernels_and_our_scan_are_the_recurrence(answers: Any, case: str) -> None:
    assert set(answers["scans"]) == set(SCANS)
    for whose, found in answers["scans"][case].items():
        by_head = found.pop("A by head")
        assert set(found) >= {"y", "final", "x", "dt", "A", "B", "C", "D"}
        assert ("initial" in found) == ("states" in case)
        assert {name: error for name, error in found.items() if error > FLOAT32} == {}, whose
        if case == "forgets in a token":
            assert by_head <= OWN, whose


@pytest.mark.parametrize("case", ["documents, 2 groups", "one document, 1 group"])
def test_the_model_on_kernels_is_that_of_torch_layers(answers: Any, case: str) -> None:
    """Megatron's mixer, attention by lengths: logits, loss and every parameter's gradient."""
    found = answers["models"][case]
    of_mixer = {name.split("mixer.")[1] for name in found if "mixer." in name}
    assert of_mixer == {
        "in_proj.weight", "conv1d_weight", "conv1d_bias", "dt_bias", "A_log", "D", "norm.weight",
        "out_proj.weight",
    }  # fmt: skip
    assert {name: error for name, error in found.items() if error > MODEL} == {}


def test_a_leak_between_documents_would_show(answers: Any) -> None:
    assert answers["leak"] > LEAK


def test_checkpoints_move_both_ways(answers: Any) -> None:
    found = answers["checkpoints"]
    assert set(found) == {"torch to mamba_ssm", "mamba_ssm to torch"}
    assert max(found.values()) <= MODEL


def test_the_estimate_knows_what_the_kernels_keep(answers: Any) -> None:
    """Of a mixer and an attention layer of packed documents, in float32; within 2%."""
    assert set(answers["memory"]) == {"mixer", "attention"}
    for layer, ratio in answers["memory"].items():
        assert abs(ratio - 1.0) < 0.02, layer


def test_every_kernel_of_training_ran(answers: Any) -> None:
    """Those that `mamba_split_conv1d_scan_combined` and the gated norm launch, both ways."""
    assert set(answers["launched"]) == KERNELS


def test_no_other_process_sees_the_packages() -> None:
    """Half a package would be found by Megatron and transformers, and break them."""
    words = (
        "import importlib.util as u; print(u.find_spec('mamba_ssm'), u.find_spec('causal_conv1d'))"
    )
    found = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=True
    )
    assert found.stdout == "None None\n"
