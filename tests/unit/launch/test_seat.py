"""What a start records of its environment."""

import pytest

from frontload.launch.ranks.seat import Seat, describe_start
from frontload.recipes.machines.placement import Placement

SECRETS = {
    "SLURM_JWT": "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
    "NCCL_AUTH": "abc",
    "TORCH_HUB_PASSPHRASE_X": "hunter2",
    "UCX_DB_PASS": "hunter3",
    "NVTE_AUTHORIZATION": "Basic abc",
    "CUDA_CREDENTIALS": "def",
    "SLURM_BEARER": "ghi",
    "OMP_API_KEY": "jkl",
    "MASTER_TOKEN": "mno",
}
SETTINGS = {
    "NCCL_SOCKET_IFNAME": "ib0",
    "SLURM_JOB_ID": "7",
    "OMP_NUM_THREADS": "1",
    "UCX_TLS_BYPASS": "y",
    "TORCH_PASSIVE_MODE": "on",
    "NVTE_AUTHOR": "me",
}


def test_settings_are_recorded_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {**SECRETS, **SETTINGS}.items():
        monkeypatch.setenv(name, text)
    recorded = describe_start(Seat(), Placement())["environment"]
    assert not recorded.keys() & SECRETS.keys()
    assert {name: recorded[name] for name in SETTINGS} == SETTINGS
