"""The keeper of veRL's trainer on a cluster, with real processes in the trainer's place."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from frontload.recipes.errors import StageError
from frontload.rl.watch.checkpoints import TRACKER, step_folders
from frontload.rl.watch.first_steps import FIRST_STEPS
from frontload.rl.watch.step_watch import StepWatch
from tests.unit.rl.test_checkpoints import write_step

ROOT = Path(__file__).resolve().parents[3]
TRAINER = """
import json, signal, sys, time
log, steps, status, then = sys.argv[1:5]
print("words", *sys.argv[5:], flush=True)
data = {"critic/advantages/max": 0.0, "critic/advantages/min": 0.0, "critic/score/mean": 0.0}
signal.signal(signal.SIGTERM, signal.SIG_IGN if then == "stubborn" else signal.SIG_DFL)
with open(log, "w", buffering=1) as file:
    for step in range(1, int(steps) + 1):
        file.write(json.dumps({"step": step, "data": data if then == "alike" else {}}) + "\\n")
        time.sleep(0.1)
    time.sleep(0 if then == "end" else 600)
sys.exit(int(status))
"""


def command(folder: Path, *words: str, seconds: float = 600.0) -> list[str]:
    log = str(folder / "steps.jsonl")
    return [
        *(sys.executable, "-m", "frontload.rl.cluster.run", "--log", log),
        *("--checkpoints", str(folder), "--kept", "2", "--ranks", "2"),
        *("--hang-seconds", str(seconds), "--answers", str(folder / "answers")),
        *("--", sys.executable, "-c", TRAINER, log, *words),
    ]


def start(folder: Path, *words: str, seconds: float = 600.0) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(folder, *words, seconds=seconds),
        env={**os.environ, "PYTHONPATH": f"{ROOT / '.imports'}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("status", [0, 3])
def test_the_trainers_status_is_kept(tmp_path: Path, status: int) -> None:
    keeper = start(tmp_path, "3", str(status), "end")
    _, said = keeper.communicate()
    assert keeper.returncode == status, said
    assert said == ""


def test_a_run_that_makes_no_step_is_ended_and_says_so_in_four_parts(tmp_path: Path) -> None:
    keeper = start(tmp_path, "2", "0", "hang", seconds=6.0)
    while len(found := psutil.Process(keeper.pid).children()) < 1:
        assert keeper.poll() is None
        time.sleep(0.05)
    _, said = keeper.communicate()
    assert keeper.returncode == 75, said
    assert said.startswith("frontload: veRL's trainer: no step ended for ")
    assert (
        "after step 2; a step, and the start, take at most placement.rl.hang_seconds, 6 s" in said
    )
    assert f"read {tmp_path / 'steps.jsonl'}" in said
    assert not found[0].is_running()


def test_a_run_that_has_nothing_to_learn_from_is_ended_and_not_started_again(
    tmp_path: Path,
) -> None:
    keeper = start(tmp_path, str(FIRST_STEPS), "0", "alike")
    _, said = keeper.communicate()
    assert keeper.returncode == 1, said  # 75 would be requeued
    assert said.startswith("frontload: GRPO, steps 1 to 5: every answer has reward 0; ")
    assert f"read {tmp_path / 'answers'}: whether answers have the layout" in said


def test_a_run_that_is_asked_to_stop_ends_its_trainer(tmp_path: Path) -> None:
    keeper = start(tmp_path, "1", "0", "hang")
    assert keeper.stdout is not None
    keeper.stdout.readline()
    (trainer,) = psutil.Process(keeper.pid).children()
    keeper.send_signal(signal.SIGTERM)
    keeper.communicate()
    assert keeper.returncode == 143
    assert not trainer.is_running()


def test_a_resumed_run_is_not_validated_again_and_drops_what_is_not_kept(tmp_path: Path) -> None:
    words = ("1", "0", "end", "trainer.val_before_train=true", "trainer.test_freq=50")
    keeper = start(tmp_path, *words)
    told, _ = keeper.communicate()
    assert told == "words trainer.val_before_train=true trainer.test_freq=50\n"
    for step in (25, 50, 75):
        write_step(tmp_path, step)
    (tmp_path / TRACKER).write_text("75")
    keeper = start(tmp_path, *words)
    told, said = keeper.communicate()
    assert told == "words trainer.val_before_train=false trainer.test_freq=50\n"
    assert said == "frontload: goes on from the checkpoint of step 75\n"
    assert list(step_folders(tmp_path)) == [50, 75]


def test_a_run_that_was_killed_after_its_last_save_is_validated_once_more(tmp_path: Path) -> None:
    """veRL saves the last step, then validates it: of a start from there it is all that is left."""
    write_step(tmp_path, 75)
    (tmp_path / TRACKER).write_text("75")
    validated = "trainer.val_before_train=true"
    for steps, kept in (("75", validated), ("750", "trainer.val_before_train=false")):
        words = ("0", "0", "end", validated, f"trainer.total_training_steps={steps}")
        told, _ = start(tmp_path, *words).communicate()
        assert told == f"words {kept} trainer.total_training_steps={steps}\n"


def test_checkpoints_of_other_ranks_are_refused_before_the_trainer_starts(tmp_path: Path) -> None:
    write_step(tmp_path, 25, ranks=4)
    (tmp_path / TRACKER).write_text("25")
    keeper = start(tmp_path, "1", "0", "end")
    told, said = keeper.communicate()
    assert (keeper.returncode, told) == (2, "")
    assert said.count("; ") >= 2


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def look_for(self, watch: StepWatch, seconds: int, *, step: int) -> None:
        """A look every second at a log that does not grow."""
        for _ in range(seconds):
            self.now += 1.0
            watch.look(has_moved=False, step=step)


def test_a_pause_of_the_whole_job_is_no_hang() -> None:
    clock = Clock()
    watch = StepWatch(60.0, "log", clock=clock)
    clock.look_for(watch, 30, step=1)
    clock.now += 4_000.0  # suspended for an hour
    clock.look_for(watch, 28, step=1)
    with pytest.raises(StageError, match="after step 1"):
        clock.look_for(watch, 2, step=1)


def test_every_step_begins_the_time_anew_and_0_is_no_limit() -> None:
    clock = Clock()
    watch, free = (StepWatch(limit, "log", clock=clock) for limit in (5.0, 0.0))
    for step in range(20):
        clock.look_for(watch, 4, step=step)
        watch.look(has_moved=True, step=step + 1)
    clock.look_for(free, 1_000, step=0)
    watch.look(has_moved=True, step=20)
    with pytest.raises(StageError, match="after step 20"):
        clock.look_for(watch, 6, step=20)
