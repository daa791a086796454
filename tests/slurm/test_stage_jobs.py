"""A stage of a study as a job that is warned before its limit, against the local workers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from frontload.launch.cluster import queue
from tests.slurm.cluster import ROOT, SlurmCluster
from tests.slurm.training import write_placement

JOBS_SECONDS = 600.0
ONLY = ("--only", "pretrain/base-seed1")
STUDY = """
extends: smoke
synthesis: {{base_tokens: 240_000, ldq: {{tokens: 96_000}}}}
pretraining: {{tokens: 204_800}}
placement: {default}
placements: {{pretrain: {pretrain}, sft: {default}, evaluate: {default}}}
"""


def frontload(folder: Path, *words: str) -> tuple[int, str]:
    """Status and output of a command that runs in a folder of studies and placements."""
    done = subprocess.run(
        [sys.executable, "-m", "frontload.launch.cli", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / ".imports"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def write_study(folder: Path, *, default: str, pretrain: str) -> None:
    (folder / "studies").mkdir(parents=True)
    (folder / "placements").mkdir()
    text = STUDY.format(default=default, pretrain=pretrain)
    (folder / "studies" / "mine.yaml").write_text(text, encoding="utf-8")


def artifacts(store: Path) -> dict[str, bytes]:
    """Every byte of every finished artifact; what a clock or a host says lies elsewhere."""
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.glob("*/*/**/*"))
        if path.is_file() and path.relative_to(store).parts[0] not in BESIDE
    }


BESIDE = (".jobs", ".locks", ".work", "provenance", "telemetry")


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the same stages, made by the warm workers of this machine."""
    folder = tmp_path_factory.mktemp("workers")
    write_study(folder, default="cpu", pretrain="pair")
    pair = "extends: cpu\nname: pair\nranks_per_node: 2\n"
    (folder / "placements" / "pair.yaml").write_text(pair, encoding="utf-8")
    status, said = frontload(folder, "run", "studies/mine.yaml", "--store", "store", *ONLY)
    assert status == 0, said
    return folder / "store"


def test_a_warned_stage_saves_and_ends_with_the_bytes_of_the_workers(
    user: SlurmCluster, workers: Path, tmp_path: Path
) -> None:
    """The trunk on two nodes and what it needs; a second `run` submits nothing."""
    write_study(tmp_path, default="one", pretrain="two")
    for name, nodes in (("one", 1), ("two", 2)):
        path = write_placement(tmp_path, user, nodes=nodes)
        text = path.read_text(encoding="utf-8").replace("name: two_nodes", f"name: {name}")
        (tmp_path / "placements" / f"{name}.yaml").write_text(text, encoding="utf-8")
    run = ("run", "studies/mine.yaml", "--store", "store", *ONLY)
    status, said = frontload(tmp_path, *run)
    assert status == 0, said
    numbers = set(re.findall(r": job (\d+)", said))
    status, again = frontload(tmp_path, *run)
    assert status == 0, again
    assert set(queue.queued().values()) <= numbers, "nothing was submitted twice"
    (job,) = tmp_path.glob("store/.jobs/pretrain/trunk-seed1-*/job")
    trunk = job.read_text(encoding="utf-8").strip()
    user.wait_until(
        lambda: bool(list(tmp_path.glob("store/telemetry/pretrain/trunk-seed1*.jsonl"))),
        JOBS_SECONDS,
        about=f"the trunk is {queue.states([trunk])}",
    )
    user.command("scancel", "--batch", "--signal=USR1", trunk)
    user.wait_until(
        lambda: set(queue.states(numbers).values()) == {"COMPLETED"},
        JOBS_SECONDS,
        about=f"{queue.states(numbers)}",
    )
    (log,) = tmp_path.glob(f"store/.jobs/pretrain/*/logs/{trunk}.out")
    assert "the time limit is near" in log.read_text()
    assert "was asked to stop at step" in log.read_text()
    assert artifacts(tmp_path / "store") == artifacts(workers)
    status, said = frontload(tmp_path, *run)
    assert (status, "nothing to do" in said) == (0, True), said
