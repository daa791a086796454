"""The text of a row from fields below others, of several fields, of lists, of a table's bytes."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from frontload.data_tools.raw.parse import RejectReason
from frontload.data_tools.text.row_text import TextRule, row_text
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError
from tests.unit.data_command import run_data_command
from tests.unit.data_tools_preprocess.files import EOD

ROW = {
    "meta": {"text": "below", "deep": {"er": "lowest"}, "none": None},
    "a.b": "by its whole name",
    "a": {"b": "below"},
    "question": "2 + 2?",
    "answer": "4",
    "sentences": ["One.", "Two."],
    "blank": " ",
    "count": 3,
}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("meta.text", "below"),
        ("meta.deep.er", "lowest"),
        ("a.b", "by its whole name"),
        ("{question}\\n{answer}", "2 + 2?\n4"),
        ("Q: {question}\tA: {meta.text}.", "Q: 2 + 2?\tA: below."),
        ("{{{answer}}}", "{4}"),
        ("{sentences: }", "One. Two."),
        ("{sentences:\\n}", "One.\nTwo."),
        ("{blank}{answer}", " 4"),
        ("{blank}", RejectReason.EMPTY),
        ("meta.gone", RejectReason.MISSING_KEY),
        ("question.text", RejectReason.MISSING_KEY),
        ("meta.none", RejectReason.NULL_VALUE),
        ("{question}{count}", RejectReason.WRONG_TYPE),
        ("{sentences}", RejectReason.WRONG_TYPE),
        ("sentences", RejectReason.WRONG_TYPE),
    ],
)
def test_a_key_names_fields_below_others_and_several(key: str, expected: str) -> None:
    found = row_text(TextRule(key=key)).look_again(ROW)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("key", ["{", "{}", "words {{}}", "{a[0]}", "{a!r}"])
def test_a_template_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(RecipeError, match="a template has fields in braces"):
        row_text(TextRule(key=key))


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("key", ["meta.text", "{q}\\n{meta.text}", "{q}", "{s: }"])
def test_lines_and_tables_give_the_same_documents(
    tmp_path: Path, foreign: Path, suffix: str, key: str
) -> None:
    rows = [{"q": f"q{n}", "meta": {"text": f"the {n}"}, "s": ["a", f"{n}"]} for n in range(50)]
    file = write(tmp_path / f"a.{suffix}", rows)
    words = ("--input", file, "--output-prefix", tmp_path / "P", "--tokenizer", foreign)
    options = ("--append-eod", "--eod-token", EOD, "--workers", 1)
    assert run_data_command("preprocess", *words, "--json-key", key, *options) == 0
    texts = {
        "meta.text": [f"the {n}" for n in range(50)],
        "{q}\\n{meta.text}": [f"q{n}\nthe {n}" for n in range(50)],
        "{q}": [f"q{n}" for n in range(50)],
        "{s: }": [f"a {n}" for n in range(50)],
    }[key]
    plain = write(tmp_path / "plain.jsonl", [{"text": text} for text in texts])
    words = ("--input", plain, "--output-prefix", tmp_path / "Q", "--tokenizer", foreign)
    assert run_data_command("preprocess", *words, *options) == 0
    for kind in (".bin", ".idx"):
        assert (tmp_path / f"P{kind}").read_bytes() == (tmp_path / f"Q{kind}").read_bytes()


def test_bytes_of_a_table_are_text_where_they_are_utf8(tmp_path: Path, foreign: Path) -> None:
    cells = [f"the caf\u00e9 {n}".encode() for n in range(20)] + [b"caf\xe9"]
    table = pa.table({"text": pa.array(cells, pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet")
    words = ("--input", tmp_path / "a.parquet", "--output-prefix", tmp_path / "P")
    options = ("--tokenizer", foreign, "--workers", 1, "--max-bad-rate", 0.1)
    assert run_data_command("preprocess", *words, *options) == 0
    manifest = json.loads((tmp_path / "P.manifest.json").read_text())
    assert (manifest["num_documents"], manifest["dropped"]) == (20, {"invalid UTF-8": 1})
    assert TextTokenizer.load(foreign).encode("the caf\u00e9 0")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"text": "a"}, {"text": "b"}]', "one JSON array: .*jq -c '.\\[\\]'"),
        ('[\n {"text": "a"}\n]\n', "one JSON array"),
        ('\ufeff[\n{"text": "a"}]', "one JSON array"),
        ('{\n "text": "a"\n}\n', "its objects take several lines: .*jq -c ."),
    ],
)
def test_json_that_is_no_lines_is_refused_as_what_it_is(
    tmp_path: Path, foreign: Path, text: str, told: str
) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding="utf-8")
    words = ("--input", file, "--output-prefix", tmp_path / "P", "--tokenizer", foreign)
    with pytest.raises(RecipeError, match=told):
        run_data_command("preprocess", *words, "--workers", 1)
    assert not list(tmp_path.glob("P.*n"))


def test_the_way_out_of_a_list_is_told(tmp_path: Path, foreign: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"text": ["One.", "Two."]}])
    words = ("--input", file, "--output-prefix", tmp_path / "P", "--tokenizer", foreign)
    with pytest.raises(RecipeError, match=r"wrong type 1.*'\{FIELD: \}' joins a list of texts"):
        run_data_command("preprocess", *words, "--workers", 1)
