"""A training job under fake Slurm commands, with real ranks: submit, warning, requeue, the end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frontload.launch import cli
from tests.tiny_run import artifact_bytes, write_longer_recipe, write_tiny_data
from tests.unit.launch.fake_cluster import FakeCluster

ROOT = Path(__file__).resolve().parents[2]
SBATCH = """#!/bin/bash
printf '%s\\n' "$*" >> "$FAKE_LOG.sbatch"
number=$((4000 + $(wc -l < "$FAKE_LOG.sbatch")))
cat > "$(dirname "$FAKE_LOG")/job-$number.sh"
echo "$number"
"""
PYTHON = f"""#!/bin/bash
PYTHONPATH={ROOT / ".imports"} exec {sys.executable} "$@"
"""
HERE = {"FAKE_ADDRESSES": "::1", "OMP_NUM_THREADS": "1"}
"""The head is called by its name, which is this machine's."""
PLACEMENT = """
name: tiny_slurm
slurm:
  shared_folder: {shared}
  time_limit: "00:10:00"
  stop_seconds: 30
  requeue_seconds: 300
  max_failures: 2
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cluster of one node, and a tiny run: given to sbatch as a chain of two."""
    root = tmp_path_factory.mktemp("job")
    (root / "cluster").mkdir()
    cluster = FakeCluster(root / "cluster", nodes=("localhost",))
    for name, text in (("sbatch", SBATCH), ("python", PYTHON)):
        path = cluster.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    recipe = write_longer_recipe(root, checkpoint_every_steps=4, asynchronous="false")
    data = write_tiny_data(root / "data", recipe)
    placement = root / "tiny_slurm.yaml"
    placement.write_text(PLACEMENT.format(shared=root / "shared"))
    out = root / "run"
    words = [str(recipe), "--placement", str(placement), *data.flags(), "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{cluster.folder / 'bin'}:{os.environ['PATH']}")
        patch.setenv("FAKE_LOG", str(cluster.folder / "log"))
        assert cli.main(["launch", *words]) == 0
        assert cli.main(["launch", *words, "--chain", "3"]) == 0
    alone = root / "alone"
    assert cli.main(["train", str(recipe), *data.flags(), "--out", str(alone)]) == 0
    return {"cluster": cluster.folder, "out": out, "alone": alone}


@pytest.fixture
def cluster(job: dict[str, Path]) -> FakeCluster:
    found = FakeCluster.__new__(FakeCluster)
    found.folder, found.nodes, found.left = job["cluster"], ("localhost",), []
    return found


def test_a_chain_waits_for_the_job_before(job: dict[str, Path]) -> None:
    asked = (job["cluster"] / "log.sbatch").read_text().splitlines()
    assert asked == [
        "--parsable",
        "--parsable",
        "--parsable --dependency=afterany:4002",
        "--parsable --dependency=afterany:4003",
    ]
    single, chained = (job["cluster"] / f"job-{number}.sh" for number in (4001, 4002))
    assert "is_chained=''\n" in single.read_text()
    assert "is_chained=yes\n" in chained.read_text()


def test_warned_requeued_and_resumed_it_ends_with_the_same_bytes(
    job: dict[str, Path], cluster: FakeCluster
) -> None:
    script, out = (job["cluster"] / "job-4001.sh").read_text(), job["out"]
    process = cluster.start(script, **HERE)
    await_path(out / "work" / "first" / "scratch", "step-*[0-9]", process, cluster)
    process.send_signal(signal.SIGUSR1)
    status, said = cluster.end(process)
    assert status == 0, said
    assert "the time limit is near" in said
    assert "was asked to stop at step" in said, "the rank saved itself"
    assert cluster.log[-1] == "scontrol - requeue 12345"
    assert not (out / "finished").exists()
    assert not (out / "error.json").exists()
    status, said = cluster.run(script, SLURM_RESTART_COUNT="1", **HERE)
    assert status == 0, said
    assert (out / "finished").exists()
    for name in ("first", "second"):
        assert artifact_bytes(out / name) == artifact_bytes(job["alone"] / name), name
    starts = sorted((out / "starts").iterdir())
    assert len(starts) == 2
    told = json.loads(starts[1].read_text())["environment"]
    assert told["OMP_NUM_THREADS"] == "1"
    assert told["SLURM_JOB_ID"] == "12345"


def await_path(
    folder: Path, pattern: str, process: "subprocess.Popen[str]", cluster: FakeCluster
) -> None:
    end = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert process.poll() is None, (cluster.folder / "said").read_text()
        assert time.monotonic() < end, (cluster.folder / "said").read_text()
        time.sleep(0.01)
