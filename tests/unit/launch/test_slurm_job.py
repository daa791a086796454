"""The job script, run against a cluster of fake commands: order, statuses, signals, clean ends."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from frontload.launch.cluster.slurm import ClusterJob, job_script
from frontload.launch.cluster.slurm_bodies import (
    ray_body,
    torchrun_body,
)
from frontload.recipes.machines.cluster import Gpus, Slurm
from frontload.recipes.machines.placement import Placement
from tests.unit.launch.fake_cluster import FakeCluster

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "pretrain_job.sh"
CHECKS = ("python", "-m", "frontload.rl.cluster.preflight", "--gpus", "8")
WORDS = ("key='it is'", 'a "b"', "c=$HOME;d", "[x,y]", "")
TRAINER = ("python", "-m", "verl.trainer.main_ppo", *WORDS)
KEEPER = ("python", "-m", "frontload.rl.cluster.run", "--kept", "2")
SLURM = Slurm(
    shared_folder="/shared",
    activate='export ACTIVE="yes on $FAKE_NODE"',
    environment={"MINE": "a b'c"},
    stop_seconds=20,
)
GPUS = Gpus(kind="h100_sxm", kernel_mfu=0.4)
PLACEMENT = Placement(name="four", num_nodes=4, ranks_per_node=8, slurm=SLURM, gpus=GPUS)


@pytest.fixture
def cluster(tmp_path: Path) -> FakeCluster:
    return FakeCluster(tmp_path)


def script_of(cluster: FakeCluster, placement: Placement = PLACEMENT) -> str:
    job = ClusterJob(
        name="grpo_8b",
        folder=cluster.folder / "run",
        environment={"OMP_NUM_THREADS": "8"},
        body=ray_body(TRAINER, CHECKS, keeper=KEEPER, max_failures=2),
    )
    return job_script(job, placement)


def with_slurm(**changes: object) -> Placement:
    return replace(PLACEMENT, slurm=replace(SLURM, **changes))  # pyright: ignore


def test_head_then_workers_then_one_trainer_then_nothing(cluster: FakeCluster) -> None:
    status, said = cluster.run(script_of(cluster))
    assert status == 0, said
    starts = [line.split()[:2] for line in cluster.events("ray")]
    assert starts[0] == ["ray", "n1"]
    assert sorted(starts[1:]) == [["ray", f"n{node}"] for node in range(2, 5)]
    checks = [line for line in cluster.log if "rl.cluster.preflight" in line]
    assert sorted(line.split()[1] for line in checks) == ["n1", "n2", "n3", "n4"]
    order = [cluster.log.index(line) for line in (*checks, *cluster.events("ray"))]
    assert max(order[:4]) < min(order[4:]), "no Ray before every node is checked"
    trainers = [line for line in cluster.log if "main_ppo" in line]
    assert [line.split()[1] for line in trainers] == ["n1"]
    assert cluster.log.index(trainers[0]) > max(order)
    end = cluster.log.index("trainer-end n1")
    assert sorted(cluster.log[end + 1 :]) == [f"ray-end n{node}" for node in range(1, 5)]
    assert cluster.left == []
    assert (cluster.folder / "run" / "finished").exists()


def test_waits_for_the_head_then_for_every_node_and_gpu(cluster: FakeCluster) -> None:
    cluster.run(script_of(cluster))
    waits = [line for line in cluster.log if "ray_nodes" in line]
    assert len(waits) == 2
    assert "<--address><10.1.2.3:22345>" in waits[0]
    assert waits[0].endswith("<--nodes><1><--gpus><8>")
    assert waits[1].endswith("<--nodes><4><--gpus><32>")
    trainer = next(place for place, line in enumerate(cluster.log) if "main_ppo" in line)
    assert cluster.log.index(waits[1]) < trainer


def test_head_and_workers_agree_on_address_and_port(cluster: FakeCluster) -> None:
    cluster.run(script_of(cluster))
    head, *workers = cluster.events("ray")
    assert "--head --node-ip-address=10.1.2.3 --port=22345" in head  # 20000 + 12345 % 10000
    assert "--include-dashboard=false" in head
    assert all("--address=10.1.2.3:22345" in line for line in workers)
    assert all(
        "--num-cpus=96 --num-gpus=8 --disable-usage-stats --block" in line
        for line in [head, *workers]
    )
    assert "RAY_ADDRESS=10.1.2.3:22345" in cluster.state("trainer.env").read_text().splitlines()


@pytest.mark.parametrize(
    ("job", "first", "span", "port"),
    [("7", 20_000, 10_000, 20_007), ("29999", 20_000, 10_000, 29_999), ("5", 6_379, 1, 6_379)],
)
def test_the_port_follows_from_the_job(
    cluster: FakeCluster, job: str, first: int, span: int, port: int
) -> None:
    script = script_of(cluster, with_slurm(first_port=first, num_ports=span))
    cluster.run(script, SLURM_JOB_ID=job)
    assert f"--port={port} " in cluster.events("ray")[0]


def test_a_head_without_an_outer_ipv4_address_is_called_by_name(cluster: FakeCluster) -> None:
    cluster.run(script_of(cluster), FAKE_ADDRESSES="fe80::1 127.0.0.1")
    assert "--node-ip-address=n1 " in cluster.events("ray")[0]


def test_the_trainer_gets_its_words_and_its_environment(cluster: FakeCluster) -> None:
    status, said = cluster.run(script_of(cluster), SLURM_RESTART_COUNT="2")
    assert status == 0, said
    arguments = cluster.state("trainer.arguments").read_text().split("\n")[:-1]
    log = str(cluster.folder / "run" / "metrics-12345-2.jsonl")
    assert arguments == [*KEEPER[1:], "--log", log, "--", *TRAINER]
    environment = cluster.state("trainer.env").read_text().splitlines()
    assert "OMP_NUM_THREADS=8" in environment
    assert "MINE=a b'c" in environment
    assert "ACTIVE=yes on n1" in environment
    metrics = cluster.folder / "run" / "metrics-12345-2.jsonl"
    assert f"VERL_FILE_LOGGER_PATH={metrics}" in environment, "a restart writes a file of its own"


def test_every_start_has_a_token_of_its_own_that_is_written_nowhere(cluster: FakeCluster) -> None:
    script = script_of(cluster)
    tokens = []
    for _ in range(2):
        status, said = cluster.run(script)
        assert status == 0, said
        environment = dict(
            line.split("=", 1) for line in cluster.state("trainer.env").read_text().splitlines()
        )
        assert environment["RAY_AUTH_MODE"] == "token"
        tokens.append(environment["RAY_AUTH_TOKEN"])
        assert tokens[-1] not in said + script + "".join(cluster.log)
        (cluster.folder / "run" / "finished").unlink()
    assert tokens[0] != tokens[1]
    assert all(len(token) == 64 for token in tokens)


def test_the_trainers_status_is_the_jobs(cluster: FakeCluster) -> None:
    status, said = cluster.run(script_of(cluster), FAKE_STATUS="7")
    assert status == 7
    assert "ended with status 7" in said
    assert cluster.left == []
    assert not (cluster.folder / "run" / "finished").exists()


def test_a_trainer_that_stood_still_goes_on_until_it_gets_no_further(cluster: FakeCluster) -> None:
    """Status 75 is the keeper's for it; the tracker says how far the run got."""
    script, run = script_of(cluster), cluster.folder / "run"
    status, said = cluster.run(script, FAKE_STATUS="75")
    assert status == 0, said
    assert cluster.log[-1] == "scontrol - requeue 12345"
    assert cluster.left == []
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("25")
    status, said = cluster.run(script, FAKE_STATUS="75", SLURM_RESTART_COUNT="1")
    assert status == 0, "it got further, to step 25"
    requeues = cluster.events("scontrol")
    status, said = cluster.run(script, FAKE_STATUS="75", SLURM_RESTART_COUNT="2")
    assert (status, cluster.events("scontrol")) == (75, requeues), "twice at one place"
    before = cluster.events("srun")
    status, said = cluster.run(script)
    assert status == 1
    assert f"stood still 2 times at one place; read {run}/logs" in said
    assert not [line for line in cluster.events("srun")[len(before) :] if "preflight" in line]


