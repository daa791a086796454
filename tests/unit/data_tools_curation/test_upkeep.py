"""What a long run meets: a dead worker, a file that changes, its own input named as output."""

import json
import os
import random
from pathlib import Path

import pytest

from frontload.data_tools.curation import run, workers
from frontload.data_tools.curation.run import Pulse
from frontload.data_tools.curation.workers import started_workers
from frontload.recipes.errors import StageError
from frontload.recipes.runs.curation import load_curation
from tests.unit.data_tools_curation.workbench import Workbench, read_jsonl

RECIPE = (
    "sources: {own: {files: [r.jsonl], adapter: gsm8k, domain: math}}\n"
    "sets: {shq: {members: [own]}}\n"
)
ROWS = [{"question": f"q {number}", "answer": "s\n#### 1"} for number in range(9)]


def nothing(_: object) -> None: ...


def die_at_five(number: int) -> int:
    if number == 5:
        os._exit(9)
    return number


def test_a_dead_worker_ends_the_run_with_a_message() -> None:
    with (
        started_workers(2, nothing, None) as crew,
        pytest.raises(StageError, match="worker process"),
    ):
        list(crew.map(die_at_five, range(40)))


def test_results_come_in_order_and_few_tasks_wait() -> None:
    taken = 0

    def tasks() -> object:
        nonlocal taken
        for number in range(30):
            taken += 1
            yield number

    with started_workers(2, nothing, None) as crew:
        for number, found in enumerate(crew.map(abs, tasks())):
            assert found == number
            assert taken <= number + workers.TASKS_A_WORKER * 2 + 1


def test_a_file_that_changes_meanwhile_is_not_published(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.rows("r.jsonl", ROWS)
    real = run.choose_sets

    def choose_and_touch(*words: object) -> object:
        found = real(*words)
        with open("r.jsonl", "a") as stream:
            stream.write('{"question": "late", "answer": "s\\n#### 1"}\n')
        return found

    monkeypatch.setattr(run, "choose_sets", choose_and_touch)
    code, _, message = bench.run(bench.recipe(RECIPE), "--out", "out")
    assert code == 1
    assert "changed while it was read" in message
    assert not (bench.folder / "out").exists()


def test_rejects_never_replace_an_input(bench: Workbench) -> None:
    bench.rows("r.jsonl", ROWS)
    recipe = bench.recipe(RECIPE)
    assert "never written over" in bench.refusal(recipe, "--out", "out", "--rejects", "r.jsonl")
    assert "holds no rejects" in bench.refusal(recipe, "--out", "out", "--rejects", recipe)


@pytest.mark.parametrize(
    "odd", ['"deep": ' + "[" * 300 + "]" * 300, f'"n": [NaN, {10**30}]'], ids=["deep", "large"]
)
def test_a_dropped_row_that_is_hard_to_write_is_kept_as_text(bench: Workbench, odd: str) -> None:
    """JSON that is read, but that the fast library does not write: deep lists, large numbers."""
    bad = '{"question": "q", "answer": "none", ' + odd + "}"
    bench.rows("r.jsonl", [*ROWS, bad])
    bench.curate(RECIPE, more=("--rejects", "rejects.jsonl"))
    (row,) = read_jsonl(bench.folder / "rejects.jsonl")
    assert row["reason"] == "no final answer after ####"
    assert str(json.loads(row["content"])) == str(json.loads(bad))


def test_the_shipped_recipes_say_what_the_paper_says() -> None:
    sets = load_curation("paper_sets").value.sets
    assert set(sets) == {"ldq", "shq", "lmq", "alf", "alf_prime"}
    assert sets["lmq"].members == ("ldq", "shq")
    assert sets["alf"].answer_tokens_above == 4096
    assert sets["alf_prime"].members == ("alf", "shq")
    assert all(not each.duplicates for each in sets.values()), "the paper describes none"


def test_a_long_file_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 11.0, 12.0])
    monkeypatch.setattr(run.time, "monotonic", lambda: next(clock))
    told: list[str] = []
    pulse = Pulse("file 1 of 2: a", told.append)
    for _ in range(3):
        pulse.beat(1100)
    assert told == ["file 1 of 2: a, 2,200 rows read, 200 a second"]


def test_a_text_is_not_called_a_question(bench: Workbench) -> None:
    bench.rows("r.jsonl", ROWS)
    bench.rows("t.jsonl", [{"text": f"text {number}"} for number in range(4)])
    recipe = bench.recipe(
        "sources:\n  own: {files: [r.jsonl], adapter: gsm8k, domain: math}\n"
        "  web: {files: [t.jsonl], adapter: plain_text, domain: web}\n"
        "sets: {ask: {members: [own]}, base: {members: [web]}, all: {members: [ask, base]}}\n"
    )
    code, text, progress = bench.run(recipe, "--out", "out")
    assert code == 0, progress
    for told in (
        "9 distinct questions\n",
        "4 distinct texts\n",
        "13 distinct questions and texts\n",
    ):
        assert told in text


def test_what_is_printed_can_be_read(bench: Workbench) -> None:
    """Sets stand in the order of the recipe, with shares that add up, a histogram and drops."""
    draw = random.Random(3)
    rows = [
        {"question": f"how many {number}", "answer": "step " * draw.randrange(1, 40) + "#### 4"}
        for number in range(50)
    ]
    bench.rows("r.jsonl", [*rows, rows[0], {"question": "q", "answer": "none"}])
    recipe = bench.recipe(
        "sources: {own: {files: [r.jsonl], adapter: gsm8k, domain: math}}\n"
        "sets:\n  zed: {members: [own], duplicates: [exact]}\n"
        "  alf: {members: [zed], answer_tokens_above: 20}\n"
    )
    code, text, progress = bench.run(recipe, "--out", "out")
    assert code == 0, progress
    assert text.index("zed: 50 rows") < text.index("alf: ")
    for part in (
        "own: 51 of 52 rows kept",
        "1  no final answer after ####",
        "math                                   50  100.0%",
        " tokens, 50 distinct questions",
        "1  own: exact duplicate",
        "own: answer of 20 tokens or fewer",
        "###",
    ):
        assert part in text, text
    assert "file 1 of 1: r.jsonl, 51 of 52 rows kept" in progress
    assert (Path("out") / "manifest.json").is_file()
