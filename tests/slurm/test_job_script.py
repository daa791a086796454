"""What a job script is to Slurm: what it asks for, passes on, counts and reports."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from frontload.launch.cluster import queue
from frontload.launch.cluster.slurm import ClusterJob, job_script
from frontload.launch.cluster.slurm_bodies import command_body, torchrun_body
from frontload.recipes.machines.cluster import Gpus, Slurm
from frontload.recipes.machines.placement import Placement
from tests.slurm.cluster import NODES, SlurmCluster

SECONDS = 60.0
ON_ALL = """
start on_nodes "$num_nodes" "$everyone" bash -c 'echo "$SLURMD_NODENAME: $MINE $THEIRS $(nproc)"'
status=0
watch "$started" "the echo" || status=$?
"""


def placement(folder: Path, *, nodes: int = 2, **changes: object) -> Placement:
    slurm = Slurm(
        shared_folder=str(folder),
        time_limit="00:10:00",
        stop_seconds=20,
        requeue_seconds=200,
        environment={"MINE": "of the placement"},
    )
    found = Placement(name="real", num_nodes=nodes, ranks_per_node=1, slurm=slurm)
    return replace(found, slurm=replace(slurm, **changes))  # pyright: ignore


def job(folder: Path, body: str, **more: object) -> ClusterJob:
    made = ClusterJob(
        name="test", folder=folder / "run", environment={"THEIRS": "of the job"}, body=body
    )
    return replace(made, **more)  # pyright: ignore


def run(user: SlurmCluster, made: ClusterJob, where: Placement, *, expect: str) -> str:
    """Submits the job's script, waits for its end, and returns what it said."""
    (made.folder / "logs").mkdir(parents=True, exist_ok=True)
    number = queue.submit(job_script(made, where))
    log = made.folder / "logs" / f"{number}.out"
    ends = ("COMPLETED", "FAILED", "CANCELLED")
    state = user.wait_for(number, ends, seconds=SECONDS, log=log)
    said = log.read_text()
    assert state == expect, said
    return said


def test_what_the_script_exports_reaches_every_node(user: SlurmCluster, tmp_path: Path) -> None:
    """A site, or the user, may submit with --export=NONE: srun would pass nothing on."""
    slurm = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SLURM_CONF")}
    variables = {"MINE": "of the placement", **slurm}
    where = placement(tmp_path, header=("--export=NONE",), environment=variables)
    said = run(user, job(tmp_path, ON_ALL), where, expect="COMPLETED")
    for node in NODES:
        assert f"{node}: of the placement of the job" in said


def test_nodes_with_unequal_numbers_of_cpus_run_a_step(user: SlurmCluster, tmp_path: Path) -> None:
    assert len(set(NODES.values())) > 1
    body = ON_ALL.replace("$(nproc)", "$SLURM_CPUS_PER_TASK")
    said = run(user, job(tmp_path, body), placement(tmp_path), expect="COMPLETED")
    for node in NODES:
        assert f"{node}: of the placement of the job {min(NODES.values())}" in said


def test_a_partition_without_gpus_is_asked_for_none(user: SlurmCluster, tmp_path: Path) -> None:
    run(user, job(tmp_path, ON_ALL), placement(tmp_path), expect="COMPLETED")
    gpus = Gpus(kind="h100_sxm", kernel_mfu=0.4)
    where = replace(placement(tmp_path), gpus=gpus)
    assert "#SBATCH --gpus-per-node=1\n" in job_script(job(tmp_path, ON_ALL), where)
    (tmp_path / "run" / "finished").unlink()
    run(user, job(tmp_path, ON_ALL, needs_gpus=False), where, expect="COMPLETED")


def test_one_command_makes_its_thing_once(user: SlurmCluster, tmp_path: Path) -> None:
    made = tmp_path / "made"
    body = command_body(["bash", "-c", f"echo once >> {made}"], made=made)
    where = placement(tmp_path, nodes=1)
    run(user, job(tmp_path, body), where, expect="COMPLETED")
    (tmp_path / "run" / "finished").unlink()
    run(user, job(tmp_path, body), where, expect="COMPLETED")
    assert made.read_text() == "once\n"


