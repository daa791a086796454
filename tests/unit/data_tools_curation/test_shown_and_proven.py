"""`peek` and `verify` of a curated folder: its rows are shown, and a changed byte is found."""

from pathlib import Path

import pytest

from frontload.launch.cli import main
from tests.unit.data_tools_curation.workbench import Workbench

SOURCES = "sources: {own: {files: [r.jsonl], adapter: gsm8k, domain: math}}\n"
SETS = "sets: {mine: {members: [own], text_copy: true}, long: {members: [own]}}\n"
ROWS = [{"question": f"q {n}?", "answer": f"step {n}\n#### {n}"} for n in range(5)]


@pytest.fixture
def folder(bench: Workbench) -> Path:
    bench.rows("r.jsonl", ROWS)
    return bench.curate(SOURCES + SETS)


def test_peek_shows_what_each_set_is_made_of_and_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["data", "peek", str(folder), "--rows", "2"]) == 0
    printed = capsys.readouterr().out
    assert "sets " in printed.splitlines()[0]
    assert "mine: 5 rows" in printed
    assert "long: 5 rows" in printed
    assert printed.count('"question": "q 0?"') == printed.count('"question": "q 1?"') == 2
    assert "q 2?" not in printed


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("nothing", "all statements hold"),
        ("byte", "WRONG mine.jsonl has the sha256 of its manifest"),
        ("row", "WRONG mine.jsonl: rows: 4; the artifact states 5"),
        ("file", "WRONG mine.jsonl: missing"),
        ("more", "WRONG files of no set: strange.jsonl"),
    ],
)
def test_verify_finds_what_was_changed(
    folder: Path, capsys: pytest.CaptureFixture[str], damage: str, told: str
) -> None:
    file = folder / "mine.jsonl"
    data = file.read_bytes()
    if damage == "byte":
        file.write_bytes(data.replace(b"step 3", b"step 4"))
    elif damage == "row":
        file.write_bytes(data[: data[:-1].rindex(b"\n") + 1])
    elif damage == "file":
        file.unlink()
    elif damage == "more":
        (folder / "strange.jsonl").touch()
    capsys.readouterr()
    assert main(["data", "verify", str(folder)]) == (damage != "nothing")
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_set_of_many_files_is_the_set_of_one_file_cut_by_rows(
    bench: Workbench, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.rows("r.jsonl", ROWS)
    more = ("heldout_share=0.4", "seed=3", "--workers", workers)
    whole = bench.curate(SOURCES + SETS, out="whole", more=more)
    cut = bench.curate(SOURCES + SETS, out="cut", more=("rows_a_file=2", *more))
    kinds = ("mine", "mine.text", "mine.heldout")
    for kind in kinds:
        expected = (whole / f"{kind}.jsonl").read_bytes()
        files = sorted(cut.glob(f"{kind}-*.jsonl"))
        assert [file.name for file in files][:1] == [f"{kind}-00001.jsonl"]
        assert b"".join(file.read_bytes() for file in files) == expected
        rows = [file.read_bytes().count(b"\n") for file in files]
        assert set(rows[:-1]) <= {2}
        assert 0 < rows[-1] <= 2
    assert any(len(list(cut.glob(f"{kind}-*.jsonl"))) > 1 for kind in kinds)
    assert main(["data", "verify", str(cut)]) == 0
    assert main(["data", "peek", str(cut), "--rows", "1"]) == 0
    assert "mine-00001.jsonl" in capsys.readouterr().out
