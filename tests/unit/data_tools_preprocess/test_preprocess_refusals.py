"""Bad rows, bad requests and damaged input of every kind: counted, kept, or refused."""

import base64
import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from frontload.data_tools.preprocess.progress import Lines, describe
from frontload.data_tools.preprocess.request import PreprocessRequest, Shard
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.raw.parse import BadRow, RawRow, RejectReason
from frontload.data_tools.raw.rows import read_rows
from frontload.recipes.errors import FrontloadError, RecipeError
from tests.unit.data_tools_preprocess.files import EOD, documents, pair, write_texts

ROOT = Path(__file__).resolve().parents[3]
BAD_LINES = {
    RejectReason.BROKEN_JSON: b'{"text": "data',
    RejectReason.NOT_AN_OBJECT: b'["data"]',
    RejectReason.MISSING_KEY: b'{"body": "data"}',
    RejectReason.NULL_VALUE: b'{"text": null}',
    RejectReason.WRONG_TYPE: b'{"text": ["data"]}',
    RejectReason.INVALID_UTF8: b'{"text": "\xff"}',
    RejectReason.LONE_SURROGATE: b'{"text": "\\ud800"}',
    RejectReason.OVER_SIZE: json.dumps({"text": "x" * 5000}).encode(),
    RejectReason.EMPTY: b'{"text": " "}',
    RejectReason.SPECIAL_TOKEN: json.dumps({"text": f"a {EOD}"}).encode(),
}


def spoiled(file: Path, good: int = 1000) -> tuple[Path, list[str]]:
    """One bad row of each kind between good ones."""
    texts = documents(good, seed=5)
    lines = [json.dumps({"text": text}).encode() for text in texts]
    for number, line in enumerate(BAD_LINES.values()):
        lines.insert(100 * (number + 1), line)
    file.write_bytes(b"\n".join(lines) + b"\n")
    return file, texts


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_rows_are_counted_by_reason_and_kept_when_asked(
    foreign: Path, tmp_path: Path, workers: int
) -> None:
    file, texts = spoiled(tmp_path / "a.jsonl")
    request = PreprocessRequest(
        inputs=[file],
        output_prefix=tmp_path / "P",
        tokenizer=foreign,
        workers=workers,
        rejects=tmp_path / "rejects.jsonl",
        max_row_bytes=4000,
        part_bytes=20_000,
    )
    manifest = preprocess(request)
    assert manifest["dropped"] == {str(reason): 1 for reason in sorted(BAD_LINES)}
    assert manifest["num_documents"] == len(texts)
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    lines = file.read_bytes().split(b"\n")
    assert [row["reason"] for row in rejects] == list(map(str, BAD_LINES))
    for row in rejects:
        raw = base64.b64decode(row["base64"]) if "base64" in row else row["text"].encode()
        assert row["file"] == "a.jsonl"
        line = lines[row["row"] - 1]
        assert (raw, row["bytes"]) == (line[:4096], len(line))
    write_texts(tmp_path / "good.jsonl", texts)
    clean = replace(request, inputs=[tmp_path / "good.jsonl"], output_prefix=tmp_path / "good")
    preprocess(clean)
    assert pair(tmp_path / "P") == pair(tmp_path / "good")


def test_more_bad_rows_than_allowed_stop_before_anything_is_published(
    foreign: Path, tmp_path: Path, frontload: Callable[..., int]
) -> None:
    file, _ = spoiled(tmp_path / "a.jsonl", good=800)
    words = ("--input", file, "--output-prefix", tmp_path / "P", "--tokenizer", foreign)
    with pytest.raises(RecipeError, match=r"9 of 810 rows cannot.*a.jsonl:101 \(broken JSON\)"):
        frontload("preprocess", *words, "--max-bad-rate", "0.009")
    assert not list(tmp_path.glob("P.[bim]*"))
    assert frontload("preprocess", *words, "--max-bad-rate", "0.02") == 0  # goes on from the parts
    manifest = json.loads((tmp_path / "P.manifest.json").read_text())
    assert manifest["made_by"]["parts_kept_from_an_earlier_run"] == 1


