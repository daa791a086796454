"""The answers of a validation as a reader finds them."""

import json
from pathlib import Path

from frontload.rl.plugins.validation import KEPT_ANSWERS, answers_file, answers_of, write_answers

ROW = {
    "data_source": "chain",
    "reward_model": {"ground_truth": "6"},
    "extra_info": {"index": 3, "source_index": "rl-000003", "question": "eval A 7 B - 1"},
}


def test_an_answer_stands_beside_its_prompt_and_its_grades(tmp_path: Path) -> None:
    right = {"score": 1.0, "acc": 1.0, "format": 1.0}
    unformed = {"score": 0.0, "acc": 1.0, "format": 0.0}
    own = {**ROW, "extra_info": {"index": 7}}
    answers = list(answers_of([ROW, own], [["a", "b"], ["c"]], [[right, unformed], [right]]))
    write_answers(tmp_path / "made", 64, answers)
    lines = answers_file(tmp_path / "made", 64).read_text().splitlines()
    first, second, third = (json.loads(line) for line in lines)
    assert first == {
        "step": 64,
        "prompt": "rl-000003",
        "family": "chain",
        "question": "eval A 7 B - 1",
        "gold": "6",
        "sample": 0,
        "answer": "a",
        "reward": 1.0,
        "accuracy": 1.0,
    }
    assert [second[name] for name in ("sample", "answer", "reward", "accuracy")] == [1, "b", 0, 1]
    assert (third["prompt"], third["question"]) == ("7", "")


def test_the_file_is_bounded_and_made_anew(tmp_path: Path) -> None:
    answers = [{"answer": str(place)} for place in range(KEPT_ANSWERS + 1)]
    write_answers(tmp_path, 0, answers[:1])
    write_answers(tmp_path, 0, answers)
    lines = answers_file(tmp_path, 0).read_text().splitlines()
    assert [json.loads(line)["answer"] for line in lines] == [str(n) for n in range(KEPT_ANSWERS)]
    assert [path.name for path in tmp_path.iterdir()] == ["0.jsonl"]
