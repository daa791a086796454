"""Rows of benchmarks: from local files, in the hub's layout, made up; what is wrong is refused."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from frontload.data_tools.disk.files import file_sha256
from frontload.eval.protocol.data_root import DataRoot, SplitName
from frontload.eval.protocol.gather import GatherReport, GatherRequest, gather
from frontload.recipes.errors import ArtifactError, FrontloadError, RecipeError

AIME = SplitName(dataset="math-ai/aime25", part="default", split="test")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def aime(count: int) -> list[dict[str, Any]]:
    return [{"problem": f"What is 1 + {n}?", "expected_answer": str(n + 1)} for n in range(count)]


def gathered(root: Path, *sources: object, only: tuple[str, ...] = ()) -> list[GatherReport]:
    names = tuple(map(str, sources))
    return gather(root, GatherRequest(sources=names, datasets=only, token=None))


@pytest.fixture
def local(tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    write_jsonl(folder / "aime25.jsonl", aime(30))
    return folder


def test_local_files_become_a_proved_folder_in_the_hubs_layout(local: Path, tmp_path: Path) -> None:
    reports = {one.split.dataset: one for one in gathered(tmp_path / "root", local)}
    assert (reports[AIME.dataset].num_rows, reports[AIME.dataset].origin) == (30, "aime25.jsonl")
    assert reports["Idavidrein/gpqa"].num_rows == 0, "what is absent is told, and no error"
    root = DataRoot.open(tmp_path / "root")
    assert root.read(AIME)[7] == {"problem": "What is 1 + 7?", "answer": "8"}, "the hub's names"
    assert list(root.entries) == [AIME]
    # the hub's own reader takes the folder, and so does `--from` it
    again = gathered(tmp_path / "again", tmp_path / "root", only=(AIME.dataset,))
    assert [one.num_rows for one in again] == [30]
    copy = DataRoot.open(tmp_path / "again")
    assert copy.read(AIME) == root.read(AIME)
    assert copy.sha256(AIME.dataset) == root.sha256(AIME.dataset)


def test_a_csv_of_mmlu_gives_up_its_head_and_its_letters(tmp_path: Path) -> None:
    for split, count in (("dev", 285), ("test", 14_042)):
        path = tmp_path / "local" / "mmlu" / split / f"anatomy_{split}.csv"
        path.parent.mkdir(parents=True)
        with open(path, "w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["question", "choice0", "choice1", "choice2", "choice3", "answer"])
            for number in range(count):
                rows.writerow([f"Q, {number}?", "a", "b", "c", "d", "ABCD3"[number % 5]])
    gathered(tmp_path / "root", tmp_path / "local")
    name = SplitName(dataset="cais/mmlu", part="anatomy", split="test")
    rows = DataRoot.open(tmp_path / "root").read(name)
    assert rows[0] == {"question": "Q, 0?", "choices": ["a", "b", "c", "d"], "answer": 0}
    assert [row["answer"] for row in rows[:5]] == [0, 1, 2, 3, 3]
    assert len(rows) == 14_042


def test_a_row_of_mmlu_without_an_answer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "local" / "mmlu" / "dev" / "anatomy_dev.csv"
    path.parent.mkdir(parents=True)
    path.write_text("Q?,a,b,c,d,E\n")
    with pytest.raises(RecipeError, match=r"anatomy_dev\.csv:1: .*'E'.*A to D"):
        gathered(tmp_path / "root", tmp_path / "local")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (aime(29), "29 rows.*has 30"),
        ([*aime(29), {"problem": "?"}], "row 29: no field 'answer'"),
    ],
)
def test_other_rows_are_refused_and_nothing_is_written(
    local: Path, tmp_path: Path, rows: list[dict[str, Any]], says: str
) -> None:
    write_jsonl(local / "aime24.jsonl", aime(30))  # comes first, is right, and is not kept
    write_jsonl(local / "aime25.jsonl", rows)
    with pytest.raises(RecipeError, match=says):
        gathered(tmp_path / "root", local)
    assert not (tmp_path / "root").exists()


def test_what_is_there_stays_and_what_is_missing_is_added(local: Path, tmp_path: Path) -> None:
    gathered(tmp_path / "root", local)
    before = (tmp_path / "root" / AIME.file).read_bytes()
    reports = {one.split.dataset: one for one in gathered(tmp_path / "root", "made")}
    assert reports[AIME.dataset].origin == "there already: aime25.jsonl"
    assert (tmp_path / "root" / AIME.file).read_bytes() == before
    root = DataRoot.open(tmp_path / "root")
    assert root.is_made("openai/gsm8k")
    assert not root.is_made(AIME.dataset), "only made-up rows are marked"
    asked = gathered(tmp_path / "root", local)
    assert {one.origin for one in asked} == {"there already: aime25.jsonl", "there already: made"}


def test_whole_numbers_of_any_size_stay_whole(local: Path, tmp_path: Path) -> None:
    """HumanEval/79 is called with one of 70 bits: as a float its gold program fails."""
    rows = [{**row, "of": 10**21 + number} for number, row in enumerate(aime(30))]
    gathered(tmp_path / "root", "made", only=("openai/gsm8k",))
    name = SplitName(dataset="openai/gsm8k", part="main", split="test")
    path = tmp_path / "root" / name.file
    write_jsonl(path, rows)
    manifest = json.loads((tmp_path / "root" / "manifest.json").read_text())
    (entry,) = [one for one in manifest["splits"] if one["split"] == "test"]
    entry["sha256"] = file_sha256(path)
    (tmp_path / "root" / "manifest.json").write_text(json.dumps(manifest))
    assert DataRoot.open(tmp_path / "root").read(name)[7]["of"] == 10**21 + 7


def test_made_up_rows_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        gathered(tmp_path / name, "made")
    one, two = DataRoot.open(tmp_path / "one"), DataRoot.open(tmp_path / "two")
    assert one.entries == two.entries
    assert len({entry.sha256 for entry in one.entries.values()}) == len(one.entries)


def damage(root: Path) -> None:
    (root / AIME.file).write_text((root / AIME.file).read_text().replace("1 + 7", "1 + 8"))


def cut_manifest(root: Path) -> None:
    text = (root / "manifest.json").read_text()
    (root / "manifest.json").write_text(text[: len(text) // 2])


def drop_field(root: Path) -> None:
    found = json.loads((root / "manifest.json").read_text())
    del found["splits"][0]["sha256"]
    (root / "manifest.json").write_text(json.dumps(found))


def delete(root: Path) -> None:
    (root / AIME.file).unlink()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (damage, r"test\.jsonl: other bytes than its manifest proves"),
        (delete, r"test\.jsonl: no such file"),
        (cut_manifest, r"manifest\.json: not JSON"),
        (drop_field, r"manifest\.json: no field splits\.0\.sha256"),
    ],
)
def test_a_damaged_root_is_refused(local: Path, tmp_path: Path, harm: Any, says: str) -> None:
    gathered(tmp_path / "root", local)
    harm(tmp_path / "root")
    with pytest.raises(ArtifactError, match=says):
        DataRoot.open(tmp_path / "root").read(AIME)


@pytest.mark.parametrize(
    ("sources", "only", "says"),
    [
        ((), (), "no --from"),
        (("elsewhere",), (), "no such folder"),
        (("made",), ("openai/gsm8",), "write 'openai/gsm8k'"),
    ],
)
def test_a_wrong_request_is_refused(
    tmp_path: Path, sources: tuple[str, ...], only: tuple[str, ...], says: str
) -> None:
    with pytest.raises(FrontloadError, match=says):
        gathered(tmp_path / "root", *sources, only=only)
    assert not (tmp_path / "root").exists()


def test_a_root_without_a_name_is_refused() -> None:
    with pytest.raises(RecipeError, match="--root .: a folder without a name in it"):
        gathered(Path(), "made")


def test_a_copy_of_the_hub_with_a_torn_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub" / AIME.dataset).mkdir(parents=True)
    (tmp_path / "hub" / AIME.dataset / "test.jsonl").write_text("no json\n")
    with pytest.raises(RecipeError, match=r"aime25: a file that does not read.*JSON parse error"):
        gathered(tmp_path / "root", tmp_path / "hub", only=(AIME.dataset,))


def test_a_split_that_a_copy_of_the_hub_lacks_is_absent_with_the_reason(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "hub" / AIME.dataset / "train.jsonl", aime(30))
    (report,) = gathered(tmp_path / "root", tmp_path / "hub", only=(AIME.dataset,))
    assert report.num_rows == 0
    assert "test" in report.origin
    assert not (tmp_path / "root").exists()
