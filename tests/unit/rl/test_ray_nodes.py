"""Waiting for a cluster: it returns when all have joined, and says what is missing when not."""

import socket
import time

import pytest

from frontload.recipes.errors import StageError
from frontload.rl.cluster import ray_nodes
from frontload.rl.cluster.ray_nodes import Wanted, await_nodes, await_port


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_nodes, "POLL_SECONDS", 0.01)


def test_returns_when_nodes_and_gpus_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    states = iter([(1, 8), (2, 8), (2, 16), (9, 99)])
    await_nodes(lambda: next(states), Wanted(nodes=2, gpus=16, seconds=5), started=time.monotonic())
    assert next(states) == (9, 99), "it stopped asking as soon as all were there"
    assert "2 nodes with 16 GPUs have joined" in capsys.readouterr().err


def test_says_both_counts_when_the_time_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageError) as caught:
        await_nodes(
            lambda: (3, 24), Wanted(nodes=4, gpus=32, seconds=0.05), started=time.monotonic()
        )
    assert caught.value.found == "3 of 4 nodes, 24 of 32 GPUs after 0 seconds"
    assert "waiting for Ray: 3 of 4 nodes" in capsys.readouterr().err


def test_waits_for_a_port_that_opens_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        tries: list[float] = []

        def open_at_third(seconds: float) -> None:
            tries.append(seconds)
            if len(tries) == 3:
                server.listen()

        monkeypatch.setattr(time, "sleep", open_at_third)
        await_port(address, seconds=30)
        assert len(tries) == 3


def test_a_port_that_stays_closed_is_told() -> None:
    with socket.socket() as server:  # bound and not listening: nobody else can have the port
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StageError, match="nothing listens"):
            await_port(address, seconds=0.05)


def test_the_commands_end_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        words = ["--address", address, "--nodes", "2", "--seconds", "0.05"]
        assert ray_nodes.main(words) == 1
    assert capsys.readouterr().err.startswith(f"frontload: Ray head at {address}: nothing listens")


def test_who_names_no_gpus_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Wanted] = []
    monkeypatch.setattr(ray_nodes, "await_port", lambda address, seconds: None)
    monkeypatch.setattr(ray_nodes, "_connect", lambda address: lambda: (2, 0))
    monkeypatch.setattr(
        ray_nodes, "await_nodes", lambda joined, wanted, started: asked.append(wanted)
    )
    assert ray_nodes.main(["--address", "head:1", "--nodes", "2", "--seconds", "7"]) == 0
    assert asked == [Wanted(nodes=2, gpus=0, seconds=7.0)]
