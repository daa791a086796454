"""A user's own files: what is read, what is held out, and what each mistake is answered with."""

import dataclasses
import gzip
import hashlib
import json
from pathlib import Path

import pytest

from frontload.data_tools.corpus.own_counts import own_counts_lines
from frontload.data_tools.corpus.own_data import list_own_files, write_own_corpus
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.raw.manifest import read_manifest, sizes_of
from frontload.data_tools.text.words import normalise_question, question_key
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import OwnData, Pack, Tokenizer
from tests.unit.data_tools.room import Room, write_jsonl


def question(number: int) -> dict[str, str]:
    return {
        "question": f"Ann has {number} pears and buys {number + 2}. How many has she?",
        "answer": f"She has {number} + {number + 2} = {2 * number + 2}.\n#### {2 * number + 2}",
    }


@pytest.fixture
def own(tmp_path: Path) -> OwnData:
    """Files of 3 paragraphs, 40 training rows and 10 test rows."""
    (tmp_path / "base.txt").write_text("one two\nthree\n\n\nfour " + "x " * 1500 + "\n\nfive\n")
    write_jsonl(tmp_path / "train.jsonl", [question(n) for n in range(40)])
    write_jsonl(tmp_path / "test.jsonl", [question(n) for n in range(100, 110)])
    return OwnData(
        seed=1,
        base_files=(str(tmp_path / "*.txt"),),
        base_text_field="text",
        revision="",
        reasoning_files=(str(tmp_path / "train.jsonl"),),
        heldout_files=(str(tmp_path / "test.jsonl"),),
        question_field="question",
        answer_field="answer",
        final_answer_separator="####",
        heldout_rows=6,
    )


def write(recipe: OwnData, folder: Path, **changes: object) -> Path:
    folder = folder / "corpus"
    folder.mkdir(exist_ok=True)
    write_own_corpus(dataclasses.replace(recipe, **changes), folder)  # type: ignore[arg-type]
    return folder


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_worked_answers_are_split_at_the_separator(own: OwnData, tmp_path: Path) -> None:
    corpus = write(own, tmp_path)
    first = rows(corpus / "own.jsonl")[0]
    assert first["question"] == "Ann has 0 pears and buys 2. How many has she?"
    assert first["trace"] == "She has 0 + 2 = 2."
    assert first["answer"] == "2"
    assert len(rows(corpus / "own.jsonl")) == 40
    assert len(rows(corpus / "heldout.jsonl")) == 6


def test_plain_text_is_cut_at_blank_lines_into_long_documents(own: OwnData, tmp_path: Path) -> None:
    texts = [row["text"] for row in rows(write(own, tmp_path) / "base.jsonl")]
    assert len(texts) == 2
    assert texts[0].startswith("one two\nthree\n\nfour x")
    assert texts[1] == "five"


def test_json_base_text_may_be_packed(own: OwnData, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "base.jsonl.gz", "wt") as stream:
        stream.write('{"body": "some text"}\n{"body": " "}\n')
    files = (str(tmp_path / "base.jsonl.gz"),)
    corpus = write(own, tmp_path, base_files=files, base_text_field="body")
    assert [row["text"] for row in rows(corpus / "base.jsonl")] == ["some text"]
    assert read_json(corpus / "counts.json")["dropped"] == {"base: empty text": 1}


def test_evaluation_questions_never_train_even_if_spelt_otherwise(
    own: OwnData, tmp_path: Path
) -> None:
    leaked = question(103) | {"answer": "Quick.\n#### 208"}
    leaked["question"] = "  ANN has 103  pears and buys 105. How many has she? "
    write_jsonl(tmp_path / "train.jsonl", [leaked, *(question(n) for n in range(40))])
    corpus = write(own, tmp_path)
    trained = {normalise_question(row["question"]) for row in rows(corpus / "own.jsonl")}
    tested = {
        normalise_question(row["question"])
        for name in ("items", "heldout")
        for row in rows(corpus / f"{name}.jsonl")
        if "question" in row
    }
    every_test = {normalise_question(question(n)["question"]) for n in range(100, 110)}
    assert tested <= every_test
    assert not trained & every_test  # also of test rows that were not drawn
    assert read_json(corpus / "counts.json")["dropped"] == {"own: its question is held out": 1}


def test_rows_held_out_by_question_take_all_their_copies(own: OwnData, tmp_path: Path) -> None:
    twice = [question(n) for n in range(40)] * 2
    write_jsonl(tmp_path / "train.jsonl", twice)
    corpus = write(own, tmp_path, heldout_files=())
    heldout = {row["question"] for row in rows(corpus / "heldout.jsonl")}
    trained = [row["question"] for row in rows(corpus / "own.jsonl")]
    assert len(heldout) == 6
    assert len(trained) == 68
    assert not heldout & set(trained)
    for item in rows(corpus / "items.jsonl"):
        shots = {shot["question"] for shot in item.get("exemplars", ())}
        assert not shots & heldout