def test_unfit_node_ends_the_job_before_ray(cluster: FakeCluster) -> None:
    status, said = cluster.run(script_of(cluster), FAKE_UNFIT="n3")
    assert status == 1
    assert "no GPU" in said
    assert cluster.events("ray") == []


def test_a_node_that_never_joins_ends_the_job_before_training(cluster: FakeCluster) -> None:
    status, said = cluster.run(script_of(cluster), FAKE_ABSENT="n4")
    assert status == 1
    assert "not every node joined Ray" in said
    assert not any("main_ppo" in line for line in cluster.log)
    assert cluster.left == []


def test_a_head_that_never_comes_up_ends_the_job_before_workers(cluster: FakeCluster) -> None:
    status, said = cluster.run(script_of(cluster), FAKE_ABSENT="n1")
    assert status == 1
    assert "head did not start" in said
    assert len(cluster.events("ray")) == 1
    assert cluster.left == []


@pytest.mark.parametrize("node", ["n1", "n3"])
def test_losing_a_node_of_ray_stops_the_trainer(cluster: FakeCluster, node: str) -> None:
    process = cluster.start(script_of(cluster), FAKE_TRAINS="1000")
    cluster.await_training()
    cluster.state(f"kill-{node}").touch()
    status, said = cluster.end(process)
    assert status == 1
    assert "a step it needs ended first, with status 5" in said
    assert cluster.events("trainer-stopped") == ["trainer-stopped n1"]
    assert cluster.left == []


