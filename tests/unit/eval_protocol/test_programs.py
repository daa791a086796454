"""A suite's benchmarks of programs and of instructions: asked, graded, with ceiling and floors."""

from pathlib import Path

import pytest

from frontload.eval.protocol.answers import Generated
from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.gather import GatherRequest, gather
from frontload.eval.protocol.items import BenchmarkTask, MissingBenchmark
from frontload.eval.protocol.programs import Running, load_programs
from frontload.eval.sandbox import isolation
from frontload.eval.statistics.gates import marks
from frontload.recipes.runs.suite import load_suite

DATASETS = (
    *("evalplus/humanevalplus", "evalplus/mbppplus", "google/IFEval"),
    "livecodebench/code_generation_lite",
)


TWO = Running(processes=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    folder = tmp_path_factory.mktemp("root")
    gather(folder, GatherRequest(sources=("made",), datasets=DATASETS, token=None))
    return DataRoot.open(folder)


def load(
    suite: str, name: str, root: DataRoot, *, how: Running = TWO
) -> BenchmarkTask | MissingBenchmark:
    benchmark = load_suite(suite).value.benchmarks[name]
    return load_programs(name, benchmark, root=root, is_tiny=True, how=how)


def said(text: str) -> Generated:
    return Generated(text=text, num_tokens=3, finish="stop")


@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_programs_are_graded_and_gold_ones_pass(name: str, root: DataRoot) -> None:
    task = load("base", name, root)
    assert isinstance(task, BenchmarkTask)
    golds = task.gold_answers()
    assert len(golds) == len(task.items) > 1
    assert all(one.correct for one in task.grade(golds))
    item, gold = golds[0]
    wrong = gold.text.replace("number + ", "number - ")
    grades = task.grade([(item, said(wrong)), (item, said("none")), (item, gold)])
    assert [one.correct for one in grades] == [False, False, True]
    assert [one.failure for one in grades] == ["", "no code", ""]
    assert grades[0].answer == "test 1: another value"


def test_programs_that_read_their_input_are_graded(root: DataRoot) -> None:
    task = load("sft", "livecodebench", root)
    assert isinstance(task, BenchmarkTask)
    item = task.items[0]
    more = int(item.question.split("with ")[1].split()[0])
    right = said(f"```python\nprint(int(input()) + {more})\n```")
    wrong = said(f"```python\nprint({1 + more})\n```")
    assert [one.correct for one in task.grade([(item, right), (item, wrong)])] == [True, False]
    assert task.gold_answers() == [], "its rows have no gold program"
    assert not marks(task.gates())
    near = said(f"```python\nprint(int(input()) + {more} + 1e-9)\n```")
    assert not task.grade([(item, near)])[0].correct, "a whole number is exact"


def test_instructions_are_checked_with_their_floors(root: DataRoot) -> None:
    task = load("sft", "ifeval", root)
    assert isinstance(task, BenchmarkTask)
    (grade,) = task.grade([(task.items[0], said(""))])
    assert (grade.correct, grade.answer[:4]) == (False, "0 of")
    floors = task.floors()
    assert floors is not None
    assert floors.empty.value == 0.0
    assert floors.constant_answer == "ok"


def test_without_a_sandbox_programs_are_missing_and_not_wrong(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "what_fails", lambda _: "no user namespaces")
    missing = load("base", "humaneval_plus", root)
    assert isinstance(missing, MissingBenchmark)
    assert missing.reason.startswith("no sandbox: no user namespaces")
    assert isinstance(load("sft", "ifeval", root), BenchmarkTask), "it runs no program"
    accepted = Running(processes=2, accept_limits_only=True)
    weak = load("base", "humaneval_plus", root, how=accepted)
    assert isinstance(weak, BenchmarkTask)
    assert all(one.correct for one in weak.grade(weak.gold_answers()))
    assert "isolation: programs ran with limits but WITHOUT walls" in marks(weak.gates())[0]


def test_a_root_without_the_rows_is_missing_them(tmp_path: Path) -> None:
    gather(tmp_path, GatherRequest(sources=("made",), datasets=("google/IFEval",), token=None))
    missing = load("base", "mbpp_plus", DataRoot.open(tmp_path))
    assert isinstance(missing, MissingBenchmark)
    assert "no rows of evalplus/mbppplus" in missing.reason
