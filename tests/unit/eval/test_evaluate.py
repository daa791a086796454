"""The stage `evaluate` on models without training: scores follow from the stored items."""

import json
from pathlib import Path

import pytest

from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.results import read_results
from frontload.eval.stages import evaluate_model
from frontload.eval.statistics.score import rescore
from frontload.recipes.errors import StageError
from tests.unit.eval.fake_study import BookModel, recipe, workspace, write_corpus

SKILL = {"math": 0.6, "science": 0.5, "code": 0.4, "ins": 0.7}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


def items_of(corpus: Path) -> list[dict]:
    return [json.loads(line) for line in (corpus / "items.jsonl").read_text().splitlines()]


def run(corpus: Path, out: Path, *, suite: str, skill: dict[str, float] | None = None):
    tokenizer = TextTokenizer.load(corpus)
    model = BookModel(tokenizer, items_of(corpus), skill=skill or SKILL, seed=1)
    work = workspace(out)
    inputs = {"corpus": corpus, "tokenizer": corpus, "checkpoint": corpus}
    return evaluate_model(model, recipe(suite), inputs=inputs, work=work), work.path


@pytest.mark.parametrize("suite", ["base", "sft"])
def test_stored_scores_follow_from_the_stored_items_alone(
    corpus: Path, tmp_path: Path, suite: str
) -> None:
    _, folder = run(corpus, tmp_path, suite=suite)
    stored = json.loads((folder / "scores.json").read_text())
    assert rescore(folder / "items.jsonl").to_json() == stored
    lines = (folder / "items.jsonl").read_text().splitlines()
    changed = [line.replace('"correct": true', '"correct": false') for line in lines]
    (folder / "items.jsonl").write_text("\n".join(changed) + "\n")
    assert rescore(folder / "items.jsonl").to_json() != stored


@pytest.mark.parametrize("suite", ["base", "sft"])
def test_the_same_evaluation_twice_writes_the_same_bytes(
    corpus: Path, tmp_path: Path, suite: str
) -> None:
    _, first = run(corpus, tmp_path / "a", suite=suite)
    _, again = run(corpus, tmp_path / "b", suite=suite)
    names = sorted(path.name for path in first.iterdir())
    assert names == ["items.jsonl", "scores.json"]
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names)


@pytest.mark.parametrize("suite", ["base", "sft"])
def test_gold_answers_replayed_through_tokenizer_and_grader_score_100_percent(
    corpus: Path, tmp_path: Path, suite: str
) -> None:
    scores, _ = run(corpus, tmp_path, suite=suite)
    assert scores.gold_replay.accuracy == 1.0
    assert scores.gold_replay.num_items > 30
    assert scores.gold_replay.failed == ()


def test_a_gold_answer_that_grades_wrong_stops_the_stage(corpus: Path, tmp_path: Path) -> None:
    rows = items_of(corpus)
    question = next(row for row in rows if row["kind"] == "generate")
    question["answer"] = "wrong"
    broken = tmp_path / "corpus"
    broken.mkdir()
    for name in ("heldout.jsonl", "tokenizer.json"):
        (broken / name).write_bytes((corpus / name).read_bytes())
    (broken / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StageError, match=f"1 of .* graded wrong, e.g. {question['id']}"):
        run(broken, tmp_path / "out", suite="sft")
    assert not (tmp_path / "out" / "out" / "scores.json").exists()


def test_a_model_that_knows_everything_scores_100_and_one_that_knows_nothing_0(
    corpus: Path, tmp_path: Path
) -> None:
    everything, _ = run(corpus, tmp_path / "all", suite="sft", skill=dict.fromkeys(SKILL, 9.0))
    nothing, _ = run(corpus, tmp_path / "none", suite="sft", skill=dict.fromkeys(SKILL, -9.0))
    assert everything.averages["avg"].value == 1.0
    assert everything.format_failure_rate == 0.0
    assert nothing.averages["avg"].value == 0.0
    assert 0.02 < (nothing.format_failure_rate or 0) < 0.3


def test_hard_benchmarks_get_their_own_number_of_samples(corpus: Path, tmp_path: Path) -> None:
    scores, folder = run(corpus, tmp_path, suite="sft")
    assert {b.num_samples for n, b in scores.benchmarks.items() if n.startswith("hard")} == {3}
    assert {b.num_samples for n, b in scores.benchmarks.items() if n == "add"} == {2}
    results = read_results(folder / "items.jsonl")
    ids = [result.id for result in results.results]
    expected = [row["id"] for row in items_of(corpus) if row["kind"] == "generate"]
    assert ids[: len(expected)] == expected


def test_averages_are_the_papers_three_rules(corpus: Path, tmp_path: Path) -> None:
    scores, _ = run(corpus, tmp_path, suite="sft")
    accuracy = {name: b.accuracy.value for name, b in scores.benchmarks.items()}
    by_category: dict[str, list[float]] = {}
    for name, benchmark in scores.benchmarks.items():
        by_category.setdefault(benchmark.category, []).append(accuracy[name])
    means = {name: sum(v) / len(v) for name, v in by_category.items()}
    assert scores.averages["avg"].value == pytest.approx(sum(means.values()) / 4)
    assert scores.averages["flat9"].value == pytest.approx(sum(accuracy.values()) / len(accuracy))
    rest = [a for name, a in accuracy.items() if scores.benchmarks[name].category != "ins"]
    assert scores.averages["flat8"].value == pytest.approx(sum(rest) / len(rest))
    assert len(rest) < len(accuracy)
