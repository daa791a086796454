"""The workbench of each test."""

from pathlib import Path

import pytest

from tests.unit.data_tools_curation.workbench import Workbench


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Workbench:
    monkeypatch.chdir(tmp_path)
    return Workbench(tmp_path, capsys)
