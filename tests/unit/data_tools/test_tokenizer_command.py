"""`frontload data tokenizer`: from raw rows to a tokenizer that the other commands load."""

import errno
import json
from pathlib import Path

import pytest

from frontload.data_tools.disk.publish import work_folder, workplace
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.launch.cli import main

ROWS = [
    {"question": f"Tom has {n} apples and buys {n} more. How many?", "answer": f"#### {2 * n}"}
    for n in range(40)
]


def write(file: Path, rows: list[object]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def train(file: Path, out: Path, *more: str) -> int:
    return main(["data", "tokenizer", "--input", str(file), "--out", str(out), *more])


def test_same_files_same_bytes_and_it_loads(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", list(ROWS))
    asked = ("--json-key", "question", "answer", "--vocab-size", "290")
    for name in ("a", "b"):
        assert train(file, tmp_path / name, *asked) == 0
    first, second = (tmp_path / name / "tokenizer.json" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    tokenizer = TextTokenizer.load(tmp_path / "a")
    assert tokenizer.vocab_size == 290
    text = " Tom has 12 apples"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) < len(text)


def test_what_is_passed_over_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, {"question": 3}, {"question": "say <|end|>"}, ["no object"], {}]
    file = write(tmp_path / "train.jsonl", list(rows))
    assert train(file, tmp_path / "out", "--json-key", "question", "--vocab-size", "9000") == 0
    shown = capsys.readouterr().out
    assert "from 40 texts of 44 rows" in shown
    assert "9000 were asked for" in shown
    passed_over = json.loads(shown.partition("passed over: ")[2])
    assert passed_over == {
        "not an object": 1,
        "none of the fields": 1,
        "question: spells a special token": 1,
        "question: wrong type": 1,
    }


def test_first_rows_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "train.jsonl", list(ROWS))
    asked = ("--json-key", "question", "--vocab-size", "270", "--max-rows", "7")
    assert train(file, tmp_path / "out", *asked) == 0
    assert "from 7 texts of 7 rows" in capsys.readouterr().out


def test_a_field_that_no_row_has_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "train.jsonl", list(ROWS))
    assert train(file, tmp_path / "out", "--vocab-size", "300") == 2
    assert "none of the fields" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_below_the_bytes_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", list(ROWS))
    assert train(file, tmp_path / "out", "--json-key", "question", "--vocab-size", "200") == 2


def test_another_tokenizer_is_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "train.jsonl", list(ROWS))
    asked = ("--json-key", "question", "--vocab-size")
    for _ in range(2):  # the same one is
        assert train(file, tmp_path / "out", *asked, "270") == 0
    first = (tmp_path / "out" / "tokenizer.json").read_bytes()
    assert train(file, tmp_path / "out", *asked, "280") == 2
    assert "never written over" in capsys.readouterr().err
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == first


def test_the_same_one_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "train.jsonl", list(ROWS))
    asked = ("--json-key", "question", "--vocab-size", "270")
    made = tmp_path / "out" / "tokenizer.json"
    assert train(file, tmp_path / "out", *asked) == 0
    before = made.stat()
    assert train(file, tmp_path / "out", *asked) == 0
    assert "was left as it is" in capsys.readouterr().out
    assert (made.stat().st_ino, made.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("has_folder", [False, True], ids=["new folder", "folder that is there"])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has_folder: bool,
) -> None:
    file = write(tmp_path / "train.jsonl", list(ROWS))
    out = tmp_path / "data" / "tokenizer"
    if has_folder:
        out.mkdir(parents=True)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", refuse)
        assert train(file, out, "--json-key", "question", "--vocab-size", "270") == 1
    assert "No space left on device" in capsys.readouterr().err
    left = {path for path in tmp_path.rglob("*") if path != file}
    assert left == ({out, out.parent} if has_folder else set())
    assert train(file, out, "--json-key", "question", "--vocab-size", "270") == 0
    assert [path.name for path in out.parent.iterdir()] == ["tokenizer"]


def test_a_second_run_is_refused_while_the_first_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "train.jsonl", list(ROWS))
    with workplace(tmp_path / "out", asked="--out"):
        assert train(file, tmp_path / "out", "--json-key", "question", "--vocab-size", "270") == 2
    assert "another run is writing it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", list(ROWS))
    ready = work_folder(tmp_path / "out") / "ready"
    ready.mkdir(parents=True)
    (ready / "tokenizer.json").write_text("half")
    assert train(file, tmp_path / "out", "--json-key", "question", "--vocab-size", "270") == 0
    assert TextTokenizer.load(tmp_path / "out").vocab_size == 270
    assert not work_folder(tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--max-rows", "-3"], "--max-rows: -3; it is a number of rows"),
        (["--vocab-size", "9" * 23], f"--vocab-size: {'9' * 23}; ids are stored in 32 bits"),
        (["--json-key", "question", "question"], "a field is read once"),
        (
            ["--json-key", "text"],
            '40 rows, none with text; passed over: {"none of the fields": 40}',
        ),
        (["--out", "train.jsonl"], "--out train.jsonl: a file; it is a folder"),
        (["--out", "."], "a folder without a name in it"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_trained_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(Path("train.jsonl"), list(ROWS))
    asked = ("--json-key", "question", "--vocab-size", "270", *more)
    assert train(file, Path("out"), *asked) == 2
    assert told in capsys.readouterr().err
    assert not Path("out").exists()
