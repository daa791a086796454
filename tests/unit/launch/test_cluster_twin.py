"""The CPU twin of the paper's study, whole: printed commands make its data, launch runs it."""

import json
import shlex
from pathlib import Path

import pytest

from frontload.data_tools.tokenizer import train
from frontload.launch import cli
from frontload.launch.cluster_plan import ClusterPlan, check_shared_phases, load_cluster_plan
from frontload.recipes.schema import Tokenizer

STUDY = """
extends: paper_tiny
without: [base]
trunk: ldq
rl: null
data: {base_files: [raw/text.jsonl]}
"""
SETS = """
extends: defaults
sources:
  rows: {files: [raw/rows.jsonl], adapter: gsm8k, domain: math}
sets:
  ldq: {members: [rows], text_copy: true}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study and what a user brings: base text, rows, a tokenizer."""
    root = tmp_path_factory.mktemp("twin")
    raw = root / "store" / "data" / "raw"
    assert cli.main(["data", "synth", "smoke", "--out", str(raw)]) == 0
    lines = (raw / "ldq.jsonl").read_text().splitlines()
    rows = [
        {"question": row["question"], "answer": f"{row['trace']}\n#### {row['answer']}"}
        for row in map(json.loads, lines)
    ]
    texts = [line for line in (raw / "base.jsonl").open() if "text" in json.loads(line)]
    (raw / "text.jsonl").write_text("".join(texts))
    (raw / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (raw / "tiny_sets.yaml").write_text(SETS)
    trained = train(Tokenizer(kind="word", vocab_size=256), [raw / "base.jsonl", raw / "ldq.jsonl"])
    (root / "store" / "data" / "tokenizer").mkdir()
    tokenizer_file = root / "store" / "data" / "tokenizer" / "tokenizer.json"
    tokenizer_file.write_text(trained.tokenizer.to_json())
    (root / "mine.yaml").write_text(STUDY)
    return root


def commands(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """What `frontload plan` tells the user to type in the data folder."""
    capsys.readouterr()
    assert cli.main(["plan", "mine.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in lines:
        for folder in shlex.split(line)[2:] if line.startswith("  mkdir -p ") else ():
            (Path("store/data") / folder).mkdir(parents=True, exist_ok=True)
    return [shlex.split(line)[1:] for line in lines if line.startswith("  frontload data ")]


@pytest.mark.slow
def test_the_plan_leads_from_raw_files_to_a_model_of_the_last_stage(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    found = commands(capsys)
    assert [words[1] for words in found] == [
        *("curate", "preprocess", "preprocess", "blend", "pack")
    ]
    for words in found:
        monkeypatch.chdir(home / "store" / "data")
        assert cli.main(words) == 0, capsys.readouterr().err
        monkeypatch.chdir(home)
    assert commands(capsys) == []
    plan = load_cluster_plan("mine.yaml", [])
    check_shared_phases(plan)
    assert cli.main(["launch", "mine.yaml"]) == 0
    assert_finished(plan)
    capsys.readouterr()
    assert cli.main(["launch", "mine.yaml"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [f"{run.label}: finished" for run in plan.runs]


def assert_finished(plan: ClusterPlan) -> None:
    for run in plan.runs:
        assert (plan.folder(run.label) / "finished").is_file(), run.label
    states = {
        run.label: json.loads((path / "training_state.json").read_text())
        for run in plan.runs
        for path in plan.folder(run.label).iterdir()
        if (path / "training_state.json").is_file()
    }
    assert states["pretrain/trunk"]["samples"] == 24
    assert states["pretrain/ldq"]["samples"] == 40, "it went on from the trunk"
    assert states["sft/ldq+ldq-x1"]["samples"] == 24