def test_held_out_rows_do_not_move_when_rows_are_added_behind(own: OwnData, tmp_path: Path) -> None:
    before = {row["question"] for row in rows(write(own, tmp_path) / "heldout.jsonl")}
    write_jsonl(tmp_path / "train.jsonl", [question(n) for n in range(60)])
    assert {row["question"] for row in rows(write(own, tmp_path) / "heldout.jsonl")} == before


def test_items_are_readable_by_the_evaluation(own: OwnData, tmp_path: Path) -> None:
    suites = pytest.importorskip("frontload.eval.suites")
    items = suites.read_items(write(own, tmp_path) / "items.jsonl")
    assert len(items) == 12
    for item in items:
        assert not isinstance(item, suites.ChoiceItem), "a made-up option scores below chance"
    assert len(suites.read_heldout(tmp_path / "corpus" / "heldout.jsonl")) == 6


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("How many are left?", "how many are left ?", True),
        ("How many -- in all -- are left?", "How many in all are left", True),
        ("It costs $2,000; what is left?", "It costs $2000, what is left?", True),
        ("What is 2 - 3?", "What is 2 + 3?", False),
        ("What is 2 * 3?", "What is 2 / 3?", False),
        ("What is -3 plus 1?", "What is 3 plus 1?", False),
        ("What is 2.5 doubled?", "What is 25 doubled?", False),
        ("At 3:30 how many?", "At 330 how many?", False),
        ("A ten-year plan", "A ten year plan", True),
    ],
)
def test_questions_that_differ_in_punctuation_ask_the_same(
    one: str, other: str, is_same: bool
) -> None:
    assert (question_key(one) == question_key(other)) is is_same


def test_short_test_questions_spelt_otherwise_never_train(own: OwnData, tmp_path: Path) -> None:
    ask = [{"question": "2 pears, and 3?", "answer": "2 + 3 = 5.\n#### 5"}]
    leaked = [{"question": "2 pears and 3 ?", "answer": "#### 5"}]
    write_jsonl(tmp_path / "test.jsonl", ask)
    write_jsonl(tmp_path / "train.jsonl", leaked + [question(n) for n in range(9)])
    corpus = write(own, tmp_path, heldout_rows=1)
    assert len(rows(corpus / "own.jsonl")) == 9
    assert read_json(corpus / "counts.json")["dropped"] == {"own: its question is held out": 1}


def test_line_ends_of_windows_do_not_reach_training(own: OwnData, tmp_path: Path) -> None:
    steps = {"question": "Two\r\nlines?", "answer": "First.\r\nSecond.\r\n#### 2"}
    write_jsonl(tmp_path / "train.jsonl", [steps])
    (row,) = rows(write(own, tmp_path) / "own.jsonl")
    assert (row["question"], row["trace"]) == ("Two\nlines?", "First.\nSecond.")


def test_what_became_of_the_rows_is_said_in_words(own: OwnData, tmp_path: Path) -> None:
    train = [question(n) for n in (1, 1, 2, 100)] + [{"question": "Why?", "answer": "So."}] * 3
    write_jsonl(tmp_path / "train.jsonl", train)
    counts = read_json(write(own, tmp_path) / "counts.json")
    assert own_counts_lines(counts) == [
        "3 worked answers to train on, 6 held out, 2 documents of base text.",
        "1 of the worked answers repeat a question: 2 distinct ones.",
        "Left out: 3 (reasoning_files: no final answer after ####).",
        "Left out: 1 (own: its question is held out).",
    ]


def test_the_first_reader_fills_in_the_digests(own: OwnData, tmp_path: Path) -> None:
    names = ("base.txt", "train.jsonl", "test.jsonl")
    found = read_manifest(write(own, tmp_path) / "inputs.json")
    for file, name in zip(found, names, strict=True):
        data = (tmp_path / name).read_bytes()
        assert (file.path, file.size_bytes) == (tmp_path / name, len(data))
        assert file.sha256 == hashlib.sha256(data).hexdigest()


def test_files_of_other_sizes_than_planned_are_refused(own: OwnData, tmp_path: Path) -> None:
    sizes = sizes_of(list_own_files(own))
    write(own, tmp_path, files=sizes)
    write_jsonl(tmp_path / "train.jsonl", [question(1)])
    with pytest.raises(RecipeError, match="own.files: .*train.jsonl: 1.. bytes; the plan was made"):
        write(own, tmp_path, files=sizes)


def test_the_rest_of_the_room_takes_it(own: OwnData, room: Room) -> None:
    """import_own -> tokenizer -> curate -> index, pack, with byte-level BPE."""
    room.corpus = room.run("import_own", own, name="own")
    recipe = Tokenizer(kind="byte_bpe", vocab_size=400)
    room.run("train_tokenizer", recipe, name="tokenizer", corpus=room.corpus)
    room.mix("base", "base")
    room.mix("own", "own")
    assert read_json(room.index("own") / "index.json")["num_documents"] == 40
    pack = Pack(sequence_tokens=128, tokens=128 * 8, over_long="drop", seed=1)
    inputs = {"documents": room.folder / "mix-own", "tokenizer": room.folder / "tokenizer"}
    folder = room.run("pack", pack, name="pack", **inputs)
    assert read_json(folder / "pack.json")["conversations_packed"] == 40


