"""Answers on the disk: torn, damaged, locked, and the same bytes after any kill."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from frontload.eval.protocol.answers import Generated, Loglikelihood
from frontload.eval.protocol.samples import SEEDS, SampleName, open_samples, sample_line
from frontload.recipes.errors import ArtifactError, RecipeError
from tests.unit.eval_protocol import killed

NAME = SampleName(
    model="m", task="gsm8k", item="gsm8k/3", prompt="p", settings="s", seed=1, sample=0
)
ANSWER = Generated(text="é\n42", num_tokens=3, finish="stop")
SCORE = Loglikelihood(total=-1.25, is_greedy=True, num_tokens=2)


def test_answers_come_back_as_they_were_written(tmp_path: Path) -> None:
    other = replace(NAME, sample=1)
    with open_samples(tmp_path / "s.jsonl") as samples:
        samples.add(NAME, ANSWER)
        samples.add(other, SCORE)
        samples.add(NAME, replace(ANSWER, text="again"))  # an answer is never replaced
    with open_samples(tmp_path / "s.jsonl") as samples:
        assert samples.answers == {NAME.key: ANSWER, other.key: SCORE}
        assert samples.num_torn == 0
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("field", ["model", "task", "item", "prompt", "settings", "seed", "sample"])
def test_anything_else_is_another_answer(field: str) -> None:
    changed = replace(NAME, **{field: 2 if field in ("seed", "sample") else "other"})
    assert changed.key != NAME.key


def test_a_draw_depends_on_seed_item_and_sample_alone() -> None:
    seeds = {
        replace(NAME, seed=seed, item=item, sample=sample).draw_seed
        for seed in (1, 2)
        for item in ("gsm8k/3", "gsm8k/4")
        for sample in (0, 1)
    }
    assert len(seeds) == 8
    assert all(0 <= seed < SEEDS for seed in seeds)
    # another model, prompt or longest answer draws alike: two checkpoints are paired
    assert replace(NAME, model="other", prompt="q", settings="t").draw_seed == NAME.draw_seed


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_last_line_is_cut_and_counted(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "s.jsonl"
    whole, torn = sample_line(NAME, ANSWER), sample_line(replace(NAME, sample=1), ANSWER)
    path.write_bytes((whole + torn).encode()[: len(whole.encode()) + kept % len(torn.encode())])
    with open_samples(path) as samples:
        assert samples.num_torn == 1
        assert list(samples.answers) == [NAME.key]
        samples.add(replace(NAME, sample=1), ANSWER)
    assert path.read_text() == whole + torn


@pytest.mark.parametrize("line", ["{}", "no json", '{"key": "a", "text": "b"}', "[1]"])
def test_a_damaged_line_in_the_middle_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(sample_line(NAME, ANSWER) + line + "\n" + sample_line(NAME, ANSWER))
    with pytest.raises(ArtifactError, match=r"s\.jsonl:2"), open_samples(path):
        pass


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        open_samples(tmp_path / "s.jsonl"),
        pytest.raises(RecipeError, match="another run is writing it"),
        open_samples(tmp_path / "s.jsonl"),
    ):
        pass


def test_a_finished_file_is_in_the_order_of_its_questions(tmp_path: Path) -> None:
    names = [replace(NAME, sample=number) for number in range(3)]
    foreign = replace(NAME, model="earlier")
    with open_samples(tmp_path / "s.jsonl") as samples:
        for name in (names[2], foreign, names[0], names[1]):
            samples.add(name, ANSWER)
        samples.settle(names)
    keys = [json.loads(line)["key"] for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert keys == [one.key for one in (*names, foreign)]


def test_kills_at_twenty_moments_leave_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    """A process with a real model is killed 20 times at drawn moments, then runs to its end."""
    done = subprocess.run(
        [sys.executable, "-m", killed.__name__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["num_kills"] == killed.NUM_KILLS
    assert told["num_resumed"] > 5, "kills fell into the run, after some answers were there"
    for name in ("samples.jsonl", "items.jsonl", "scores.json", "evaluation.json"):
        one, other = tmp_path / "whole" / name, tmp_path / "killed" / name
        assert one.read_bytes() == other.read_bytes(), name
