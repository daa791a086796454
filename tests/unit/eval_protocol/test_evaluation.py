"""A suite on a model: scores with their n and marks, missing benchmarks missing, nothing twice."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontload.eval.protocol.answers import Generated, GenerationRequest
from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.evaluation import evaluate_suite
from frontload.eval.protocol.in_process import InProcess
from frontload.eval.protocol.summary import SuiteSummary, suite_lines
from frontload.eval.results import ChoiceResult, GeneratedResult, read_results
from frontload.recipes.errors import ArtifactError, RecipeError, StageError
from tests.unit.eval_protocol.protocol_inputs import CONTEXT, Scripted, few, quiet, request


def run(suite: object, root: DataRoot, out: Path, model: object, **changes: object) -> SuiteSummary:
    asked = request(suite, root, out, **changes)  # pyright: ignore[reportArgumentType]
    return evaluate_suite(asked, model, watch=quiet)  # pyright: ignore[reportArgumentType]


def test_scores_of_known_answers(made_root: DataRoot, tmp_path: Path) -> None:
    """The first option of every four is liked; every generated answer is 54."""
    suite = few("base", "gsm8k", "mmlu", "race")
    found = run(suite, made_root, tmp_path, Scripted("The answer is 54.")).benchmarks
    results = read_results(tmp_path / "items.jsonl").results
    golds = [one.gold for one in results if isinstance(one, GeneratedResult)]
    places = [one.gold for one in results if isinstance(one, ChoiceResult)]
    assert "54" in golds
    assert found["gsm8k"].accuracy == golds.count("54") / 4
    assert found["mmlu"].accuracy == places[:4].count(0) / 4
    assert (found["mmlu"].num_items, found["race"].num_items) == (4, 4)
    assert found["mmlu"].failures == {}, "an option is always an answer"


def test_samples_a_row_are_averaged_and_runs_spread(made_root: DataRoot, tmp_path: Path) -> None:
    summary = run(few("sft", "aime24"), made_root, tmp_path, Scripted("\\boxed{1}"))
    aime = summary.benchmarks["aime24"]
    assert (aime.num_items, aime.num_samples, aime.accuracy) == (2, 16, 0.0)
    assert (aime.run_spread, aime.failures["any"], aime.ceiling) == (0.0, 0.0, 1.0)
    (first, _) = read_results(tmp_path / "items.jsonl").results
    assert isinstance(first, GeneratedResult)
    assert len(first.samples) == 16
    silent = run(few("sft", "aime24"), made_root, tmp_path / "silent", Scripted("I do not know."))
    assert silent.benchmarks["aime24"].failures == {"any": 1.0, "no answer": 1.0}


def test_a_missing_benchmark_has_no_number_and_takes_its_averages_with_it(
    made_root: DataRoot, tmp_path: Path
) -> None:
    entries = [one for name, one in made_root.entries.items() if "aime25" not in name.dataset]
    root = DataRoot(made_root.folder, entries)
    summary = run(few("sft", "aime24", "aime25", "mmlu"), root, tmp_path, Scripted("\\boxed{A}"))
    missing = summary.benchmarks["aime25"]
    assert (missing.accuracy, missing.num_items) == (None, 0)
    assert "math-ai/aime25" in missing.missing
    lines = suite_lines(summary)
    (line,) = [line for line in lines if line.startswith("  aime25 ")]
    assert "missing: no rows" in line
    assert "  avg: missing, for want of aime25: mean of the category means" in "\n".join(lines)
    assert "%" not in line
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores["benchmarks"]) == ["aime24", "mmlu"]
    assert list(scores["categories"]) == ["science"], "the mean of two is no number of one"
    assert scores["averages"] == {}
    assert scores["protocol"]["missing"] == {"aime25": "math"}


def test_a_whole_suite_has_its_averages(made_root: DataRoot, tmp_path: Path) -> None:
    run(few("sft", "aime24", "mmlu"), made_root, tmp_path, Scripted("\\boxed{A}"))
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["averages"]) == {"avg", "flat8", "flat9"}
    assert "missing" not in scores["protocol"]


def test_scoring_again_asks_nothing_and_writes_the_same(
    made_root: DataRoot, tmp_path: Path, drawn_model: InProcess
) -> None:
    suite = few("base", "gsm8k", "arc_challenge", "math500")
    run(suite, made_root, tmp_path, drawn_model)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    deaf = Scripted(fails_after=0)
    deaf.identity, deaf.max_sequence_tokens = drawn_model.identity, CONTEXT
    run(suite, made_root, tmp_path, deaf)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    # another metric of the same answers asks nothing either
    strict = replace(suite.benchmarks["gsm8k"], metric="exact_match,strict-match")
    again = replace(suite, benchmarks={**suite.benchmarks, "gsm8k": strict})
    assert run(again, made_root, tmp_path, deaf).benchmarks["gsm8k"].metric == strict.metric


@pytest.mark.parametrize(
    ("seed", "benchmarks", "changes", "says"),
    [
        (2, ("aime24", "aime25"), {}, "seed 1, and 2 is asked"),
        (1, ("aime24",), {}, "aime25, which is not asked now"),
        (1, ("aime24", "aime25"), {"prompt": "Solve: {question}"}, "aime24 with other prompts"),
        (1, ("aime24", "aime25"), {"longest": 12}, "aime24 with other sampling"),
        (1, ("aime24", "aime25"), {"samples": 8}, "16 samples of aime24, and 8 are asked"),
    ],
)
def test_scores_of_other_answers_are_not_replaced(
    made_root: DataRoot,
    tmp_path: Path,
    seed: int,
    benchmarks: tuple[str, ...],
    changes: dict[str, Any],
    says: str,
) -> None:
    run(few("sft", "aime24", "aime25"), made_root, tmp_path, Scripted("\\boxed{1}"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    suite = few("sft", *benchmarks, **{k: v for k, v in changes.items() if k != "samples"})
    if "samples" in changes:
        for name, one in suite.benchmarks.items():
            assert one.sampling is not None
            fewer = replace(one.sampling, samples=changes["samples"])
            suite.benchmarks[name] = replace(one, sampling=fewer)
    deaf = Scripted(fails_after=0)
    with pytest.raises(RecipeError, match=says) as refused:
        run(suite, made_root, tmp_path, deaf, seed=seed)
    assert "name another folder with --out" in refused.value.do
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_model_or_size_is_refused_and_more_benchmarks_are_not(
    made_root: DataRoot, tmp_path: Path
) -> None:
    run(few("sft", "aime24"), made_root, tmp_path, Scripted("\\boxed{1}"))
    other = Scripted("\\boxed{1}")
    other.identity = "another"
    with pytest.raises(RecipeError, match="model scripted, and another is asked"):
        run(few("sft", "aime24"), made_root, tmp_path, other)
    deaf = Scripted(fails_after=0)
    with pytest.raises(RecipeError, match="size tiny, and full is asked"):
        run(few("sft", "aime24"), made_root, tmp_path, deaf, size="full")
    more = Scripted("\\boxed{1}")
    run(few("sft", "aime24", "aime25"), made_root, tmp_path, more)
    assert len(more.asked) == 2 * 16, "what is there is not asked again"


def test_a_summary_of_another_version_is_named(made_root: DataRoot, tmp_path: Path) -> None:
    run(few("sft", "aime24"), made_root, tmp_path, Scripted("\\boxed{1}"))
    path = tmp_path / "evaluation.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(ArtifactError, match="format 1"):
        run(few("sft", "aime24"), made_root, tmp_path, Scripted("\\boxed{1}"))
    path.write_text("{")
    with pytest.raises(ArtifactError):
        run(few("sft", "aime24"), made_root, tmp_path, Scripted("\\boxed{1}"))


def test_a_server_that_dies_loses_nothing(made_root: DataRoot, tmp_path: Path) -> None:
    suite = few("sft", "aime24", "aime25")
    with pytest.raises(ConnectionError):
        run(suite, made_root, tmp_path, Scripted("\\boxed{1}", fails_after=37))
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 37
    again = Scripted("\\boxed{1}")
    run(suite, made_root, tmp_path, again)
    assert len(again.asked) == 64 - 37, "only what is missing is asked"


def test_a_model_that_leaves_a_request_out_is_found_out(
    made_root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Scripted("x")
    monkeypatch.setattr(model, "generate", lambda asked: iter(()))
    with pytest.raises(StageError, match="32 of 32 requests without an answer"):
        run(few("sft", "aime24"), made_root, tmp_path, model)


def test_marks_say_what_must_be_known_of_a_number(
    made_root: DataRoot, tmp_path: Path, drawn_model: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    equal = Scripted(likes=9)  # no option is liked
    summary = run(few("base", "mmlu", "race"), made_root, tmp_path, equal)
    assert any("alike in 4 of 4" in mark for mark in summary.benchmarks["mmlu"].marks)
    assert any("made up" in mark for mark in summary.benchmarks["mmlu"].marks)
    assert any("! options: all" in line for line in suite_lines(summary))
    constant = run(few("sft", "aime24"), made_root, tmp_path / "one", Scripted("\\boxed{1}"))
    assert constant.benchmarks["aime24"].floor == 0.5, "the gold answer of one of two questions"


def test_every_gate_is_kept_with_what_it_found(
    made_root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = few("base", "gsm8k", "mmlu")
    first = run(suite, made_root, tmp_path, Scripted("The answer is 54."))
    summary = json.loads((tmp_path / "evaluation.json").read_text())["benchmarks"]
    gates = {name: {gate["name"]: gate for gate in one["gates"]} for name, one in summary.items()}
    shared = {"rows", "prompts", "worked examples", "own prompt", "contamination"}
    assert set(gates["gsm8k"]) == {*shared, "gold replay", "empty answers"}
    assert set(gates["mmlu"]) == {*shared, "empty options", "options"}
    assert gates["gsm8k"]["gold replay"]["is_passed"] is True
    assert gates["mmlu"]["contamination"]["is_passed"] is None, "no training texts are known"
    assert "not known" in gates["mmlu"]["contamination"]["said"]
    digest = first.benchmarks["gsm8k"].prompts
    monkeypatch.setattr(
        "frontload.eval.protocol.evaluation.stated_prompts",
        lambda suite, size: {"gsm8k": digest, "mmlu": "0" * 16},
    )
    monkeypatch.setattr(DataRoot, "is_made", lambda self, dataset: False)
    found = run(suite, made_root, tmp_path, Scripted("The answer is 54.")).benchmarks
    assert not any("prompts" in mark for mark in found["gsm8k"].marks)
    says = "prompts: the digest of 4 prompts is"
    assert any(mark.startswith(says) for mark in found["mmlu"].marks)


def test_a_question_that_the_model_was_trained_on_marks_its_benchmark(
    made_root: DataRoot, tmp_path: Path
) -> None:
    suite = few("sft", "gsm8k", "aime24")
    run(suite, made_root, tmp_path / "first", Scripted("\\boxed{1}"))
    (row, *_) = read_results(tmp_path / "first" / "items.jsonl").results
    assert isinstance(row, GeneratedResult)
    texts = ["Nothing of interest.", f"Exercise 9. {row.question} We find the answer."]
    found = run(
        suite, made_root, tmp_path / "second", Scripted("\\boxed{1}"), training_texts=texts
    ).benchmarks
    (mark,) = [mark for mark in found["gsm8k"].marks if mark.startswith("contamination")]
    assert mark == "contamination: 1 of 4 questions stand in the training texts"
    assert not any(mark.startswith("contamination") for mark in found["aime24"].marks)
    clean = run(
        suite, made_root, tmp_path / "third", Scripted("\\boxed{1}"), training_texts=texts[:1]
    ).benchmarks
    gates = {gate.name: gate.is_passed for gate in clean["gsm8k"].gates}
    assert gates["contamination"] is True


def test_floors_of_stock_tasks_are_those_of_their_graders(
    made_root: DataRoot, tmp_path: Path
) -> None:
    suite = few("base", "gsm8k", "mmlu", "mmlu_pro")
    found = run(suite, made_root, tmp_path, Scripted("The answer is (A).")).benchmarks
    places = [
        one.gold
        for one in read_results(tmp_path / "items.jsonl").results
        if isinstance(one, ChoiceResult)
    ]
    assert found["mmlu"].floor == max(places.count(place) for place in range(4)) / 4
    golds = [
        one.gold
        for one in read_results(tmp_path / "items.jsonl").results
        if isinstance(one, GeneratedResult) and one.benchmark == "mmlu_pro"
    ]
    assert found["mmlu_pro"].floor == max(map(golds.count, golds)) / len(golds)
    assert found["mmlu_pro"].ceiling == found["gsm8k"].ceiling == 1.0


class HalfCut(Scripted):
    """Every second answer ends at its longest length; no answer has a box."""

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[tuple[str, Generated]]:
        for place, (key, answer) in enumerate(super().generate(requests)):
            yield key, replace(answer, finish="length") if place % 2 else answer


def test_the_share_without_an_answer_is_said_once(made_root: DataRoot, tmp_path: Path) -> None:
    for model, says in (
        (Scripted("no box"), "without an answer 100.0 %, floor"),
        (
            HalfCut("no box"),
            "an answer 100.0 %, cut off at the longest answer 50.0 %, no answer 50.0",
        ),
        (Scripted("\\boxed{1}"), "without an answer 0.0 %, floor"),
    ):
        summary = run(few("sft", "aime24"), made_root, tmp_path / str(len(says)), model)
        (line,) = [line for line in suite_lines(summary) if "aime24" in line]
        assert says in line


def test_more_samples_keep_those_that_are_there(made_root: DataRoot, tmp_path: Path) -> None:
    suite = few("sft", "math500")
    run(suite, made_root, tmp_path, Scripted("a"))
    drawn = suite.benchmarks["math500"].sampling
    assert drawn is not None
    more = few("sft", "math500", sampling=replace(drawn, samples=6))
    again = Scripted("a")
    run(more, made_root, tmp_path, again)
    assert len(again.asked) == 4 * 2


def test_another_seed_draws_other_answers(
    made_root: DataRoot, tmp_path: Path, drawn_model: InProcess
) -> None:
    texts = []
    for seed in (1, 2):
        out = tmp_path / str(seed)
        run(few("sft", "math500"), made_root, out, drawn_model, seed=seed)
        rows = map(json.loads, (out / "samples.jsonl").read_text().splitlines())
        texts.append([row["text"] for row in rows])
    assert texts[0] != texts[1]
    assert len(set(texts[0])) > 8, "samples of a row differ"


def test_a_suite_without_any_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="none of its 2 benchmarks can be asked"):
        run(few("sft", "gpqa", "mmlu"), DataRoot(tmp_path, []), tmp_path / "out", Scripted())
