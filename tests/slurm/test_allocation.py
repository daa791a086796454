"""A block of an allocation as jobs of a real Slurm: the same decisions as here, submitted once."""

import shutil
import sys
from pathlib import Path

import pytest

from frontload.eval.allocation.decide import NO_MONEY
from frontload.launch.allocate import jobs
from frontload.launch.allocate.loop import Explored, Loop
from frontload.launch.allocate.question import Allocation, look_up
from frontload.launch.cluster.study_jobs import JOB, job_folder
from frontload.launch.store import Store
from frontload.launch.study.crew import Crew
from tests.slurm.cluster import PORTS_EACH, ROOT, SlurmCluster

ASKED = (
    "study.pretraining.tokens=10_240",
    "design.first_seeds=1",
    "money.explore=2",  # one block of 1.8
    "readings=null",
)
PLACE = """
study:
  placement:
    name: jobs
    slurm:
      shared_folder: SHARED
      activate: export PATH=BIN:$PATH PYTHONPATH=IMPORTS PYTHONDONTWRITEBYTECODE=1
      time_limit: "00:10:00"
      stop_seconds: 30
      requeue_seconds: 300
      first_port: PORT
      num_ports: PORTS
"""


def write_question(folder: Path, cluster: SlurmCluster) -> str:
    """The tiny question with its stages as jobs."""
    text = PLACE.replace("SHARED", str(folder / "shared")).replace(
        "IMPORTS", str(ROOT / ".imports")
    )
    text = text.replace("BIN", str(Path(sys.executable).parent))
    text = text.replace("PORTS", str(PORTS_EACH)).replace("PORT", str(cluster.first_port))
    path = folder / "smoke.yaml"
    path.write_text("extends: smoke\n" + text)
    return str(path)


def explore(allocation: Allocation, store: Store) -> Explored:
    return Loop(allocation, store, crew=Crew(workers=1)).explore()


def decisions(explored: Explored, store: Store) -> list[bytes]:
    return [(store.root / one.folder / "decision.json").read_bytes() for one in explored.decisions]


def test_a_block_of_jobs_leads_to_the_decisions_of_the_workers(
    user: SlurmCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.5)
    here, shared = Store(tmp_path / "here"), Store(tmp_path / "shared" / "store")
    local = look_up("smoke", here, overrides=ASKED)
    block = Loop(local, here, crew=Crew(workers=1))
    block._make([block.decision((), 0)], is_decision=True)
    following = block.progress().following
    assert following is not None
    cells = [local.graph.evaluation(*cell) for cell in following["cells"]]
    block._make([one.inputs["checkpoint"] for one in cells])  # jobs are for what is compared
    shutil.copytree(here.root, shared.root)
    explored = explore(local, here)
    assert explored.stop == NO_MONEY
    assert len(explored.decisions) == 2

    allocation = look_up(write_question(tmp_path, user), shared, overrides=ASKED)
    assert allocation.question == local.question
    capsys.readouterr()
    there = explore(allocation, shared)
    said = capsys.readouterr().out
    assert said.count(": job ") == len(cells)
    assert there.stop == NO_MONEY
    assert decisions(there, shared) == decisions(explored, here)
    for stage in cells:
        number = (job_folder(shared, stage) / JOB).read_text().strip()
        # a stage is published before its job has ended
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        assert user.wait_for(number, ends, seconds=60, log=tmp_path) == "COMPLETED"
        scores = [store.root / stage.folder for store in (here, shared)]
        mine, theirs = (
            {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
            for folder in scores
        )
        assert mine == theirs
    explore(allocation, shared)
    assert "job " not in capsys.readouterr().out, "a second run submits nothing"


def test_a_job_that_ends_without_its_stage_ends_the_loop_with_its_log(
    user: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.5)
    store = Store(tmp_path / "shared" / "store")
    question = write_question(tmp_path, user)
    allocation = look_up(
        question, store, overrides=[*ASKED, "study.placement.slurm.activate=exit 3"]
    )
    corpus = next(iter(allocation.graph.data_stages()))
    with pytest.raises(jobs.StageError) as caught:
        jobs.run_as_jobs(allocation, store, [corpus])
    assert "is not built" in caught.value.found
    assert str(job_folder(store, corpus)) in caught.value.do
