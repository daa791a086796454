"""Prompts that a suite states, and how their answers are graded."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.api.task import ConfigurableTask

from frontload.eval.grading.grade import Grader
from frontload.eval.protocol.answers import Generated
from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.items import MissingBenchmark
from frontload.eval.protocol.own import (
    OwnTask,
    filled,
    load_own,
    minerva_answer,
    minerva_examples,
)
from frontload.recipes.errors import ArtifactError
from frontload.recipes.runs.suite import SuiteRecipe, load_suite
from tests.unit.eval_protocol.protocol_inputs import few, make_root

SFT = load_suite("sft").value
GRADER = Grader(processes=1)  # starts a process when algebra must decide: none here


def loaded(name: str, root: DataRoot, suite: SuiteRecipe = SFT, *, is_tiny: bool = True) -> OwnTask:
    task = load_own(name, suite, root=root, grader=GRADER, is_tiny=is_tiny)
    assert isinstance(task, OwnTask)
    return task


def is_right(task: OwnTask, text: str, place: int = 0) -> tuple[bool, str]:
    answer = Generated(text=text, num_tokens=1, finish="stop")
    (grade,) = task.grade([(task.items[place], answer)])
    return grade.correct, grade.failure


@pytest.mark.parametrize("name", ["gsm8k", "math500", "aime24", "aime25", "mmlu", "mmlu_pro",
                                  "gpqa"])  # fmt: skip
def test_gold_answers_are_right_and_others_wrong(name: str, made_root: DataRoot) -> None:
    task = loaded(name, made_root)
    assert all(grade.correct for grade in task.grade(task.gold_answers()))
    for place, item in enumerate(task.items):
        other = "B" if item.gold == "A" else "A" if item.gold in "BCDEFGHIJ" else "1000"
        assert is_right(task, f"It is \\boxed{{{other}}}", place) == (False, "")
        assert is_right(task, f"It is {item.gold}", place) == (False, "no answer")


def test_the_letter_of_a_shuffled_option_is_that_of_the_right_answer(made_root: DataRoot) -> None:
    task = loaded("gpqa", made_root, is_tiny=False)
    again = loaded("gpqa", made_root)
    assert [item.digest for item in again.items] == [item.digest for item in task.items[:2]]
    path = made_root.folder / "Idavidrein/gpqa/gpqa_diamond/train.jsonl"
    letters = set()
    for item, line in zip(task.items, path.read_text().splitlines(), strict=True):
        assert item.messages is not None
        shown = item.messages[0]["content"]
        assert f"{item.gold}. {json.loads(line)['Correct Answer']}\n" in f"{shown}\n"
        letters.add(item.gold)
    assert len(letters) > 1, "the right option does not always stand first"


def test_the_prompt_of_minerva_is_that_of_lm_eval(made_root: DataRoot) -> None:
    """Its own template and examples, rendered by lm-eval, with our rows."""
    rows = made_root.read(next(n for n in made_root.entries if n.dataset.endswith("MATH-500")))
    task = ConfigurableTask(
        config={
            "task": "minerva",
            "custom_dataset": lambda **_: {"test": _table(rows)},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "Problem:\n{{problem}}\n\nSolution:",
            "doc_to_target": "{{answer if few_shot is undefined else solution}}",
            "num_fewshot": 4,
            "fewshot_config": {"sampler": "first_n", "samples": list(minerva_examples())},
            "metric_list": [
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
            ],
            "metadata": {},
        }
    )
    task.build_all_requests(samples=[0, 1, 2, 3])
    ours = [item.prompt for item in loaded("math500", made_root, load_suite("base").value).items]
    assert ours == [instance.args[0] for instance in task.instances]
    assert len(minerva_examples()) == 4


def _table(rows: list[dict[str, object]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\nFinal Answer: The final answer is $[2,5)$. I hope it is correct.", r"\boxed{$[2,5)$}"),
        ("The final answer is 24. I hope it is correct.\n\nProblem:", r"\boxed{24}"),
        ("The final answer is $3.5$", r"\boxed{$3.5$}"),
        ("The final answer is 7.\nThe final answer is 8.", r"\boxed{7}"),
        (r"we get \boxed{9}.", r"we get \boxed{9}."),
        (r"The final answer is \boxed{9}. I hope it is correct.", r"\boxed{9}"),
        ("The final answer is", ""),
    ],
)  # fmt: skip
def test_the_answer_that_minerva_asks_for(text: str, answer: str) -> None:
    assert minerva_answer(text) == answer


def test_a_value_is_not_searched_for_other_names() -> None:
    prompt = "Box it: \\boxed{}.\n{question}\n{options}"
    values = {"question": "What is {options} in {x}?", "options": "A. {question}"}
    assert filled(prompt, values) == "Box it: \\boxed{}.\nWhat is {options} in {x}?\nA. {question}"


def test_an_answer_in_marks_needs_its_end(made_root: DataRoot) -> None:
    marks = replace(few("sft", "gsm8k"), layout="marks")
    task = loaded("gsm8k", made_root, marks)
    text = f"steps <|answer|> {task.items[0].gold}"
    assert is_right(task, text) == (True, "")
    cut = Generated(text=text, num_tokens=9, finish="length")
    (grade,) = task.grade([(task.items[0], cut)])
    assert (grade.correct, grade.failure) == (False, "no end")
    assert all(grade.correct for grade in task.grade(task.gold_answers()))


def test_absent_rows_are_missing(tmp_path: Path) -> None:
    found = load_own("gpqa", SFT, root=DataRoot(tmp_path, []), grader=GRADER, is_tiny=True)
    assert isinstance(found, MissingBenchmark)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("math500", {"fields": {"question": "problm", "answer": "answer"}}, "write 'problem'"),
        ("gsm8k", {"answer_separator": "@@"}, "no '@@' in"),
        ("mmlu", {"fields": {"question": "question", "options": "choices", "answer": "choices"}},
         "the number of the right one"),
        ("math500", {"tiny_rows": (77,)}, "none of number 77"),
    ],
)  # fmt: skip
def test_a_row_without_what_the_suite_names_is_refused(
    made_root: DataRoot, name: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ArtifactError, match=says):
        loaded(name, made_root, few("sft", name, **changes))


def test_conversations_hold_the_prompt_and_texts_hold_examples(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    chat, text = loaded("math500", root), loaded("math500", root, load_suite("base").value)
    assert chat.items[0].prompt is None
    assert text.items[0].messages is None
    assert chat.items[0].messages is not None
    (turn,) = chat.items[0].messages
    assert turn["role"] == "user"
    assert turn["content"].endswith(chat.items[0].question)
    assert (text.items[0].prompt or "").count("Problem:") == 5
    with closing(Grader(processes=1)):
        assert chat.stop == ()
        assert text.stop == ("Problem:",)