def agent(folder: Path, text: str) -> str:
    """The body of a training job whose agents are this text of bash; no checks."""
    fake = folder / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text("#!/bin/bash\n[[ $* == *launch.torchrun* ]] || exit 0\n" + text)
    fake.chmod(0o755)
    return torchrun_body(["it"], ["true"], max_restarts=0, max_failures=1)


AS_ASKED = "trap 'sleep 2; echo saved $SLURMD_NODENAME; exit 75' TERM\n"
WAIT = "while :; do sleep 0.1; done\n"


@pytest.mark.parametrize(
    ("n1", "n2", "said"),
    [
        ("sleep 1; exit 75", AS_ASKED + "sleep 3; exit 75", "the ranks were asked to stop"),
        ("exit 9", AS_ASKED + WAIT, "ended with status 9"),
        ("kill -KILL $$", AS_ASKED + WAIT, "ended with status 137"),
        ("exit 1", "kill -TERM $$", "ended with status 1"),
        ("exit 0", "exit 0", "finished"),
    ],
    ids=["both_stop", "one_fails", "one_is_killed", "failure_and_its_follower", "both_end"],
)
def test_the_cause_of_an_end_is_reported_and_not_the_highest_status(
    user: SlurmCluster, tmp_path: Path, n1: str, n2: str, said: str
) -> None:
    """One that ends with 75 does not get the others killed; a failure is not taken for a stop."""
    body = agent(tmp_path, f"[[ $SLURMD_NODENAME != n1 ]] || {{ {n1}; }}\n{n2}\n")
    where = placement(tmp_path, activate=f"export PATH={tmp_path}/bin:$PATH", max_requeues=0)
    made = job(tmp_path, body, is_chained=True)
    expect = "FAILED" if "status" in said else "COMPLETED"
    assert said in run(user, made, where, expect=expect)


def test_only_starts_without_progress_are_counted(user: SlurmCluster, tmp_path: Path) -> None:
    """Two starts that get on are not too many for max_requeues 0; the second that does not is."""
    count = tmp_path / "run" / "count"
    body = f"""
    n=$(cat {count} 2>/dev/null || echo 0)
    echo $((n + 1)) > {count}
    ((n >= 2)) || touch "$folder/step-$n"
    status=0
    ((n >= 9)) || requeue "more to do"
    """
    where = placement(tmp_path, nodes=1, max_requeues=0)
    said = run(user, job(tmp_path, body, progress=("step-*",)), where, expect="FAILED")
    assert "was started 1 times and got no further" in said
    assert int(count.read_text()) == 3


THREE_STEPS = r"""
told() { printf 'trap "sleep 0.3; echo %s >> %s; exit 0" TERM; touch %s; ' "$1" "$log" "$log.$1"; }
log="$folder/ends.log"
forever='while :; do sleep 0.1; done'
start on_nodes 1 "${nodes[0]}" bash -c "$(told head) $forever"
companions+=("$started")
start on_nodes 1 "${nodes[1]}" bash -c "$(told worker) $forever"
companions+=("$started")
until [[ -e "$log.head" && -e "$log.worker" ]]; do sleep 0.1; done
start on_nodes 1 "${nodes[0]}" bash -c "$(told trainer) $forever"
status=0
watch "$started" "the trainer" || status=$?
"""


def test_a_warned_job_ends_its_steps_one_after_the_other_newest_first(
    user: SlurmCluster, tmp_path: Path
) -> None:
    """As Ray needs it: trainer, worker, head; each hears SIGTERM itself and has time to end."""
    made = job(tmp_path, THREE_STEPS, is_chained=True)
    (made.folder / "logs").mkdir(parents=True)
    number = queue.submit(job_script(made, placement(tmp_path)))
    log = made.folder / "logs" / f"{number}.out"
    ready = made.folder / "ends.log.trainer"
    user.wait_until(ready.exists, SECONDS, about=f"no trainer, {log}")
    user.command("scancel", "--batch", "--signal=USR1", number)
    ends = ("COMPLETED", "FAILED", "CANCELLED")
    state = user.wait_for(number, ends, seconds=SECONDS, log=log)
    assert state == "COMPLETED", log.read_text()
    assert (made.folder / "ends.log").read_text().split() == ["trainer", "worker", "head"]
    assert "the time limit is near" in log.read_text()
