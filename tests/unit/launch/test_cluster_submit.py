"""A study for a cluster on the command line: what is planned, submitted, told, and refused."""

import json
import subprocess
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.cluster_plan import (
    ClusterPlan,
    check_shared_phases,
    critical_hours,
    load_cluster_plan,
    price_run,
    state_of,
)
from frontload.recipes.errors import ArtifactError

SBATCH = """#!/bin/bash
number=$((4001 + $(cat "$FAKE/submitted" 2>/dev/null | wc -l)))
printf '%s\\n' "$*" >> "$FAKE/submitted"
cat > "$FAKE/job-$number.sh"
echo "$number;cluster"
"""
SQUEUE = """#!/bin/bash
[[ -e "$FAKE/queue-is-empty" ]] || echo PENDING
"""
PLACEMENTS = {
    "many": "extends: paper_tp8pp8\nslurm: {shared_folder: SHARED}\n",
    "few": "extends: slurm\nslurm: {shared_folder: SHARED}\n",
}
STUDY = """
extends: paper_8b
sft: {mixes: [shq], cells: []}
rl: {cells: [{arm: lmq, mix: shq}]}
placements: {pretrain: many.yaml, sft: many.yaml, convert: few.yaml, grpo: few.yaml}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a study, its placements, and fake sbatch and squeue on the PATH."""
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    for name, text in PLACEMENTS.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace("SHARED", str(tmp_path / "shared")))
    (tmp_path / "mine.yaml").write_text(STUDY)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_data(plan: ClusterPlan) -> None:
    for product in plan.products:
        for file in product.files:
            path = plan.data / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def frontload(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def submitted(home: Path) -> list[str]:
    return (home / "submitted").read_text().splitlines()


def test_the_plan_names_missing_data_prices_every_run_and_writes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(home.rglob("*"))
    code, out, err = frontload(capsys, "plan", "mine.yaml")
    assert (code, err) == (0, "")
    assert "frontload data blend paper_80_20_lmq --out blends/lmq --index base=" in out
    plan = load_cluster_plan("mine.yaml", [])
    for run in plan.runs:
        assert f"\n {run.label} " in out
    hours = [price_run(plan, run).gpu_hours or 0.0 for run in plan.runs]
    assert f"without grpo {sum(hours):,.0f} GPU-hours" in out
    assert sorted(home.rglob("*")) == before


def test_a_run_costs_what_estimate_says(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = load_cluster_plan("mine.yaml", [])
    words = ("estimate", "sft_8b", "--placement", "many.yaml", "--json")
    _, out, _ = frontload(capsys, *words)
    stated = json.loads(out)["asked"]["time"]
    price = price_run(plan, plan.run("sft/shq+shq-x1"))
    assert price.gpu_hours == pytest.approx(stated["gpu_hours"])
    assert price.dollars == pytest.approx(stated["dollars"])


def test_without_its_data_nothing_is_submitted(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = frontload(capsys, "launch", "mine.yaml")
    assert code == 2
    assert "no blends/base/first, index/base" in err
    assert not (home / "submitted").exists()
    assert not (home / "shared").exists()


def test_every_run_is_submitted_once_behind_the_one_it_starts_from(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = load_cluster_plan("mine.yaml", [])
    make_data(plan)
    code, out, err = frontload(capsys, "launch", "mine.yaml")
    assert code == 0, err
    numbers = {run.label: 4001 + place for place, run in enumerate(plan.runs)}
    for run, words in zip(plan.runs, submitted(home), strict=True):
        before = numbers.get(run.start)
        after = f" --dependency=afterok:{before} --kill-on-invalid-dep=yes"
        name = f"--parsable --job-name=mine/{run.label}"
        assert words == name + (after if run.start else "")
        script = (home / f"job-{numbers[run.label]}.sh").read_text()
        assert f"folder={plan.folder(run.label)}\n" in script
        checked = subprocess.run(["bash", "-n"], input=script, text=True, check=False)
        assert checked.returncode == 0
        if run.start:
            assert str(plan.start_of(run)) in script
    assert "pretrain/lmq: job 4005 submitted after job 4001" in out
    code, out, _ = frontload(capsys, "launch", "mine.yaml")
    assert code == 0
    assert len(submitted(home)) == len(plan.runs), "what is in the queue is not submitted again"
    assert "pretrain/trunk: job 4001 is in the queue" in out


def test_what_is_finished_is_left_and_what_follows_waits_for_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = load_cluster_plan("mine.yaml", [])
    make_data(plan)
    folder = plan.folder("pretrain/trunk")
    folder.mkdir(parents=True)
    (folder / "finished").touch()
    assert state_of(plan, plan.run("pretrain/trunk"))[0] == "finished"
    assert state_of(plan, plan.run("pretrain/ldq"))[0] == "ready"
    assert state_of(plan, plan.run("sft/ldq+shq-x1")) == ("waits", "for pretrain/ldq")
    prices = {run.label: price_run(plan, run) for run in plan.runs}
    trunk_hours = prices["pretrain/trunk"].hours or 0.0
    left = critical_hours(plan.runs[1:], prices)
    assert critical_hours(plan.runs, prices) - left == pytest.approx(trunk_hours)
    assert trunk_hours > 0.0
    code, out, _ = frontload(capsys, "launch", "mine.yaml", "--only", "pretrain")
    assert code == 0
    assert out.startswith("pretrain/trunk: finished\npretrain/base: job 4001 submitted\n")
    assert len(submitted(home)) == 5
    code, out, _ = frontload(capsys, "status", "mine.yaml")
    assert (code, "finished pretrain/trunk" in out) == (0, True)


def test_a_run_whose_start_is_nowhere_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(load_cluster_plan("mine.yaml", []))
    code, _, err = frontload(capsys, "launch", "mine.yaml", "--only", "sft/ldq+shq-x1")
    assert code == 2
    assert "pretrain/ldq is neither finished nor in the queue" in err
    assert not (home / "submitted").exists()


def test_a_failed_and_a_begun_run_are_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = load_cluster_plan("mine.yaml", [])
    make_data(plan)
    (plan.folder("pretrain/trunk") / "work" / "first" / "scratch" / "step-500").mkdir(parents=True)
    failed = plan.folder("pretrain/ldq")
    failed.mkdir(parents=True)
    told = {"asked": "loss at step 7", "found": "nan", "rule": "", "do": ""}
    (failed / "error.json").write_text(json.dumps(told))
    _, out, _ = frontload(capsys, "status", "mine.yaml")
    assert "begun    pretrain/trunk  checkpoint of step 500" in out
    assert "failed   pretrain/ldq  loss at step 7: nan" in out


def test_a_dry_run_starts_nothing_and_only_prints_whole_jobs(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(home.rglob("*"))
    code, out, _ = frontload(capsys, "launch", "mine.yaml", "--dry-run")
    assert code == 0
    assert "sft/ldq+shq-x1: sft_8b on 64 x 8 ranks of paper_tp8pp8 after pretrain/ldq" in out
    words = ("launch", "mine.yaml", "--dry-run", "--only", "convert/lmq+shq-x1", "grpo")
    code, out, _ = frontload(capsys, *words)
    assert code == 0
    assert out.count("#!/bin/bash") == 2
    assert "    to-hf\n" in out
    assert "verl.trainer.main_ppo" in out
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("launch", "paper_8b", "--placement", "slurm"), "--placement"),
        (("launch", "paper_8b", "--chain", "3"), "--chain"),
        (("launch", "paper_8b", "--only", "sft/ldq"), "--only sft/ldq"),
        (("launch", "pretrain_8b_base"), "no --placement"),
        (("launch", "sft_8b", "--placement", "slurm", "--only", "x"), "--only"),
        (("run", "paper_8b"), "a study for a cluster"),
        (("report", "paper_8b"), "a study for a cluster"),
        (("plan", "paper_8b", "--seeds", "3"), "--seeds"),
        (("plan", "paper_9b"), "study 'paper_9b'"),
    ],
)
def test_words_that_do_not_fit_are_refused(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    code, out, err = frontload(capsys, *words)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("; ") >= 2


def test_an_arm_must_go_on_from_what_the_trunk_read(home: Path) -> None:
    plan = load_cluster_plan("mine.yaml", [])
    for arm, digest in (("base", "aa"), ("shq", "aa"), ("ldq", "bb")):
        folder = plan.data / "blends" / arm / "first"
        folder.mkdir(parents=True)
        files = {"samples.npy": {"sha256": digest}, "plan.json": {"sha256": arm}}
        (folder / "manifest.json").write_text(json.dumps({"files": files}))
    with pytest.raises(ArtifactError, match=r"blends/ldq/first/samples\.npy"):
        check_shared_phases(plan)
