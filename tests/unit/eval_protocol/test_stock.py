"""Stock tasks of lm-eval: asked through us, their prompts and scores are lm-eval's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from frontload.eval.protocol.answers import Generated, Loglikelihood
from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.items import MissingBenchmark
from frontload.eval.protocol.stock import TASKS, StockTask, load_stock, task_files
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.runs.suite import load_suite
from tests.unit.eval_protocol.protocol_inputs import few

STOCK = {
    "gsm8k": "gsm8k/gsm8k-cot",
    "mmlu": "mmlu/default/mmlu_anatomy",
    "mmlu_pro": "mmlu_pro/mmlu_pro_math",
    "arc_challenge": "arc/arc_challenge",
    "race": "race/race",
    "winogrande": "winogrande/default",
    "hellaswag": "hellaswag/hellaswag",
}
BASE = load_suite("base").value


def loaded(name: str, root: DataRoot, *, is_tiny: bool = True) -> StockTask:
    task = load_stock(name, BASE.benchmarks[name], root=root, is_tiny=is_tiny)
    assert isinstance(task, StockTask)
    return task


def test_every_stock_benchmark_of_the_base_suite_is_compared_here() -> None:
    assert set(STOCK) == {name for name in BASE.asked if BASE.benchmarks[name].form == "lm_eval"}


@pytest.mark.parametrize("name", STOCK)
def test_the_stock_yaml_run_in_the_root_builds_the_same_requests(
    name: str, made_root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `lm_eval run` does it: the working directory is the root, the hub's names are paths."""
    monkeypatch.chdir(made_root.folder)
    config = load_yaml(TASKS / f"{STOCK[name]}.yaml")
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    config |= {
        "num_fewshot": BASE.benchmarks[name].num_shots,
        "dataset_kwargs": {"cache_dir": str(tmp_path)},
    }
    task = ConfigurableTask(config=config)
    task.build_all_requests(samples=[0, 1])
    stock = [instance.args for instance in task.instances]
    items = [item for item in loaded(name, made_root).items if "physics" not in item.id][:2]
    if items[0].options:
        assert [pair for item in items for pair in item.options] == stock
    else:
        assert [item.prompt for item in items] == [args[0] for args in stock]
        settings: Any = stock[0][-1]
        assert set(loaded(name, made_root).stop) == set(settings["until"])


@pytest.mark.parametrize("name", [n for n in STOCK if BASE.benchmarks[n].sampling is None])
def test_the_option_that_we_count_is_the_one_that_lm_eval_counts(
    name: str, made_root: DataRoot
) -> None:
    task = loaded(name, made_root)
    rng = np.random.default_rng(7)
    outcomes: set[float] = set()
    for item in task.items * 8:
        options = [
            Loglikelihood(total=float(-total), is_greedy=False, num_tokens=1)
            for total in rng.exponential(3, len(item.options))
        ]
        scores = task.scores(item, options)
        ours = float(scores.index(max(scores)) == task.gold_place(item))
        assert ours == task.metric_of(item, options)
        outcomes.add(ours)
    assert outcomes == {0.0, 1.0}


def test_acc_norm_counts_characters_and_acc_does_not(made_root: DataRoot) -> None:
    task = loaded("arc_challenge", made_root)
    item = task.items[0]
    options = [
        Loglikelihood(total=-float(len(text.strip())), is_greedy=False, num_tokens=1)
        for _, text in item.options
    ]
    assert set(task.scores(item, options)) == {-1.0}


def graded(task: StockTask, text: str) -> tuple[bool, str, str]:
    answer = Generated(text=text, num_tokens=1, finish="stop")
    (grade,) = task.grade([(task.items[0], answer)])
    return grade.correct, grade.answer, grade.failure


def test_generated_answers_are_graded_by_the_named_metric_and_filter(made_root: DataRoot) -> None:
    task = loaded("gsm8k", made_root)
    gold = task.items[0].gold
    assert graded(task, f"So there are {gold} of them.") == (True, gold, "")
    assert graded(task, "None of them.") == (False, "", "no answer")
    strict = few("base", "gsm8k", metric="exact_match,strict-match").benchmarks["gsm8k"]
    other = load_stock("gsm8k", strict, root=made_root, is_tiny=True)
    assert isinstance(other, StockTask)
    assert graded(other, f"So there are {gold}.") == (False, "", "no answer")
    assert graded(other, f"The answer is {gold}.")[0]


def test_a_metric_that_the_task_lacks_is_refused_with_the_nearest(made_root: DataRoot) -> None:
    wrong = few("base", "gsm8k", metric="exact_match,strict").benchmarks["gsm8k"]
    task = load_stock("gsm8k", wrong, root=made_root, is_tiny=True)
    assert isinstance(task, StockTask)
    with pytest.raises(RecipeError, match="write 'exact_match,strict-match'"):
        graded(task, "The answer is 3.")


def test_tiny_rows_are_rows_of_the_whole(made_root: DataRoot) -> None:
    for name in ("gsm8k", "mmlu"):
        tiny = {item.id: item.digest for item in loaded(name, made_root).items}
        whole = {item.id: item.digest for item in loaded(name, made_root, is_tiny=False).items}
        assert tiny.items() < whole.items(), "the same prompts, whatever else is asked"
    assert set(tiny) == {f"mmlu/{part}/{row}" for part in ("anatomy", "elementary_mathematics")
                         for row in (0, 1)}  # fmt: skip


def test_rows_that_are_absent_make_a_missing_benchmark(tmp_path: Path) -> None:
    empty = DataRoot(tmp_path, [])
    found = load_stock("race", BASE.benchmarks["race"], root=empty, is_tiny=True)
    assert isinstance(found, MissingBenchmark)
    assert "EleutherAI/race" in found.reason


def test_a_tiny_row_that_is_not_there_is_refused(made_root: DataRoot) -> None:
    beyond = few("base", "race", tiny_rows=(0, 900)).benchmarks["race"]
    with pytest.raises(ArtifactError, match="6 rows, none of number 900"):
        load_stock("race", beyond, root=made_root, is_tiny=True)


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    wrong = few("base", "arc_challenge", task="arc/arc_chalenge").benchmarks["arc_challenge"]
    with pytest.raises(RecipeError, match="write 'arc/arc_challenge'"):
        task_files(wrong)


def test_every_subject_of_mmlu_and_category_of_mmlu_pro_is_a_part() -> None:
    assert len(task_files(BASE.benchmarks["mmlu"])) == 57
    assert len(task_files(BASE.benchmarks["mmlu_pro"])) == 14
