"""The agent: torchrun's options for this node, and signals to it and to its ranks."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frontload.launch.torchrun import SIGNALS, address_towards, agent_options
from frontload.recipes.errors import StageError

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [
    *("torchrun", "--nnodes=2", "--rdzv-endpoint=127.0.0.1:29", "--head-node=n1"),
    *("--rdzv-conf=join_timeout=600", "--module", "--", "it", "--words"),
]
RANK = """
import os, pathlib, signal, sys, time
from frontload.launch.ranks.beats import FOLDER, say_stopped
def stop(*_):
    time.sleep(0.5)
    pathlib.Path(sys.argv[1], "saved").touch()
    say_stopped(os.environ[FOLDER])
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, stop)
pathlib.Path(sys.argv[1], "pid").write_text(str(os.getpid()))
time.sleep(300)
"""


@pytest.mark.parametrize(("node", "is_host"), [("n1", 1), ("n2", 0)])
def test_the_head_node_hosts_the_rendezvous_and_no_other(node: str, is_host: int) -> None:
    words = agent_options(COMMAND, node=node)
    assert words[0] == "torchrun"
    assert {SIGNALS, "--local-addr=127.0.0.1", "--nnodes=2"} <= set(words)
    assert f"--rdzv-conf=join_timeout=600,is_host={is_host}" in words
    assert not any(word.startswith("--head-node") for word in words), "torchrun has none"
    assert words[-4:] == COMMAND[-4:]


def test_an_agent_alone_has_no_options_of_a_node() -> None:
    words = agent_options(["torchrun", "--standalone", "file.py"], node="n1")
    assert words == ["torchrun", SIGNALS, "--standalone", "file.py"]


def test_an_endpoint_that_nobody_knows_is_refused_with_what_to_set() -> None:
    with pytest.raises(StageError, match="finds no way there .*NodeAddr in slurm.conf"):
        address_towards("no-such-host.invalid:29500")
    host, port = "127.0.0.1", 9
    assert address_towards(f"{host}:{port}") == host
    with socket.socket() as free:
        free.bind((host, 0))
        assert address_towards(f"localhost:{free.getsockname()[1]}") in (host, "::1")


@pytest.mark.parametrize(
    ("whom", "number"),
    [("agent", signal.SIGUSR1), ("agent", signal.SIGTERM), ("rank", signal.SIGUSR1)],
)
def test_a_signal_to_the_agent_or_to_a_rank_ends_both_after_a_save(
    tmp_path: Path, whom: str, number: signal.Signals
) -> None:
    """Asked alone, a rank says so to its agent, which else would start it again."""
    (tmp_path / "rank.py").write_text(RANK)
    agent = subprocess.Popen(
        [
            *(sys.executable, "-m", "frontload.launch.torchrun", "torchrun", "--standalone"),
            *("--nproc-per-node=1", "--max-restarts=3", "--shutdown-timeout=30"),
            *(str(tmp_path / "rank.py"), str(tmp_path)),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT / ".imports"), "OMP_NUM_THREADS": "1"},
        stderr=(tmp_path / "said").open("w"),
    )
    try:
        end = time.monotonic() + 120.0
        while not (pid := tmp_path / "pid").is_file() or not pid.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        os.kill(agent.pid if whom == "agent" else int(pid.read_text()), number)
        assert agent.wait(60.0) == 75, (tmp_path / "said").read_text()
    finally:
        agent.kill()
    assert (tmp_path / "saved").exists()
    assert "the ranks were asked to stop" in (tmp_path / "said").read_text()
