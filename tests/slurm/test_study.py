"""A study as jobs of a real Slurm: from raw files to verdicts, equal to those of the workers."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.study.settle import settle
from frontload.recipes.study.expand import Study, load_study
from tests.paper_files import write_paper_files
from tests.slurm.cluster import PORTS_EACH, ROOT, SlurmCluster

END_SECONDS = 420.0  # about 20 jobs, two at a time, on a busy machine
STUDY = """
extends: paper_tiny
arms: [base, ldq]
ratio_arms: []
rl: null
sft: {mixes: [ldq], cells: []}
"""
HERE = """
placements: {pretrain: {ranks_per_node: 2}}
"""
JOBS = """
placement: &place
  name: here
  slurm: &slurm
    shared_folder: SHARED
    activate: export PATH=BIN:$PATH PYTHONPATH=IMPORTS PYTHONDONTWRITEBYTECODE=1
    time_limit: "00:10:00"
    stop_seconds: 30
    requeue_seconds: 300
    first_port: PORT
    num_ports: PORTS
placements:
  pretrain: {name: two_nodes, num_nodes: 2, slurm: *slurm}
  sft: *place
  convert: *place
  evaluate: *place
  benchmarks: *place
  grpo: *place
"""

HERE_STUDY, JOBS_STUDY = "here/study.yaml", "jobs/study.yaml"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the raw files; the study's paths are seen from it."""
    folder = tmp_path_factory.mktemp("paper")
    write_paper_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def write_studies(home: Path, cluster: SlurmCluster) -> None:
    for name in ("here", "jobs"):
        (home / name).mkdir()
    (home / "here" / "study.yaml").write_text(STUDY + HERE)
    text = JOBS.replace("SHARED", str(home / "shared")).replace("IMPORTS", str(ROOT / ".imports"))
    text = text.replace("BIN", str(Path(sys.executable).parent))
    text = text.replace("PORTS", str(PORTS_EACH)).replace("PORT", str(cluster.first_port))
    (home / "jobs" / "study.yaml").write_text(STUDY + text)


def study_of(name: str) -> Study:
    return load_study(name, settle=settle)


def artifacts(root: Path, study: Study) -> dict[str, bytes]:
    """File of the store -> its bytes, of every artifact of a study."""
    found: dict[str, bytes] = {}
    for stage in study.stages:
        folder = root / stage.folder
        found |= {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    return found


def test_a_study_of_jobs_ends_with_the_bytes_of_the_workers(
    user: SlurmCluster, home: Path, capsys: Capture
) -> None:
    write_studies(home, user)
    assert cli.main(["run", JOBS_STUDY]) == 0
    said = capsys.readouterr().out
    study = study_of(JOBS_STUDY)
    assert said.count(": job ") == len(study.stages)
    assert cli.main(["run", JOBS_STUDY]) == 0
    again = capsys.readouterr().out
    assert again.count("is in the queue") + again.count("built") >= 1
    submitted = [line for line in again.splitlines() if ": job " in line]
    assert all("is in the queue" in line for line in submitted), "nothing is submitted twice"
    assert cli.main(["status", JOBS_STUDY]) == 0
    assert "  job " in capsys.readouterr().out

    store = home / "shared" / "store"
    last = store / study.tabulate.folder
    user.wait_until(last.is_dir, END_SECONDS, about=user.last_words())
    assert cli.main(["run", HERE_STUDY, "--out", str(home / "report_here")]) == 0
    assert study_of(HERE_STUDY).tabulate.key == study.tabulate.key, "a placement is in no key"
    ours, theirs = artifacts(home / "store", study), artifacts(store, study)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert any(name.endswith("verdicts.json") for name in ours)

    capsys.readouterr()
    assert cli.main(["run", JOBS_STUDY, "--out", str(home / "report_jobs")]) == 0
    assert "nothing to do" in capsys.readouterr().out
    tables = [home / place / "tables.md" for place in ("report_here", "report_jobs")]
    assert tables[0].read_text() == tables[1].read_text()
    assert cli.main(["status", JOBS_STUDY, "--verify"]) == 0
