"""The cluster of a test session, where there can be one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.packages import UnavailableError, unpack


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A real Slurm of two nodes, which ends with the session."""
    folder: Path = tmp_path_factory.mktemp("slurm")
    try:
        cluster = SlurmCluster(software=unpack(), folder=folder)
        cluster.start()
    except UnavailableError as error:
        pytest.skip(f"no real Slurm: {error}")
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def user(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The cluster, with this process as its user: Slurm's commands are on the PATH."""
    for name, text in slurm.environment().items():
        monkeypatch.setenv(name, text)
    return slurm
