"""Rows of conversations as text by a chat template: what is encoded, and what is left out."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.preprocess.merge import merge
from frontload.data_tools.preprocess.request import PreprocessRequest, Shard, SpecialText
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.text.document import BaseText, Conversation
from frontload.data_tools.text.render import encode_documents
from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.data_tools.text.train_tokenizer import train_byte_pairs
from frontload.recipes.errors import RecipeError
from tests.unit.data_tools.chats import CHATML, chatml_tokenizer, dialogue
from tests.unit.data_tools.room import write_jsonl
from tests.unit.data_tools_preprocess.files import pair

ROWS = [
    {"id": "a", "text": "Some base text, 12 of it.  "},
    {"id": "b", "question": "What is 2 + 2?", "trace": "2 + 2 = 4", "answer": "4"},
    {"id": "c", "question": "Name a colour.", "trace": "", "answer": "Red"},
    {"id": "d", "question": "Two\nlines?", "trace": "one\n\ntwo", "answer": " yes "},
]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    texts = [text for row in ROWS for text in row.values()]
    trained = train_byte_pairs(texts * 3, vocab_size=320)
    (folder / "tokenizer.json").write_text(trained.tokenizer.to_json())
    return folder


def written(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def request(tokenizer: Path, file: Path, **fields: object) -> PreprocessRequest:
    values = {"append_eod": True, "output_prefix": file.with_name("P"), "is_chat": True} | fields
    return PreprocessRequest(inputs=[file], tokenizer=tokenizer, **values)  # type: ignore[arg-type]


def ids_of(prefix: Path) -> list[list[int]]:
    reader = IndexedReader(prefix)
    return [reader.document(number).tolist() for number in range(reader.num_documents)]


@pytest.mark.parametrize("append_eod", [True, False])
def test_the_ids_are_those_of_the_rendered_rows(
    ours: Path, tmp_path: Path, append_eod: bool
) -> None:
    """Of base text and of conversations, whose prompt and answer are encoded apart there."""
    file = written(tmp_path / "rows.jsonl", ROWS)
    manifest = preprocess(request(ours, file, append_eod=append_eod))
    rows = [
        BaseText(**row) if "text" in row else Conversation(**row, family="f", domain="d")
        for row in ROWS
    ]
    expected = encode_documents(TextTokenizer.load(ours), rows, append_eod=append_eod)
    if not append_eod:
        expected[0] = TextTokenizer.load(ours).encode_batch([ROWS[0]["text"]])[0]
    assert ids_of(tmp_path / "P") == expected
    assert manifest["dropped"] == {}
    assert len(manifest["template_sha256"]) == 64


def test_a_dialogue_is_one_document_with_one_end(ours: Path, tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "2"},
    ]
    preprocess(request(ours, written(tmp_path / "rows.jsonl", [{"messages": messages}])))
    [ids] = ids_of(tmp_path / "P")
    text = TextTokenizer.load(ours).decode(ids)
    assert ids.count(END) == 2
    assert ids[-1] == END
    assert text.index("One?") < text.index("Two?")


def test_a_template_of_another_origin_writes_the_text(tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer(tmp_path / "chatml")
    file = written(tmp_path / "rows.jsonl", [dialogue("Hello there.", "Hi.")])
    preprocess(request(tokenizer, file, append_eod=False))
    [ids] = ids_of(tmp_path / "P")
    text = TextTokenizer.load(tokenizer).decode(ids)
    assert text.startswith("<|im_start|>user")
    assert "Hi.<|im_end|>" in text


def test_what_is_no_conversation_or_poses_as_structure_is_counted(
    ours: Path, tmp_path: Path
) -> None:
    bad = [
        {"text": "say <|end|>"},
        {"question": "say <|user|>", "trace": "", "answer": "x"},
        {"question": "no answer", "trace": "", "answer": " "},
        {"messages": [{"role": "assistant", "content": "first"}]},
        {"text": " "},
        {"body": "x"},
    ]
    file = written(tmp_path / "rows.jsonl", [*ROWS, *bad])
    found = preprocess(request(ours, file, max_bad_rate=1.0, special_text=SpecialText.ENCODE))
    assert found["num_documents"] == len(ROWS)
    assert found["dropped"] == {
        "empty text": 1,
        "no conversation that the chat template writes": 3,
        "spells a special token": 2,
    }
    with pytest.raises(RecipeError, match="6 of 10 rows cannot be used .*mend the rows or --chat"):
        preprocess(request(ours, file, output_prefix=tmp_path / "Q"))


def test_tables_and_shards_give_the_bytes_of_the_lines(ours: Path, tmp_path: Path) -> None:
    rows = [row | {"id": str(number)} for number in range(40) for row in ROWS]
    preprocess(request(ours, written(tmp_path / "rows.jsonl", rows)))
    fields = ("id", "text", "question", "trace", "answer")
    table = pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in fields]))
    pq.write_table(table, tmp_path / "rows.parquet")
    preprocess(request(ours, tmp_path / "rows.parquet", output_prefix=tmp_path / "T"))
    assert pair(tmp_path / "T") == pair(tmp_path / "P")
    shards = []
    for number in (1, 2):
        one = request(
            ours, tmp_path / "rows.jsonl", output_prefix=tmp_path / "S", part_bytes=2000,
            shard=Shard(number=number, of=2), workers=2,
        )  # fmt: skip
        preprocess(one)
        shards.append(one.prefix)
    merge(shards, output_prefix=tmp_path / "M")
    assert pair(tmp_path / "M") == pair(tmp_path / "P")


def test_by_command_the_output_is_proven_and_explained(
    frontload: Callable[..., int], tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "rows.jsonl", [{"question": " ", "answer": ""}, *ROWS])
    words = ["--input", file, "--output-prefix", tmp_path / "P", "--tokenizer", ours, "--chat"]
    words += ["--append-eod", "--max-bad-rate", 0.5, "--workers", 1]
    assert frontload("preprocess", *words) == 0
    assert frontload("verify", tmp_path / "P", "--tokenizer", ours) == 0
    capsys.readouterr()
    words = [tmp_path / "P", 1, "--tokenizer", ours, "--input", file]
    assert frontload("explain", *words) == 0
    assert "rows.jsonl row 3" in capsys.readouterr().out


def test_a_template_that_writes_the_day_is_given_the_stated_one(
    tmp_path: Path, frontload: Callable[..., int]
) -> None:
    folder = chatml_tokenizer(tmp_path / "t", template="{{ strftime_now('%d %b %Y') }} " + CHATML)
    file = write_jsonl(tmp_path / "rows.jsonl", [dialogue("a", "b")])
    words = ["preprocess", "--chat", "--input", file, "--tokenizer", folder, "--workers", 1]
    with pytest.raises(RecipeError, match="it writes the day, and none is stated"):
        frontload(*words, "--output-prefix", tmp_path / "P")
    words += ["--output-prefix", tmp_path / "P", "--date", "2026-01-31"]
    with pytest.raises(RecipeError, match="--date 2026-01-31: no --chat"):
        frontload(*(word for word in words if word != "--chat"))
    assert not list(tmp_path.glob("P*"))
    assert frontload(*words) == 0
    text = TextTokenizer.load(folder).decode(IndexedReader(tmp_path / "P").sequence(0).tolist())
    assert text.startswith("31 Jan 2026<|im_start|>user")
    assert json.loads((tmp_path / "P.manifest.json").read_text())["day"] == "2026-01-31"
