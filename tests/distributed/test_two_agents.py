"""Two agents of torchrun on loopback, as on two nodes: one is killed, another takes its place."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frontload.launch import cli
from tests.tiny_run import TinyData, write_longer_recipe, write_tiny_data

ROOT = Path(__file__).resolve().parents[2]
STEPS = 40


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_agent(
    words: list[str], *, port: int, is_host: bool, log: Path
) -> "subprocess.Popen[bytes]":
    """One node's agent, with one rank. The host of the rendezvous outlives the other."""
    conf = f"is_host={int(is_host)},keep_alive_interval=1,keep_alive_max_attempt=2,join_timeout=240"
    command = [
        *(sys.executable, "-m", "frontload.launch.torchrun", "torchrun"),
        *("--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-id=two"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", f"--rdzv-conf={conf}"),
        *("--local-addr=127.0.0.1", "--monitor-interval=0.1", "--shutdown-timeout=20"),
        *("--module", "--", "frontload.launch.cli", *words),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / ".imports"), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def await_checkpoint(out: Path, agents: list["subprocess.Popen[bytes]"], logs: list[Path]) -> None:
    """Returns once a checkpoint is there and a good part of the run is still ahead."""
    end = time.monotonic() + 240
    while not list((out / "work" / "first" / "scratch").glob("step-*[0-9]")):
        told = "\n".join(log.read_text()[-2000:] for log in logs)
        assert all(agent.poll() is None for agent in agents), told
        assert time.monotonic() < end, told
        time.sleep(0.01)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run whose second agent was killed with its rank, and an undisturbed one on one rank."""
    root = tmp_path_factory.mktemp("two")
    recipe = write_longer_recipe(root, checkpoint_every_steps=5, spike_window_steps=0)
    data: TinyData = write_tiny_data(root / "data", recipe)
    out, logs = root / "out", [root / f"{name}.log" for name in "abc"]
    words = ["train", str(recipe), *data.flags("first"), "--until", "first", "--out"]
    port = free_port()
    agents = [
        start_agent([*words, str(out)], port=port, is_host=name == 0, log=logs[name])
        for name in (0, 1)
    ]
    try:
        await_checkpoint(out, agents, logs[:2])
        agents[1].send_signal(signal.SIGKILL)
        agents[1].wait()
        agents.append(start_agent([*words, str(out)], port=port, is_host=False, log=logs[2]))
        codes = [agents[number].wait(timeout=240) for number in (0, 2)]
        told = "\n".join(log.read_text()[-3000:] for log in logs)
        assert codes == [0, 0], told
    finally:
        for agent in agents:
            agent.kill()
    alone = root / "alone"
    assert cli.main([*words, str(alone)]) == 0
    return {"out": out, "alone": alone, "log": logs[0]}


def losses(out: Path) -> list[float]:
    lines = (out / "first" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
    return [json.loads(line)["train/loss"] for line in lines]


def test_training_goes_on_to_the_loss_of_an_undisturbed_run(run: dict[str, Path]) -> None:
    # 1e-5: two ranks add the same gradients in another order than one, over 40 steps
    assert losses(run["out"]) == pytest.approx(losses(run["alone"]), abs=1e-5)


def test_the_ranks_were_started_twice_and_went_on_from_a_checkpoint(run: dict[str, Path]) -> None:
    starts = [json.loads(path.read_text()) for path in sorted((run["out"] / "starts").iterdir())]
    # the restarts that an agent counts are its own: the new one, should it get rank 0, has none
    assert [(one["ranks"], one["nodes"]) for one in starts] == [(2, 2), (2, 2)]
    assert not (run["out"] / "error.json").exists(), "a lost peer is no failure that comes again"