def broken(folder: Path, text: str) -> tuple[str, ...]:
    (folder / "broken.jsonl").write_text(text)
    return (str(folder / "broken.jsonl"),)


GOOD = json.dumps(question(1)) + "\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "broken.jsonl: no row; 'answer' holds steps"),
        ('{"question": "q", "answer": "no separator"}\n', "1 rows, none with a question"),
        ('{"question": "q", "answer": "steps #### "}\n', "1 rows, none with a question"),
        (GOOD + '{"question": "q", "answer\n', "broken.jsonl:2: broken JSON, and 1 of 2 rows"),
        (GOOD + "[1]\n", "broken.jsonl:2: not an object, and 1 of 2 rows"),
        (
            '{"question": "q", "anwser": "a"}\n',
            "broken.jsonl: fields anwser, question (nearest: 'anwser')",
        ),
        ('{"question": "q", "answer": 7}\n', "1 rows, none with a question"),
    ],
)
def test_a_bad_reasoning_file_is_answered_by_file_line_and_field(
    own: OwnData, tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        write(own, tmp_path, reasoning_files=broken(tmp_path, text))
    assert told in str(caught.value)
    assert caught.value.rule
    assert caught.value.do
    assert not list((tmp_path / "corpus").iterdir())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"question_field": "questoin"},
            "fields answer, question (nearest: 'question'); its adapter reads questoin",
        ),
        ({"reasoning_files": ("no/such/*.jsonl",)}, "own.reasoning_files no/such/*.jsonl: no file"),
        ({"base_files": ()}, "own.base_files: no file"),
        ({"heldout_rows": 11}, "own.heldout_files has 10 distinct questions"),
        ({"heldout_rows": 0}, "write 1 to 10"),
        ({"heldout_files": (), "heldout_rows": 40}, "no row left for training"),
    ],
)
def test_a_wrong_field_is_refused(
    own: OwnData, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        write(own, tmp_path, **changes)
    assert told in str(caught.value)


def test_bad_base_files_are_refused(own: OwnData, tmp_path: Path) -> None:
    (tmp_path / "empty.md").write_text("\n\n")
    with pytest.raises(RecipeError, match="own.base_files: no text in .*empty.md; the base text"):
        write(own, tmp_path, base_files=(str(tmp_path / "empty.md"),))
    with pytest.raises(RecipeError, match="own.base_files .*: a folder; .* name the files in it"):
        write(own, tmp_path, base_files=(str(tmp_path),))
    (tmp_path / "latin.md").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(RecipeError, match="latin.md:2: byte 0xe9 at column 4"):
        write(own, tmp_path, base_files=(str(tmp_path / "latin.md"),))
    both = (str(tmp_path / "base.txt"), str(tmp_path / "*.txt"))
    with pytest.raises(RecipeError, match="already named"):
        write(own, tmp_path, base_files=both)


def test_rows_of_messages_are_read_and_dialogues_counted(own: OwnData, tmp_path: Path) -> None:
    said = "<think>She has 3.</think>3"
    one = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": said}]
    rows_of_chat = [{"messages": one}, {"messages": one * 2}, {"messages": one[:1]}]
    write_jsonl(tmp_path / "train.jsonl", rows_of_chat)
    corpus = write(own, tmp_path)
    [row] = rows(corpus / "own.jsonl")
    assert (row["question"], row["trace"], row["answer"]) == ("Q?", "She has 3.", "3")
    assert read_json(corpus / "counts.json")["dropped"] == {
        "reasoning_files: it does not end with the assistant": 1,
        "reasoning_files: more than one question": 1,
    }


def test_a_few_broken_rows_are_counted(own: OwnData, tmp_path: Path) -> None:
    with open(tmp_path / "train.jsonl", "a") as stream:
        stream.write("".join(json.dumps(question(n)) + "\n" for n in range(200, 300)) + "{\n")
    corpus = write(own, tmp_path)
    assert len(rows(corpus / "own.jsonl")) == 140
    assert read_json(corpus / "counts.json")["dropped"] == {"reasoning_files: broken JSON": 1}


def test_texts_that_hold_a_held_out_question_are_left_out(own: OwnData, tmp_path: Path) -> None:
    """Also of test rows that were not drawn, in base text and inside of other questions."""
    asked = question(103)["question"]
    (tmp_path / "more.txt").write_text(f"A page of puzzles:\n{asked.upper()}\nAnd more.\n")
    hidden = {"question": f"Tell me again: {asked}", "answer": "It is so.\n#### 208"}
    with open(tmp_path / "train.jsonl", "a") as stream:
        stream.write(json.dumps(hidden) + "\n")
    corpus = write(own, tmp_path)
    assert read_json(corpus / "counts.json")["dropped"] == {
        "base: holds a held-out question": 1,
        "own: holds a held-out question": 1,
    }
    assert len(rows(corpus / "own.jsonl")) == 40
    assert not any("103" in row["text"] for row in rows(corpus / "base.jsonl"))