def test_the_warning_before_the_limit_stops_and_requeues(cluster: FakeCluster) -> None:
    status, said = cluster.signal_while_training(script_of(cluster), signal.SIGUSR1)
    assert status == 0, said
    assert cluster.events("trainer-stopped") == ["trainer-stopped n1"]
    assert cluster.log[-1] == "scontrol - requeue 12345", "everything has ended before the requeue"
    assert cluster.left == []
    assert not (cluster.folder / "run" / "finished").exists()
    status, said = cluster.run(script_of(cluster), SLURM_RESTART_COUNT="1")
    assert status == 0, said
    assert (cluster.folder / "run" / "finished").exists()


def test_a_requeue_that_slurm_refuses_is_a_failure(cluster: FakeCluster) -> None:
    status, said = cluster.signal_while_training(
        script_of(cluster), signal.SIGUSR1, FAKE_SCONTROL_STATUS="3"
    )
    assert status == 1
    assert "requeue 12345 failed" in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_being_cancelled_leaves_no_process(
    cluster: FakeCluster, number: signal.Signals, code: int
) -> None:
    status, _ = cluster.signal_while_training(script_of(cluster), number)
    assert status == code
    assert cluster.events("trainer-stopped") == ["trainer-stopped n1"]
    assert cluster.left == []


def test_the_trainer_is_asked_to_stop_before_ray_is(cluster: FakeCluster) -> None:
    cluster.signal_while_training(script_of(cluster), signal.SIGTERM)
    ends = cluster.events("trainer-stopped", "ray-end")
    assert (ends[0], ends[-1]) == ("trainer-stopped n1", "ray-end n1"), "the head goes last"


def test_what_does_not_stop_does_not_hold_the_job(cluster: FakeCluster) -> None:
    script = script_of(cluster, with_slurm(stop_seconds=1))
    started = time.monotonic()
    status, said = cluster.run(script, FAKE_STUBBORN="yes")
    assert status == 0, said
    assert cluster.events("ray-end") == []
    assert cluster.left == [], "they are killed"
    assert time.monotonic() - started < 30


def test_a_finished_run_is_not_run_again(cluster: FakeCluster) -> None:
    (cluster.folder / "run").mkdir()
    (cluster.folder / "run" / "finished").touch()
    status, said = cluster.run(script_of(cluster), SLURM_RESTART_COUNT="1")
    assert status == 0
    assert "finished before" in said
    assert cluster.log == []


