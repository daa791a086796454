"""Readers of raw files: inputs, lines, rows; damage is told by file and place, rows by reason."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from frontload.data_tools.raw import lines as raw_lines
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.raw.lines import OverSizeLine, RangeReader, split_lines
from frontload.data_tools.raw.parse import BadRow, RawRow, RejectReason, parse_line, take_text
from frontload.data_tools.raw.rows import read_rows
from frontload.recipes.errors import RecipeError


def test_inputs_are_in_the_order_given_and_a_globs_own_sorted(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.jsonl.gz", "x[1].jsonl"):
        (tmp_path / name).write_bytes(b"")
    patterns = [tmp_path / "c.jsonl.gz", tmp_path / "[ab].jsonl", tmp_path / "x[1].jsonl"]
    found = expand_inputs([str(pattern) for pattern in patterns])
    assert [file.name for file in found] == ["c.jsonl.gz", "a.jsonl", "b.jsonl", "x[1].jsonl"]


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (["a.jsonl", "*.jsonl"], "a.jsonl, which is already named; a file is read once"),
        (["a.jsonl", "link.jsonl"], "link.jsonl, the same file as a.jsonl, which is already named"),
        (["folder"], "a folder; inputs are files: .*; name the files in it"),
        (["nowhere.jsonl"], "there is no such file"),
        (["no*.jsonl"], "no file; every pattern names at least one file"),
        (["fold*"], "only folders such as .*folder"),
        (["a.csv"], "a name that ends in '.csv'; the suffix tells the format"),
        (["bare"], "a name with no suffix"),
        (["pipe.jsonl"], "no plain file"),
    ],
)
def test_inputs_that_cannot_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patterns: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "a.csv", "bare"):
        Path(name).write_bytes(b"")
    Path("link.jsonl").symlink_to("a.jsonl")
    Path("folder").mkdir()
    os.mkfifo("pipe.jsonl")
    if patterns == ["a.jsonl", "*.jsonl"]:
        Path("link.jsonl").unlink()
        Path("pipe.jsonl").unlink()
    with pytest.raises(RecipeError, match=told):
        expand_inputs(patterns)


def test_an_input_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"{}\n")
    file.chmod(0)
    if os.access(file, os.R_OK):  # the tests' user may be allowed everything
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RecipeError, match="no permission to read it"):
        expand_inputs([str(file)])


GOOD = {"text": "caf\u00e9 \U0001f600", "n": 1}
LINES: list[tuple[bytes, RejectReason | dict | None]] = [
    (json.dumps(GOOD).encode(), GOOD),
    (json.dumps(GOOD, ensure_ascii=False).encode() + b"\r", GOOD),
    (b'{"text": "a", "loss": NaN}', None),
    (b'{"text": "a"', RejectReason.BROKEN_JSON),
    (b'{"text": "a"} {"text": "b"}', RejectReason.BROKEN_JSON),
    (b'{"text": "' + b"\x00" + b'"}', RejectReason.BROKEN_JSON),
    (b"[" * 100_000, RejectReason.BROKEN_JSON),
    (b'["text"]', RejectReason.NOT_AN_OBJECT),
    (b'"text"', RejectReason.NOT_AN_OBJECT),
    (b"NaN", RejectReason.NOT_AN_OBJECT),
    (b'{"text": "\xff\xfe"}', RejectReason.INVALID_UTF8),
    (b'{"text": "\xed\xa0\x80"}', RejectReason.INVALID_UTF8),
    (b'{"text": "\\ud800 a"}', RejectReason.LONE_SURROGATE),
    (b'{"text": "\\udc00\\ud800"}', RejectReason.LONE_SURROGATE),
]


@pytest.mark.parametrize(("line", "expected"), LINES, ids=lambda value: str(value)[:24])
def test_a_line_is_an_object_or_a_reason(line: bytes, expected: RejectReason | dict | None) -> None:
    found = parse_line(line)
    if expected is None:
        assert isinstance(found, dict)
    else:
        assert found == expected


def test_blank_lines_are_no_rows_but_count(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n\n  \t\r\n{"text": "b"}\nbroken')
    rows = list(read_rows(file))
    assert [(row.number, type(row)) for row in rows] == [(1, RawRow), (4, RawRow), (5, BadRow)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "a"}, "a"),
        ({"text": " \n\t"}, RejectReason.EMPTY),
        ({"text": ""}, RejectReason.EMPTY),
        ({"body": "a"}, RejectReason.MISSING_KEY),
        ({"text": None}, RejectReason.NULL_VALUE),
        ({"text": ["a"]}, RejectReason.WRONG_TYPE),
        ({"text": 3}, RejectReason.WRONG_TYPE),
    ],
)
def test_take_text(row: dict, expected: str) -> None:
    found = take_text(row, "text")
    assert found == expected
    assert isinstance(found, RejectReason) == isinstance(expected, RejectReason)


def write_plain(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


def write_gzip(file: Path, data: bytes) -> Path:
    half = len(data) // 2  # two members, as `cat a.gz b.gz` makes them
    packed = gzip.compress(data[:half]) + gzip.compress(data[half:])
    return write_plain(file.with_name(file.name + ".gz"), packed)


def write_zstd(file: Path, data: bytes) -> Path:
    half = len(data) // 2
    packed = zstandard.compress(data[:half]) + zstandard.compress(data[half:])
    return write_plain(file.with_name(file.name + ".zst"), packed)


def write_parquet(file: Path, data: bytes) -> Path:
    rows = [json.loads(line) for line in data.splitlines()]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, file.with_suffix(".parquet"), row_group_size=700)
    return file.with_suffix(".parquet")


WRITERS = [write_plain, write_gzip, write_zstd, write_parquet]
ROWS = [{"text": f"row {number} \u00e9" * (number % 50), "n": number} for number in range(3000)]
DATA = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_rows(
    tmp_path: Path, write: Callable[[Path, bytes], Path]
) -> None:
    file = write(tmp_path / "a.jsonl", DATA)
    rows = list(read_rows(file, columns=["text", "n"]))
    assert [row.value for row in rows if isinstance(row, RawRow)] == ROWS
    assert [row.number for row in rows] == list(range(1, len(ROWS) + 1))


@pytest.mark.parametrize("write", [write_gzip, write_zstd, write_parquet])
def test_a_cut_file_is_refused_with_its_name_and_place(
    tmp_path: Path, write: Callable[[Path, bytes], Path]
) -> None:
    file = write(tmp_path / "a.jsonl", DATA)
    whole = file.read_bytes()
    for size in (len(whole) // 3, len(whole) - 3):
        file.write_bytes(whole[:size])
        with pytest.raises(RecipeError, match=rf"{file.name}.* byte \d+") as caught:
            list(read_rows(file))
        assert caught.value.exit_code == 2


def test_bytes_behind_the_end_of_a_packed_file_are_told_with_a_way_out(tmp_path: Path) -> None:
    """`gzip -t` calls a file padded with zeros sound, so another way has to be named."""
    file = write_gzip(tmp_path / "a.jsonl", DATA)
    file.write_bytes(file.read_bytes() + bytes(512))
    with pytest.raises(RecipeError, match="passes over what follows its end.*pack it anew"):
        list(read_rows(file))


def test_a_damaged_page_is_refused_by_row_group(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.jsonl", DATA)
    at = pq.ParquetFile(file).metadata.row_group(2).column(0).data_page_offset
    data = bytearray(file.read_bytes())
    data[at : at + 8] = b"\xff" * 8
    file.write_bytes(data)
    with pytest.raises(RecipeError, match="a.parquet, row group 2 from byte"):
        list(read_rows(file))


def test_a_missing_column_is_refused_with_the_nearest(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.jsonl", DATA)
    with pytest.raises(RecipeError, match="columns text, n .nearest: 'text'."):
        list(read_rows(file, columns=["texts"]))


def test_invalid_utf8_in_a_table_is_a_bad_row(tmp_path: Path) -> None:
    values = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary())
    text = pa.StringArray.from_buffers(3, *values.buffers()[1:])
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    rows = list(read_rows(tmp_path / "a.parquet"))
    assert [getattr(row, "reason", "good") for row in rows] == [
        "good",
        RejectReason.INVALID_UTF8,
        "good",
    ]
    assert (rows[1].raw, rows[1].num_bytes) == (b"\xff\xfe", 2)  # type: ignore[union-attr]


def test_what_python_cannot_hold_is_read_as_text(tmp_path: Path) -> None:
    """A time after the year 9999: other columns, and the rows, are as good as they were."""
    late = pa.array([0, 10**18], pa.timestamp("us"))
    table = pa.table({"text": ["a", "b"], "at": late, "n": pa.array([{"at": 1}, None])})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = list(read_rows(tmp_path / "a.parquet"))
    assert [row.value["text"] for row in rows if isinstance(row, RawRow)] == ["a", "b"]
    assert isinstance(rows[1], RawRow)
    assert "out of range" in rows[1].value["at"]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match="2 columns of that name"):
        list(read_rows(tmp_path / "a.parquet", columns=["text"]))


@pytest.mark.parametrize("write", WRITERS)
def test_a_row_over_size_is_told_and_the_next_is_read(
    tmp_path: Path, write: Callable[[Path, bytes], Path]
) -> None:
    rows = [{"text": "a"}, {"text": "b" * 3_000_000}, {"text": "c"}]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    found = list(read_rows(write(tmp_path / "a.jsonl", data), max_row_bytes=1_000_000))
    assert [getattr(row, "reason", "good") for row in found] == [
        "good",
        RejectReason.OVER_SIZE,
        "good",
    ]
    bad = found[1]
    assert isinstance(bad, BadRow)
    assert bad.num_bytes >= 3_000_000
    assert len(bad.raw) <= raw_lines.HEAD_BYTES


def test_a_line_without_end_is_skipped_in_bounded_memory() -> None:
    """1 GB without a line break, then a good row: no more than the limit and a block is held."""
    block = b"x" * raw_lines.BLOCK_BYTES
    left = 1_000

    def read(size: int) -> bytes:
        nonlocal left
        left -= 1
        return block if left >= 0 else (b"\n{}\n" if left == -1 else b"")

    import tracemalloc

    tracemalloc.start()
    found = [line for lines in split_lines(read, max_row_bytes=4 << 20) for line in lines]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    head = block[: raw_lines.HEAD_BYTES]
    assert found == [OverSizeLine(1_000 * raw_lines.BLOCK_BYTES, head), b"{}"]
    assert peak < 16 << 20  # the limit, once in parts and once joined, and blocks


@given(
    lines=st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=20),
    ends=st.booleans(),
    cuts=st.lists(st.integers(0, 200), max_size=6),
    block=st.integers(1, 7),
)
def test_ranges_that_tile_a_file_give_every_line_once(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    ends: bool,
    cuts: list[int],
    block: int,
) -> None:
    data = b"\n".join(lines) + (b"\n" if ends else b"")
    file = tmp_path_factory.getbasetemp() / "tiled.jsonl"
    file.write_bytes(data)
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    found, seen = [], []
    for start, stop in zip(bounds, bounds[1:], strict=False):
        reader = RangeReader(file, start=start, stop=stop, seen=lambda part: seen.append(part))
        blocks = split_lines(lambda size: reader(block), max_row_bytes=1 << 20)  # noqa: B023
        found += [line for lines in blocks for line in lines]
        reader.close()
    assert found == (data.split(b"\n")[:-1] if data.endswith(b"\n") or not data else lines)
    assert b"".join(seen) == data
