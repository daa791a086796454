"""One run of training through everything that Slurm does to a job; at its end, the bytes of one
that nothing was done to.

The tests are the lives of that run, in order: each disturbs the start that is training, and the
next one begins with the start that follows.
"""

import json
import signal

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.training import (
    AGENT,
    END_SECONDS,
    PHASES,
    RANK,
    START_SECONDS,
    TrainingRun,
    send,
    write_run,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """The run that nothing was done to."""
    run = write_run(slurm, tmp_path_factory.mktemp("alone"), every=100)
    (number,) = run.launch()
    slurm.wait_for(
        number, ("COMPLETED",), seconds=START_SECONDS + END_SECONDS, log=run.log_file(number)
    )
    return run


@pytest.fixture(scope="module")
def run(
    slurm: SlurmCluster, alone: TrainingRun, tmp_path_factory: pytest.TempPathFactory
) -> TrainingRun:
    """The run that everything is done to; no checkpoint is due before its end."""
    return write_run(slurm, tmp_path_factory.mktemp("run"), every=100_000)


def test_two_nodes_train_and_finish(alone: TrainingRun) -> None:
    """Their names are no names of this host, and are not resolved by anything but Slurm."""
    start = json.loads((alone.out / "starts" / "0000.json").read_text())
    assert (start["ranks"], start["nodes"]) == (2, 2)
    assert (alone.out / "finished").exists()
    assert alone.starts() == 1


def test_the_warning_before_the_limit_saves_that_step_on_all_ranks(
    slurm: SlurmCluster, run: TrainingRun
) -> None:
    (number,) = run.launch()
    assert run.launch() == [number], "a second launch submits nothing"
    run.wait_training(number, start=0)
    slurm.command("scancel", "--batch", "--signal=USR1", number)
    run.wait_start(number, 1)
    said = run.log(number)
    assert "the time limit is near" in said
    assert run.is_saved(number), run.log(number)
    assert not (run.out / "failures").exists()


def test_a_job_of_a_higher_partition_takes_the_nodes(slurm: SlurmCluster, run: TrainingRun) -> None:
    number = run.jobs()[-1]
    run.wait_training(number, start=1)
    script = "#!/bin/bash\n#SBATCH -p high -N2 --exclusive --mem=0 -o /dev/null\nsleep 1\n"
    urgent = slurm.command("sbatch", "--parsable", stdin=script)
    run.wait_start(number, 2)
    assert slurm.job(urgent) == "COMPLETED"
    assert run.is_saved(number), run.log(number)


def test_usr1_to_one_agent_saves_on_all_ranks(slurm: SlurmCluster, run: TrainingRun) -> None:
    number = run.jobs()[-1]
    run.wait_training(number, start=2)
    send(slurm, "n2", AGENT, signal.SIGUSR1)
    run.wait_start(number, 3)
    assert "the ranks were asked to stop" in run.log(number)
    assert run.is_saved(number), run.log(number)


def test_a_killed_agent_is_a_failure_and_the_job_comes_back(
    slurm: SlurmCluster, run: TrainingRun
) -> None:
    number = run.jobs()[-1]
    run.wait_training(number, start=3)
    send(slurm, "n2", AGENT, signal.SIGKILL)
    run.wait_start(number, 4)
    assert "the ranks ended with status 137" in run.log(number)
    assert len((run.out / "failures").read_text().splitlines()) == 1


def test_a_lost_node_takes_the_job_along_until_it_returns(
    slurm: SlurmCluster, run: TrainingRun
) -> None:
    number = run.jobs()[-1]
    run.wait_training(number, start=4)
    slurm.kill_node("n2")
    slurm.wait_until(
        lambda: slurm.job(number) == "PENDING", START_SECONDS, about=f"job {number} runs"
    )
    slurm.start_node("n2")
    run.wait_start(number, 5)


def test_scancel_saves_and_the_job_stays_away(slurm: SlurmCluster, run: TrainingRun) -> None:
    number = run.jobs()[-1]
    run.wait_training(number, start=5)
    slurm.command("scancel", number)
    log = run.log_file(number)
    slurm.wait_for(number, ("CANCELLED",), seconds=END_SECONDS, log=log)
    assert run.is_saved(number), run.log(number)


def test_a_chain_goes_on_and_ends_with_the_bytes_of_the_undisturbed_run(
    slurm: SlurmCluster, run: TrainingRun, alone: TrainingRun
) -> None:
    """Job 1 of the chain stops at a signal to one rank, of which its agent knows nothing."""
    first, second = run.launch("--chain", "2")
    run.wait_training(first, start=6)
    send(slurm, "n2", RANK, signal.SIGTERM)
    log = run.log_file(first)
    assert slurm.wait_for(first, ("COMPLETED",), seconds=END_SECONDS, log=log)
    assert "the next job of the chain goes on" in run.log(first)
    assert "the ranks were asked to stop" in run.log(first)
    slurm.wait_for(
        second, ("COMPLETED",), seconds=START_SECONDS + END_SECONDS, log=run.log_file(second)
    )
    started = run.starts()
    assert started in (8, 9), "an agent that hears of it late starts its ranks once more"
    assert list(run.results()) == list(PHASES)
    assert run.results() == alone.results()
    (third,) = run.launch()
    slurm.wait_for(third, ("COMPLETED",), seconds=END_SECONDS, log=run.log_file(third))
    assert "has finished before" in run.log(third)
    assert run.starts() == started, "a finished run is not trained again"


def test_nothing_of_it_is_left_on_the_nodes(slurm: SlurmCluster, run: TrainingRun) -> None:
    assert slurm.processes("n1") == []
    assert slurm.processes("n2") == []
    assert not (run.out / "ends").exists()
