"""Reading evaluation items: what is refused, and with which words."""

import json
from pathlib import Path

import pytest

from frontload.eval.results import read_results
from frontload.eval.suites import GenerateItem, items_of_suite, read_heldout, read_items
from frontload.recipes.errors import ArtifactError, RecipeError
from tests.unit.eval.fake_study import choice_rows, few_shot_rows, question_rows

ROWS = question_rows(per_family=1)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_suite_asks_its_own_kinds_in_file_order(tmp_path: Path) -> None:
    rows = [*choice_rows(number=2), *ROWS, *few_shot_rows(ROWS)]
    items = read_items(write(tmp_path / "items.jsonl", rows))
    sft = items_of_suite(items, "sft")
    assert [item.id for item in sft] == [row["id"] for row in ROWS]
    assert all(isinstance(item, GenerateItem) for item in sft)
    assert len(items_of_suite(items, "base")) == len(items) - len(sft)
    with pytest.raises(RecipeError, match=r"evaluate\.suite = 'chat'.*one of base, sft"):
        items_of_suite(items, "chat")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROWS[0], "kind": "essay"}, r"items.jsonl:2: kind: 'essay'; .*generate, choice"),
        ({k: v for k, v in ROWS[0].items() if k != "question"}, r"items.jsonl:2: field 'question'"),
        ({**ROWS[0], "hard": "no"}, r"items.jsonl:2: hard: 'no'; hard is true or false"),
        ({**choice_rows()[0], "gold": 3}, r"gold: 3; gold is the number of an option, 0 to 2"),
        ({**choice_rows()[0], "gold": True}, r"gold: True"),
        ({**choice_rows()[0], "options": "abc"}, r"options: 'abc'; options is a list of texts"),
        ({**choice_rows()[0], "options": ["a", 1, "c"]}, r"options: \['a', 1, 'c'\]; .*of texts"),
        ({**few_shot_rows(ROWS)[0], "exemplars": [{}, 1]}, r"exemplars: \[\{\}, 1\]"),
        ({**few_shot_rows(ROWS)[0], "exemplars": [1]}, r"exemplars: \[1\]"),
        ({**few_shot_rows(ROWS)[0], "exemplars": [{}]}, r"exemplars\[0\]: field 'question'"),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_field(
    tmp_path: Path, row: dict, message: str
) -> None:
    path = write(tmp_path / "items.jsonl", [ROWS[1], {**row, "id": "wrong"}])
    with pytest.raises(ArtifactError, match=message):
        read_items(path)


def test_two_items_of_one_id_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", [ROWS[0], ROWS[1], ROWS[0]])
    with pytest.raises(ArtifactError, match="rows 1 and 3 share the id"):
        read_items(path)


def test_a_missing_held_out_file_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no such file"):
        read_heldout(tmp_path / "heldout.jsonl")


@pytest.mark.parametrize("line", ['{"kind": "generated"}', '{"kind": "poem"}', '{"id": "x"}'])
def test_a_result_line_that_does_not_read_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ArtifactError, match=r"items.jsonl:1: a line of kind"):
        read_results(path)


def test_results_without_their_protocol_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("")
    with pytest.raises(ArtifactError, match="no protocol line"):
        read_results(path)
