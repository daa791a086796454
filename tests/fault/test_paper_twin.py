"""The CPU twin of the paper with workers: raw files to verdicts, GRPO on raw prompts too."""

import json
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.study.settle import settle
from frontload.recipes.study.expand import load_study
from tests.paper_files import write_paper_files

STUDY = """
extends: paper_tiny
arms: [ldq]
ratio_arms: []
sft: {mixes: [shq], cells: []}
rl: {cells: [{arm: ldq, mix: shq}], steps: 1, validate_every_steps: 0}
"""


@pytest.mark.slow
def test_raw_files_become_a_reinforced_model_and_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_paper_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("twin.yaml").write_text(STUDY)
    assert cli.main(["run", "twin.yaml"]) == 0, capsys.readouterr().err
    study, store = load_study("twin.yaml", settle=settle), tmp_path / "store"
    assert all((store / stage.folder / "manifest.json").is_file() for stage in study.stages)
    grpo = next(stage for stage in study.stages if stage.kind == "grpo")
    assert grpo.inputs["prompts"].kind == "crossthink", "the prompts are the raw files'"
    assert (store / grpo.folder / "validation.jsonl").read_text()
    cells = json.loads((store / study.tabulate.folder / "cells.json").read_text())["cells"]
    assert set(cells) == {"pt:LDQ", "pt:LDQ>sft:SHQ", "pt:LDQ>sft:SHQ>rl:CrossThink"}
    assert (tmp_path / "results" / "twin" / "report.html").is_file()
    capsys.readouterr()
    assert cli.main(["run", "twin.yaml"]) == 0
    assert "nothing to do" in capsys.readouterr().out
