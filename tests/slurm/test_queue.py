"""Submitting, asking and ending jobs, with Slurm as the judge."""

from pathlib import Path

import pytest

from frontload.launch.cluster import queue
from frontload.recipes.errors import StageError
from tests.slurm.cluster import SlurmCluster

SECONDS = 60.0


def script(folder: Path, command: str, *options: str) -> str:
    lines = ["#!/bin/bash", f"#SBATCH --output={folder}/%j.out", f"#SBATCH --comment={folder}"]
    return "\n".join([*lines, *(f"#SBATCH {option}" for option in options), command, ""])


def wait_state(user: SlurmCluster, number: str, state: str) -> None:
    user.wait_until(
        lambda: queue.states([number]).get(number) == state,
        SECONDS,
        about=f"job {number} is {queue.states([number])}, not {state}",
    )


def test_a_job_waits_for_those_before_it_and_states_are_slurms(
    user: SlurmCluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    first = queue.submit(script(tmp_path, f"until [ -e {go} ]; do sleep 0.1; done"))
    second = queue.submit(script(tmp_path / "second", "true", "--output=/dev/null"), after=[first])
    wait_state(user, first, "RUNNING")
    assert queue.states([first, second, "7"]) == {first: "RUNNING", second: "PENDING"}
    held = queue.queued()
    assert (held[str(tmp_path)], held[str(tmp_path / "second")]) == (first, second)
    go.touch()
    wait_state(user, second, "COMPLETED")
    assert queue.states([second, first]) == {second: "COMPLETED", first: "COMPLETED"}
    assert str(tmp_path) not in queue.queued()


def test_a_failure_before_it_cancels_a_job_and_any_end_does_not(
    user: SlurmCluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    text = f"until [ -e {go} ]; do sleep 0.1; done; exit 3"
    fails = queue.submit(script(tmp_path, text))
    never = queue.submit(script(tmp_path, "true"), after=[fails])
    anyway = queue.submit(script(tmp_path, "true"), after=[fails], condition=queue.AFTER_ANY_END)
    go.touch()
    wait_state(user, fails, "FAILED")
    wait_state(user, never, "CANCELLED")
    wait_state(user, anyway, "COMPLETED")


def test_cancelled_jobs_end_and_ended_ones_are_let_be(user: SlurmCluster, tmp_path: Path) -> None:
    ended = queue.submit(script(tmp_path, "true"))
    wait_state(user, ended, "COMPLETED")
    runs = queue.submit(script(tmp_path, "sleep 100"))
    waits = queue.submit(script(tmp_path, "true"), after=[runs])
    wait_state(user, runs, "RUNNING")
    queue.cancel([ended, runs, waits, "7"])
    for number in (runs, waits):
        wait_state(user, number, "CANCELLED")
    assert queue.states([ended]) == {ended: "COMPLETED"}


def test_the_submitting_shell_changes_nothing_that_the_script_asks_for(
    user: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SBATCH_TIMELIMIT stands above a script's own --time, and so do the others of their kind."""
    inherited = {
        "SBATCH_TIMELIMIT": "1",
        "SBATCH_PARTITION": "high",
        "SBATCH_EXPORT": "NONE",
        "SLURM_CPUS_PER_TASK": "3",
        "MINE": "kept",
    }
    for name, text in inherited.items():
        monkeypatch.setenv(name, text)
    assert queue.left_out(inherited) == [name for name in sorted(inherited) if name != "MINE"]
    number = queue.submit(
        script(tmp_path, 'echo "$MINE ${SLURM_CPUS_PER_TASK:-unset}"', "--time=00:10:00", "-n1")
    )
    wait_state(user, number, "COMPLETED")
    assert (user.job(number, "TimeLimit"), user.job(number, "Partition")) == ("00:10:00", "low")
    assert (tmp_path / f"{number}.out").read_text() == "kept unset\n"


def test_slurms_refusal_is_shown_with_what_to_change(user: SlurmCluster, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="slurm.partition, header") as refused:
        queue.submit(script(tmp_path, "true", "--partition=none"))
    assert refused.value.exit_code == 1


def test_a_controller_that_does_not_answer_is_no_empty_queue(
    user: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "slurm.conf"
    text = (user.folder / "slurm.conf").read_text()
    port = next(line for line in text.splitlines() if line.startswith("SlurmctldPort"))
    conf.write_text(text.replace(port, "SlurmctldPort=1") + "\nMessageTimeout=2\n")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    for ask in (queue.queued, lambda: queue.states(["7"]), lambda: queue.cancel(["7"])):
        with pytest.raises(StageError, match="Slurm's controller answers"):
            ask()