def test_a_wrong_key_stops_early_with_the_nearest(foreign: Path, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"texts": text}) + "\n" for text in documents(12_000, longest=4))
    (tmp_path / "a.jsonl").write_text(rows)
    request = PreprocessRequest(
        inputs=[tmp_path / "a.jsonl"],
        output_prefix=tmp_path / "P",
        tokenizer=foreign,
        part_bytes=len(rows) // 24,
    )
    with pytest.raises(
        RecipeError, match=r"missing key.*nearest: 'texts'.*--json-key text"
    ) as told:
        preprocess(request)
    assert int(told.value.found.split(" of ")[1].split()[0]) < 12_000  # not all was read
    assert len(list((tmp_path / "P.work").glob("unit-*.json"))) < 24


REFUSED = [
    (["--workers", "0"], "--workers: 0"),
    (["--max-bad-rate", "2"], "--max-bad-rate: 2.0"),
    (["--max-row-bytes", "0"], "--max-row-bytes: 0"),
    (["--shard", "0/4"], "--shard 0/4.*count from 1"),
    (["--shard", "5/4"], "--shard 5/4"),
    (["--shard", "a/4"], "--shard a/4"),
    (["--append-eod", "--eod-token", "<|endoftex|>"], "nearest: '<|endoftext|>'"),
    (["--output-prefix", "nowhere/P"], "no folder nowhere"),
    (["--output-prefix", "."], "--output-prefix .: a folder without a name"),
    (["--output-prefix", ".."], "--output-prefix ..: a folder without a name"),
    (["--rejects", "nowhere/r.jsonl"], "--rejects nowhere/r.jsonl"),
    (["--rejects", "a.jsonl"], "--rejects a.jsonl: a file that is read"),
    (["--rejects", "a.parquet"], "holds no rejects.*earlier run"),
    (["--rejects", "P.bin"], "--rejects P.bin: a file that this command writes"),
    (["--rejects", "folder"], "--rejects folder: a folder"),
    (["--tokenizer", "nowhere.json"], "loading tokenizer nowhere.json: no file"),
    (["--tokenizer", "no_unknown.json"], "no_unknown.json: a text that it cannot encode"),
    (
        ["--tokenizer", "no_unknown.json", "--input", "a.jsonl", "b.jsonl", "--workers", "2"],
        "no_unknown.json: a text that it cannot encode",
    ),
    (["--tokenizer", "a.jsonl"], "no Hugging Face tokenizer"),
    (["--input", "a.jsonl", "a.jsonl"], "a file is read once"),
    (["--input", "nowhere*.jsonl"], "no file"),
    (["--input", "."], "a folder"),
    (["--input", "empty.jsonl"], "no row to write"),
    (["--input", "cut.jsonl.gz"], "cut.jsonl.gz near byte"),
    (["--input", "cut.parquet"], "cut.parquet at its footer"),
    (["--input", "a.parquet"], "column 'text' of .*columns body"),
    (["--print-slurm-array", "0"], "--print-slurm-array: 0"),
    (["--print-slurm-array", "4", "--shard", "1/4"], "each task of the array names its own"),
]


