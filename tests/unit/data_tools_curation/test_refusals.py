"""Wrong input of `frontload data curate`: one message in four parts, exit 2, nothing written."""

import pytest

from frontload.data_tools.disk.publish import workplace
from tests.unit.data_tools_curation.workbench import Workbench

SOURCES = "sources: {own: {files: [r.jsonl], adapter: gsm8k, domain: math}}\n"
SETS = "sets: {shq: {members: [own]}}\n"
ROWS = [{"question": "q one", "answer": "s\n#### 1"}, {"question": "q two", "answer": "s\n#### 2"}]


@pytest.fixture
def ready(bench: Workbench) -> Workbench:
    """Rows and a recipe that is right."""
    bench.rows("r.jsonl", ROWS)
    bench.recipe(SOURCES + SETS)
    return bench


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("sources.own.adapter=gsm8", ("command line", "'gsm8'", "write 'gsm8k'")),
        ("sources.own.adapter=openthoughts3", ("r.jsonl", "conversations or messages")),
        ("sources.own.files=[none.jsonl]", ("sources.own.files", "no such file")),
        ("sources.own.files=[empty.jsonl]", ("sources.own.files: no row in empty.jsonl",)),
        ("sources.own.files=[empty.jsonl, none.parquet]", ("no row in empty.jsonl, none.parquet",)),
        ("sources.own.files=[r.jsonl, broken.jsonl]", ("broken.jsonl", "no row that can be read")),
        ("sources.own.files=[broken.jsonl]", ("broken.jsonl", "no row that can be read")),
        ("sources.own.files=[]", ("a source has one file or more",)),
        ('sources.own.domain=""', ("it is not guessed",)),
        ("sources.own.unsplit=guess", ("drop, whole_text",)),
        ("sources.own.files=[r.jsonl, r.jsonl]", ("a file is read once",)),
        ("tokenizer=missing.json", ("missing.json", "named tokenizer")),
        ('tokenizer=""', ("not stated", "named tokenizer")),
        ("tokenizer=r.jsonl", ("no Hugging Face tokenizer",)),
        ("sets.shq.members=[owm]", ("'owm'", "write 'own'")),
        ("sets.shq.members=[]", ("one or more members",)),
        ("sets.shq.duplicates=[nearly]", ("'nearly'", "write 'near'")),
        ("sets.shq.share_of_member={own: 1.5}", ("above 0 and at most 1",)),
        ("sets.shq.share_of_member={other: 0.5}", ("'other'",)),
        ("sets.own={members: [shq]}", ("the name of a source",)),
        ("sets={}", ("name at least one of the sets",)),
        ("overlaps={a: [shq]}", ("between two sets",)),
        ("overlaps={a: [shq, sha]}", ("write 'shq'",)),
        ("duplicates.bands=7", ("bands divide the 128",)),
        ("duplicates.seed=99999999999999999999", ("a whole number has 64 bits",)),
        ("duplicates.seed=-1", ("0 or more",)),
        ("multi_turn_answer=first", ("last, sum",)),
        ("heldout_share=1.0", ("below 1",)),
        ("sets.shq.answer_tokens_abov=9", ("write 'answer_tokens_above'",)),
    ],
)
def test_a_wrong_recipe_is_refused(ready: Workbench, override: str, parts: tuple[str, ...]) -> None:
    ready.rows("empty.jsonl", [])
    ready.rows("none.parquet", [])
    ready.rows("broken.jsonl", ["{", "[1]"])
    message = ready.refusal("mine.yaml", override, "--out", "out")
    for part in parts:
        assert part in message, message


def test_a_wrong_name_in_the_file_is_told_with_its_line(ready: Workbench) -> None:
    ready.recipe(SOURCES.replace("gsm8k", "gsm") + SETS)
    message = ready.refusal("mine.yaml", "--out", "out")
    assert "mine.yaml:3: sources.own.adapter: 'gsm';" in message
    assert "write 'gsm8k'" in message


def test_a_file_of_two_sources_is_refused(ready: Workbench) -> None:
    more = "sources.copy={files: [r.jsonl], adapter: gsm8k, domain: math}"
    assert "source own too" in ready.refusal("mine.yaml", more, "--out", "out")


def test_rows_without_the_field_that_the_recipe_names(ready: Workbench) -> None:
    more = "sources.own={files: [r.jsonl], adapter: plain_text, domain: web, text_field: answers}"
    assert "(nearest: 'answer')" in ready.refusal("mine.yaml", more, "--out", "out")


def test_names_that_are_no_recipe_or_no_place(ready: Workbench) -> None:
    assert "write 'defaults'" in ready.refusal("default", "--out", "out")
    assert "make the folder first" in ready.refusal("mine.yaml", "--out", "none/out")
    (ready.folder / "full").mkdir()
    assert "no curation" in ready.refusal("mine.yaml", "--out", "full")
    assert "1 or more" in ready.refusal("mine.yaml", "--out", "out", "--workers", "0")
    rejects = ("--rejects", "none/rejects.jsonl")
    assert "outside of the output" in ready.refusal("mine.yaml", "--out", "out", *rejects)


def test_a_set_without_a_row_is_refused_and_nothing_is_published(ready: Workbench) -> None:
    words = ("mine.yaml", "sets.shq.answer_tokens_above=9", "--out", "out")
    code, _, message = ready.run(*words)
    assert code == 2
    assert "no row left" in message
    assert "2 left out (own: answer of 9 tokens or fewer)" in message
    assert not (ready.folder / "out").exists()
    code, _, message = ready.run("mine.yaml", "--out", "out")
    assert code == 0, message


def test_a_source_with_an_empty_file_among_others_is_read(ready: Workbench) -> None:
    ready.rows("empty.jsonl", [])
    ready.rows("none.parquet", [])
    files = "sources.own.files=[empty.jsonl, r.jsonl, none.parquet]"
    code, text, progress = ready.run("mine.yaml", files, "--out", "out")
    assert code == 0, progress
    assert "own: 2 of 2 rows kept" in text
    assert "file 1 of 3: empty.jsonl, 0 of 0 rows kept" in progress
    assert "file 3 of 3: none.parquet, 0 of 0 rows kept" in progress


def test_two_runs_at_one_folder(ready: Workbench) -> None:
    with workplace(ready.folder / "out", asked="--out"):
        assert "another run" in ready.refusal("mine.yaml", "--out", "out")
    assert ready.run("mine.yaml", "--out", "out")[0] == 0