def test_a_job_is_not_requeued_for_ever(cluster: FakeCluster) -> None:
    """The paper's 1T tokens need 28 starts: those that get on are not counted, however many."""
    script, run = script_of(cluster, with_slurm(max_requeues=1)), cluster.folder / "run"
    tracker = run / "checkpoints" / "latest_checkpointed_iteration.txt"
    tracker.parent.mkdir(parents=True)
    for start, step in enumerate([10, 20, 30, 30]):
        tracker.write_text(str(step))
        status, said = cluster.run(script, FAKE_STATUS="7", SLURM_RESTART_COUNT=str(start + 40))
        assert status == 7, said
    before = cluster.log
    status, said = cluster.run(script, SLURM_RESTART_COUNT="44")
    assert status == 1
    assert "was started 2 times and got no further" in said
    assert cluster.log == before


def test_a_wrong_number_of_nodes_is_refused(cluster: FakeCluster) -> None:
    cluster.nodes = ("n1", "n2")
    status, said = cluster.run(script_of(cluster))
    assert status == 1
    assert "has 2 nodes, not 4" in said
    assert cluster.log == []


def test_one_node_needs_no_workers(cluster: FakeCluster) -> None:
    cluster.nodes = ("n1",)
    status, said = cluster.run(script_of(cluster, replace(PLACEMENT, num_nodes=1)))
    assert status == 0, said
    assert len(cluster.events("ray")) == 1
    assert len([line for line in cluster.log if "ray_nodes" in line]) == 1


def test_every_step_of_software_runs_in_the_container(cluster: FakeCluster) -> None:
    placement = with_slurm(container_image="/images/verl.sqsh", container_mounts="/shared:/shared")
    status, said = cluster.run(script_of(cluster, placement))
    assert status == 0, said
    steps = cluster.events("srun")
    inside = [line for line in steps if "--cpus-per-task=96" in line]
    assert len(inside) == len(steps) - 1, "all but `hostname`"
    flags = "--container-image=/images/verl.sqsh --container-mounts=/shared:/shared"
    assert all(line.endswith(flags) for line in inside)


@pytest.mark.parametrize("status", [0, 4])
def test_another_kind_of_job_needs_a_body_only(cluster: FakeCluster, status: int) -> None:
    """As an agent on every node would be started, that meets the others at the head."""
    body = """
        agent=(python -m verl.agent --nnodes="$num_nodes" --endpoint="$head_address:$port")
        start on_nodes "$num_nodes" "$everyone" "${agent[@]}"
        status=0
        watch "$started" "the agents" || status=$?
    """
    job = ClusterJob(name="other", folder=cluster.folder / "run", environment={}, body=body)
    code, said = cluster.run(job_script(job, PLACEMENT), FAKE_STATUS=str(status), FAKE_TRAINS="20")
    assert code == status, said
    agents = cluster.events("python")
    assert sorted(line.split()[1] for line in agents) == ["n1", "n2", "n3", "n4"]
    assert all("<--nnodes=4><--endpoint=10.1.2.3:22345>" in line for line in agents)
    assert (cluster.folder / "run" / "finished").exists() == (status == 0)


def training_script(
    cluster: FakeCluster,
    placement: Placement = PLACEMENT,
    *,
    is_chained: bool = False,
    max_failures: int = 3,
) -> str:
    worker = ("--module", "--", "frontload.launch.cli", "train", "it is")
    job = ClusterJob(
        name="pretrain_8b_ldq",
        folder=cluster.folder / "run",
        environment={},
        body=torchrun_body(worker, CHECKS, max_restarts=3, max_failures=max_failures),
        is_chained=is_chained,
    )
    return job_script(job, placement)


def test_torchrun_meets_at_the_head_after_the_checks(cluster: FakeCluster) -> None:
    status, said = cluster.run(training_script(cluster))
    assert status == 0, said
    agents = [line for line in cluster.events("python") if "launch.torchrun" in line]
    assert sorted(line.split()[1] for line in agents) == ["n1", "n2", "n3", "n4"]
    for line in agents:
        assert "<--nnodes=4><--nproc-per-node=8><--max-restarts=3><--rdzv-backend=c10d>" in line
        assert "<--rdzv-endpoint=10.1.2.3:22345><--head-node=n1><--rdzv-id=12345.0>" in line
        assert line.endswith("<--module><--><frontload.launch.cli><train><it is>")
    checks = [line for line in cluster.log if "rl.cluster.preflight" in line]
    assert cluster.log.index(agents[0]) > max(cluster.log.index(line) for line in checks)
    assert (cluster.folder / "run" / "finished").exists()