@pytest.mark.parametrize(("more", "told"), REFUSED, ids=lambda value: " ".join(value)[:40])
def test_wrong_requests_are_refused_and_nothing_is_written(
    foreign: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frontload: Callable[..., int],
    more: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = write_texts(Path("a.jsonl"), documents(20)).read_bytes()
    write_texts(Path("b.jsonl"), documents(20))
    Tokenizer(models.WordLevel({"a": 0})).save("no_unknown.json")
    Path("folder").mkdir()
    Path("empty.jsonl").write_bytes(b"\n\n")
    Path("cut.jsonl.gz").write_bytes(gzip.compress(Path("a.jsonl").read_bytes())[:-20])
    pq.write_table(pa.table({"body": ["a"]}), "a.parquet")
    Path("cut.parquet").write_bytes(Path("a.parquet").read_bytes()[:-5])
    words = ["preprocess", "--input", "a.jsonl", "--output-prefix", "P", "--tokenizer", foreign]
    with pytest.raises(FrontloadError, match=told) as caught:
        frontload(*words, *more)
    assert caught.value.exit_code == 2
    assert all((caught.value.asked, caught.value.found, caught.value.rule, caught.value.do))
    assert not [path for path in Path().glob("P*") if path.name != "P.work"]
    has_parts = any(Path("P.work").glob("unit-*.json"))
    assert Path("P.work").exists() == has_parts, "what a corrected command goes on from, or nothing"
    assert Path("a.jsonl").read_bytes() == given


def test_the_slurm_array_is_a_sound_script_that_gives_the_whole(
    foreign: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frontload: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The script runs here, task by task, with `frontload` being this one."""
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "with space.jsonl", documents(50, seed=6))
    write_texts(tmp_path / "with more.jsonl", documents(50, seed=7))
    words = ["preprocess", "--input", "with*.jsonl", "--tokenizer", foreign, "--append-eod"]
    words += ["--eod-token", EOD, "--output-prefix"]
    assert frontload(*words, tmp_path / "P", "--workers", 1, "--print-slurm-array", 2) == 0
    script = tmp_path / "job.sh"
    script.write_text(capsys.readouterr().out)
    shellcheck = shutil.which("shellcheck", path=str(ROOT / ".venv" / "bin"))
    if shellcheck:  # of the dev extra
        subprocess.run([shellcheck, str(script)], check=True)
    launcher = tmp_path / "frontload"
    launcher.write_text(
        "#!/bin/sh\nexec "
        f'env PYTHONPATH="{ROOT}/.imports" "{shutil.which("python", path=ROOT / ".venv" / "bin")}"'
        ' -m frontload.launch.cli "$@"\n'
    )
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    path = f"{tmp_path}:{os.environ['PATH']}"
    for task in ("2", "1"):
        environment = {**os.environ, "PATH": path, "SLURM_ARRAY_TASK_ID": task}
        subprocess.run(["bash", str(script)], check=True, env=environment, capture_output=True)
    assert frontload(*words, tmp_path / "W", "--workers", 1) == 0
    assert pair(tmp_path / "P") == pair(tmp_path / "W")


def test_progress_says_rate_and_time_left() -> None:
    assert describe(250, 1000, 0.5e0) == " 25% 0.0 of 0.0 MB, 0 MB/s, 25:00 left"
    assert describe(5 * 10**9, 10**10, 1e6) == " 50% 5.0 of 10.0 GB, 1 MB/s, 1:23:20 left"


def test_progress_in_a_log_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    lines = Lines(sys.stderr, every=0.0)
    lines.start(100, done=0)
    lines.advance(50)
    assert " 50% " in capsys.readouterr().err


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
ROWS = st.one_of(
    st.binary(max_size=30),
    st.text(max_size=20).map(lambda text: json.dumps({"text": text}).encode()),
    JSON_LIKE.map(lambda value: json.dumps(value).encode()),
    JSON_LIKE.map(lambda value: json.dumps({"text": value}).encode()),
    st.sampled_from(list(BAD_LINES.values())),
)  # fmt: skip


def cut_or_flip(data: bytes, damage: tuple[int, int]) -> bytes:
    at, kind = damage
    if not data or kind == 0:
        return data
    at %= len(data)
    if kind == 1:
        return data[:at]
    return data[:at] + bytes([data[at] ^ (1 << kind % 8)]) + data[at + 1 :]


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(ROWS, min_size=1, max_size=20),
    damage=st.tuples(st.integers(0, 10_000), st.integers(0, 9)),
    seed=st.integers(0, 1000),
)
@example(rows=[b"\x1c", b"\x1c"], damage=(0, 0), seed=0)  # blank to str, not to JSON
def test_damaged_jsonl_is_read_alike_by_the_reader_and_by_the_command(
    foreign: Path, tmp_path: Path, rows: list[bytes], damage: tuple[int, int], seed: int
) -> None:
    """400 rows an example, 10,000 in all: every line a good row, a reason, or blank."""
    good = [json.dumps({"text": text}).encode() for text in documents(400, seed=seed, longest=6)]
    for number, row in enumerate(rows):
        good[number * 20] = cut_or_flip(row, damage)
    data = b"\n".join(good)
    file = tmp_path / "a.jsonl"
    file.write_bytes(data)
    found = list(read_rows(file, max_row_bytes=4000))
    blank = sum(not line.strip() for line in data.split(b"\n"))
    numbers = [row.number for row in found]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= len(data.split(b"\n")) - blank - 1
    for leftover in tmp_path.glob("P*"):
        leftover.unlink()
    manifest = preprocess(
        PreprocessRequest(
            inputs=[file],
            output_prefix=tmp_path / "P",
            tokenizer=foreign,
            max_bad_rate=1.0,
            max_row_bytes=4000,
            part_bytes=6000,
        )
    )
    assert manifest["num_rows"] == len(found)
    bad = [row for row in found if isinstance(row, BadRow)]
    assert sum(manifest["dropped"].values()) >= len(bad)
    assert manifest["num_documents"] == manifest["num_rows"] - sum(manifest["dropped"].values())


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(damage=st.tuples(st.integers(0, 100_000), st.integers(1, 9)))
@example(damage=(9033, 7))  # the name of a column is no UTF-8
def test_damaged_tables_give_rows_or_a_refusal(tmp_path: Path, damage: tuple[int, int]) -> None:
    """40 rows an example, 4,000 in all."""
    file = tmp_path / "a.parquet"
    if not file.exists():
        table = pa.table({"text": documents(40), "n": list(range(40))})
        pq.write_table(table, file, row_group_size=16, use_dictionary=False)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(cut_or_flip(file.read_bytes(), damage))
    told = ""
    try:
        rows = list(read_rows(broken, columns=["text"]))
    except RecipeError as error:
        told = str(error)
    assert "broken.parquet" in told if told else all(isinstance(r, RawRow | BadRow) for r in rows)


def test_shards_of_a_spoiled_file_reject_the_same_rows(foreign: Path, tmp_path: Path) -> None:
    file, _ = spoiled(tmp_path / "a.jsonl")
    request = PreprocessRequest(
        inputs=[file], output_prefix=tmp_path / "P", tokenizer=foreign, max_row_bytes=4000,
        rejects=tmp_path / "all", part_bytes=20_000, max_bad_rate=0.1,
    )  # fmt: skip
    preprocess(request)
    reasons = []
    for number in (1, 2):
        rejects = tmp_path / f"rejects{number}"
        preprocess(replace(request, shard=Shard(number=number, of=2), rejects=rejects))
        rows = [json.loads(line) for line in rejects.read_text().splitlines()]
        reasons += [(row["reason"], row["bytes"]) for row in rows]
        assert all(("part_start" in row) == (number == 2) for row in rows[:1])
    whole = [json.loads(line) for line in (tmp_path / "all").read_text().splitlines()]
    assert reasons == [(row["reason"], row["bytes"]) for row in whole]


def test_rejects_of_a_table_hold_their_bytes(foreign: Path, tmp_path: Path) -> None:
    cells = [b"good", None, b"caf\xff", f"a {EOD}".encode(), "\u00e9".encode() * 3000]
    binary = pa.array(cells, pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    preprocess(
        PreprocessRequest(
            inputs=[tmp_path / "a.parquet"], output_prefix=tmp_path / "P", tokenizer=foreign,
            max_row_bytes=5000, rejects=tmp_path / "rejects", max_bad_rate=1,
        )
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "rejects").read_text().splitlines()]
    assert [(row["row"], row["reason"], row["bytes"]) for row in rows] == [
        (2, RejectReason.NULL_VALUE, 4),
        (3, RejectReason.INVALID_UTF8, 4),
        (4, RejectReason.SPECIAL_TOKEN, len(cells[3] or b"")),
        (5, RejectReason.OVER_SIZE, 6000),
    ]
    assert base64.b64decode(rows[1]["base64"]) == cells[2]
    assert rows[2]["text"].encode() == cells[3]


def test_ending_the_workers_early_prints_no_trace(
    corpus: Path, foreign: Path, tmp_path: Path
) -> None:
    """The command line turns SIGTERM into an exception; its forks must not."""
    command = [sys.executable, "-W", "ignore", "-m", "frontload.launch.cli", "data", "preprocess"]
    asked = ["--input", str(corpus), "--output-prefix", str(tmp_path / "out"), "--workers", "2"]
    ended = subprocess.run(
        [*command, *asked, "--tokenizer", str(foreign), "--json-key", "no_such_key"],
        env=os.environ | {"PYTHONPATH": str(ROOT / ".imports")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert "missing key" in ended.stderr
    assert "Traceback" not in ended.stderr
