"""Suites as recipes: what the paper asks, how many generations that is, what is refused."""

from pathlib import Path

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.suite import load_suite, num_generations

PAPER_RL = {"MATH-500", "GSM8K", "AIME24", "AIME25", "GPQA", "MMLU", "MMLU-PRO", "LCB"}


def test_an_sft_evaluation_is_117_304_generations_most_of_them_choices() -> None:
    counts = num_generations(load_suite("sft").value)
    assert sum(counts.values()) == 117_304
    assert counts["mmlu"] + counts["mmlu_pro"] == 104_296
    assert (counts["aime24"], counts["aime25"]) == (480, 480), "16 runs, the others 4"
    base = num_generations(load_suite("base").value)
    assert base["mmlu"] == 0, "options are scored, nothing is generated"
    assert base["humaneval_plus"] + base["mbpp_plus"] == 17_344, "32 runs"


def test_the_paper_s_shots_and_eight_benchmarks_of_reinforcement() -> None:
    base = load_suite("base").value.benchmarks
    shots = {name: one.num_shots for name, one in base.items() if one.category != "code"}
    assert shots == {
        "arc_challenge": 0, "hellaswag": 0, "winogrande": 0, "race": 0,
        "gsm8k": 8, "math500": 4, "mmlu": 5, "mmlu_pro": 5,
    }  # fmt: skip
    rl = load_suite("rl").value
    assert len(rl.asked) == len(PAPER_RL)
    assert "ifeval" not in rl.asked
    assert rl.benchmarks["mmlu"] == load_suite("sft").value.benchmarks["mmlu"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("asked=[gsm8k, hellaswagg]", "write 'hellaswag'"),
        ("asked=[gsm8k, gsm8k]", "each once"),
        ("asked=[]", "no benchmark"),
        ("stage=rl", "base, sft"),
        ("layout=box", "write 'boxed'"),
        ("benchmarks.gsm8k.category=maths", "write 'math'"),
        ("benchmarks.gsm8k.form=lm-eval", "write 'lm_eval'"),
        ("benchmarks.gsm8k.grader=answer", "write one of lm_eval"),
        ("benchmarks.math500.prompt=''", "states its prompt"),
        ("benchmarks.gsm8k.task=''", "names a task"),
        ("benchmarks.gsm8k.sampling.samples=4", "greedy answers are all the same"),
        ("benchmarks.gsm8k.sampling.temperature=0.001", "0 for greedy"),
        ("benchmarks.gsm8k.sampling.top_p=1.5", "at most 1"),
        ("benchmarks.gsm8k.sampling.max_new_tokens=0", "1 or more"),
        ("benchmarks.math500.sampling=null", "answers of this form are generated"),
        ("benchmarks.gsm8k.num_rows=0", "1 or more"),
        ("benchmarks.gsm8k.tiny_rows=[3, 3]", "each once"),
        ("benchmarks.gsm8k.tiny_rows=[1_319]", "below num_rows"),
        ("benchmarks.gsm8k.tiny_rows=[]", "row numbers from 0"),
    ],
)
def test_what_no_rows_could_make_right_is_refused(override: str, says: str) -> None:
    with pytest.raises(RecipeError, match="command line") as refused:
        load_suite("base", overrides=[override])
    assert says in str(refused.value)


def test_an_unknown_suite_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="write 'base'"):
        load_suite("bas")


def test_a_suite_of_ones_own_extends_one_that_ships(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: sft\nasked: [gsm8k]\nbenchmarks: {gsm8k: {sampling: {samples: 2}}}\n")
    suite = load_suite(str(path)).value
    assert num_generations(suite) == {"gsm8k": 2_638}
    assert suite.benchmarks["gsm8k"].sampling is not None
    assert suite.benchmarks["gsm8k"].sampling.max_new_tokens == 16_384
