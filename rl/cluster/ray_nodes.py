"""Waits until a Ray cluster has the nodes and GPUs a job was given: the step between Ray and veRL.

Run on a node of the cluster: python -m frontload.rl.cluster.ray_nodes --address HOST:PORT --nodes 4
"""

import argparse
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from frontload.recipes.errors import FrontloadError, StageError

POLL_SECONDS = 1.0
SAID_EVERY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What must have joined, and how long to wait for it."""

    nodes: int
    gpus: int
    seconds: float


Joined = Callable[[], tuple[int, int]]
"""Living nodes and their GPUs, now."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Waits as the command line says. Exit code 0: all have joined; 1: the time is over."""
    parser = argparse.ArgumentParser(prog="ray_nodes", allow_abbrev=False)
    parser.add_argument("--address", required=True, help="HOST:PORT of the head")
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--gpus", type=int, default=0, help="of all nodes together")
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args(arguments)
    wanted = Wanted(nodes=options.nodes, gpus=options.gpus, seconds=options.seconds)
    started = time.monotonic()
    try:
        await_port(options.address, seconds=wanted.seconds)
        await_nodes(_connect(options.address), wanted, started=started)
    except FrontloadError as error:
        print(f"frontload: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def await_port(address: str, *, seconds: float) -> None:
    """Returns when something listens at HOST:PORT. Ray's own client gives up only after a minute.

    Raises: StageError if nothing does in time.
    """
    host, _, port = address.rpartition(":")
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=POLL_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() >= end:
                raise StageError(
                    f"Ray head at {address}",
                    found=f"nothing listens after {seconds:.0f} seconds ({error.strerror})",
                    rule="the head listens before workers are started",
                    do="read its lines above, or raise placement.slurm.start_seconds",
                ) from error
        time.sleep(POLL_SECONDS)


def await_nodes(joined: Joined, wanted: Wanted, *, started: float) -> None:
    """Returns when the wanted nodes and GPUs are there; says every half minute what is missing.

    Raises: StageError with both counts if the time is over.
    """
    said = 0.0
    while True:
        nodes, gpus = joined()
        if nodes >= wanted.nodes and gpus >= wanted.gpus:
            print(f"frontload: {nodes} nodes with {gpus} GPUs have joined", file=sys.stderr)
            return
        now = time.monotonic()
        missing = f"{nodes} of {wanted.nodes} nodes, {gpus} of {wanted.gpus} GPUs"
        if now - started >= wanted.seconds:
            raise StageError(
                "Ray cluster",
                found=f"{missing} after {wanted.seconds:.0f} seconds",
                rule="training starts when every node of the job has joined",
                do="read the lines of the missing nodes, or raise placement.slurm.start_seconds",
            )
        if now - said >= SAID_EVERY_SECONDS:
            print(f"frontload: waiting for Ray: {missing}", file=sys.stderr, flush=True)
            said = now
        time.sleep(POLL_SECONDS)


def _connect(address: str) -> Joined:
    import ray

    ray.init(address=address, log_to_driver=False)

    def joined() -> tuple[int, int]:
        alive = [node for node in ray.nodes() if node["Alive"]]
        return len(alive), round(sum(node["Resources"].get("GPU", 0.0) for node in alive))

    return joined


if __name__ == "__main__":
    sys.exit(main())
