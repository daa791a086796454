"""The cluster of the tests itself: nothing of it outlives the tests, however they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import ROOT, SlurmCluster, command_of
from tests.slurm.guard import below
from tests.slurm.packages import UnavailableError, unpack

SESSION = """
import sys, time
from pathlib import Path
from tests.slurm.cluster import SlurmCluster
from tests.slurm.packages import unpack
cluster = SlurmCluster(software=unpack(), folder=Path(sys.argv[1]))
cluster.start()
job = "#!/bin/bash\\n#SBATCH -N2 -n2 -o /dev/null\\nsrun setsid sleep 314 & wait\\n"
cluster.command("sbatch", stdin=job)
cluster.wait_until(lambda: len(cluster.processes("n2", "sleep 314")) == 1, 60.0)
print("up", flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_session_leaves_no_daemon_and_no_job(
    slurm: SlurmCluster, tmp_path: Path, number: signal.Signals
) -> None:
    """It has a cluster of its own beside that of this session, with a step on each node."""
    del slurm  # where there can be one
    session = subprocess.Popen(
        [sys.executable, "-c", SESSION, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}/.imports:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert session.stdout is not None
    assert session.stdout.readline() == "up\n"
    there = below(session.pid)
    for part in ("slurmctld", "slurmd", "slurmstepd", "sleep 314"):
        assert any(part in command_of(pid) for pid in there), part
    session.send_signal(number)
    session.wait()
    end = time.monotonic() + 20.0
    while left := [pid for pid in there if command_of(pid)]:
        assert time.monotonic() < end, [command_of(pid) for pid in left]
        time.sleep(0.1)


def test_where_apt_cannot_fetch_it_the_reason_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UnavailableError, match="no apt-get and dpkg-deb") as caught:
        unpack(tmp_path / "slurm")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "slurm").exists()
    for name, text in (
        ("apt-get", 'echo "E: Unable to locate it" >&2; exit 100'),
        ("dpkg-deb", ""),
    ):
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    with pytest.raises(UnavailableError, match="cannot fetch Slurm: Unable to locate it") as caught:
        unpack(tmp_path / "slurm")
    assert "\n" not in str(caught.value)