def test_ranks_that_were_asked_to_stop_are_requeued(cluster: FakeCluster) -> None:
    status, said = cluster.run(training_script(cluster), FAKE_STATUS="75")
    assert status == 0, said
    assert cluster.log[-1] == "scontrol - requeue 12345"
    assert not (cluster.folder / "run" / "failures").exists(), "that is no failure"


def test_a_job_of_a_chain_leaves_the_rest_to_the_next(cluster: FakeCluster) -> None:
    script = training_script(cluster, is_chained=True)
    status, said = cluster.signal_while_training(script, signal.SIGUSR1)
    assert status == 0, said
    assert "the next job of the chain goes on" in said
    assert not any("requeue" in line for line in cluster.events("scontrol"))
    assert cluster.left == []


def test_a_run_that_gets_no_further_stays(cluster: FakeCluster) -> None:
    script = training_script(cluster, max_failures=2)
    scratch = cluster.folder / "run" / "work" / "first" / "scratch"
    (scratch / "step-00000010").mkdir(parents=True)
    status, said = cluster.run(script, FAKE_STATUS="1")
    assert (status, cluster.log[-1]) == (0, "scontrol - requeue 12345"), said
    (scratch / "step-00000020").mkdir()  # it got further, so that this failure is its first here
    status, said = cluster.run(script, FAKE_STATUS="1", SLURM_RESTART_COUNT="1")
    assert (status, cluster.log[-1]) == (0, "scontrol - requeue 12345"), said
    status, said = cluster.run(script, FAKE_STATUS="1", SLURM_RESTART_COUNT="2")
    assert status == 1, said
    assert cluster.log[-1] != "scontrol - requeue 12345"
    status, said = cluster.run(script)
    assert status == 1
    assert "failed 2 times at one place" in said
    assert "remove" in said


def test_a_failure_that_would_come_again_ends_job_and_chain(cluster: FakeCluster) -> None:
    run = cluster.folder / "run"
    run.mkdir()
    (run / "error.json").write_text("of an earlier job, whose cause was mended")
    process = cluster.start(training_script(cluster), FAKE_TRAINS="20", FAKE_STATUS="1")
    cluster.await_training()
    assert not (run / "error.json").exists()
    (run / "error.json").write_text("{}")
    status, said = cluster.end(process)
    assert status == 1
    assert "error.json" in said
    assert not any("requeue" in line for line in cluster.events("scontrol"))
    trained = len(cluster.events("python"))
    status, said = cluster.run(
        training_script(cluster, is_chained=True), SLURM_JOB_DEPENDENCY="afterany:1"
    )
    assert status == 1
    assert "mend its cause" in said
    assert len(cluster.events("python")) == trained, "nothing was started"


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize("kind", ["ray", "torchrun"])
def test_bash_and_shellcheck_accept_the_script(cluster: FakeCluster, nodes: int, kind: str) -> None:
    write = script_of if kind == "ray" else training_script
    path = cluster.folder / "script.sh"
    path.write_text(write(cluster, replace(PLACEMENT, num_nodes=nodes)))
    checked = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    command = [Path(sys.executable).with_name("shellcheck"), "--severity=warning", path]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_training_job_is_the_one_that_was_read_over() -> None:
    """The whole script; FRONTLOAD_GOLDEN=write rewrites it, and the commit says why."""
    placement = replace(PLACEMENT, slurm=replace(SLURM, partition="h100"))
    job = ClusterJob(
        name="pretrain_8b_ldq",
        folder=Path("/shared/runs/pretrain_8b_ldq"),
        environment={"OMP_NUM_THREADS": "8"},
        body=torchrun_body(
            ("--module", "--", "frontload.launch.cli", "train", "pretrain_8b_ldq"),
            ("python", "-m", "frontload.launch.cli", "doctor", "--brief"),
            max_restarts=3,
            max_failures=3,
        ),
    )
    script = job_script(job, placement)
    if os.environ.get("FRONTLOAD_GOLDEN") == "write":
        GOLDEN.write_text(script)
    assert script == GOLDEN.read_text()
