"""A stage on several ranks of this machine: the torchrun command, and what each rank runs.

The pickles here are read back by the run that wrote them: its job by its ranks, their errors by it.
"""

import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from frontload.launch.ranks.beats import FOLDER, start_beats
from frontload.launch.ranks.hangs import watch_ranks
from frontload.launch.ranks.rank_run import ended
from frontload.launch.ranks.seat import take_seat
from frontload.launch.stage.as_rank import Rank, run_function
from frontload.launch.stage.jobs import Job, die_with_parent
from frontload.recipes.errors import FrontloadError, RecipeError, StageError, Stopped

JOB_FILE = "job.pickle"
RANK_ERROR = "error-{rank}.pickle"
INTERRUPTED = 130
HEAD_NODE = "--head-node="  # of ours: the Slurm node that hosts the rendezvous
ENDPOINT, SETTINGS = "--rdzv-endpoint=", "--rdzv-conf="
SIGNALS = "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1"


def torchrun_command(job: Job, job_file: Path) -> list[str]:
    """The command that starts every rank of a job on this machine.

    Raises: RecipeError if the placement spans nodes.
    """
    placement = job.placement
    if placement.num_nodes != 1:
        raise RecipeError(
            f"placement.num_nodes {placement.num_nodes}",
            found="more than one node",
            rule="`frontload run` starts ranks on this machine only",
            do="write 1",
        )
    return [
        "torchrun",
        "--standalone",
        f"--nproc-per-node={placement.ranks_per_node}",
        "--module",
        "frontload.launch.torchrun",
        str(job_file),
    ]


def run_on_ranks(job: Job, scratch: Path) -> None:
    """Runs the stage function on every rank; all fail together.

    Raises: what the lowest rank raised that can be told to a person, else StageError.
    """
    job_file = scratch.parent / JOB_FILE
    job_file.write_bytes(pickle.dumps(job))
    errors = [
        job_file.with_name(RANK_ERROR.format(rank=rank)) for rank in range(job.placement.world_size)
    ]
    for path in errors:
        path.unlink(missing_ok=True)
    count = str(job.placement.threads_per_rank)
    environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    command = torchrun_command(job, job_file)
    agent = [sys.executable, "-m", "frontload.launch.torchrun", *command]
    done = subprocess.run(agent, env=environment, check=False)
    if done.returncode:
        for path in errors:
            if path.is_file():
                raise pickle.loads(path.read_bytes())
        log = job.store.telemetry_file(job.ticket, "log")
        raise StageError(
            f"stage {job.ticket.folder} on {job.placement.world_size} ranks",
            found=f"torchrun ended with status {done.returncode}",
            rule="every rank ends without an error",
            do=f"read {log}, mend the cause and run again",
        )


def run_agent(command: list[str]) -> int:
    """Runs torchrun in this process, which ends with the process that started it.

    SIGTERM and SIGUSR1 are passed on to the ranks, which have --shutdown-timeout to save
    themselves. A rank that stands still is killed, so that torchrun starts all of them again.
    Returns 0, or the code of `Stopped` after such a signal.
    """
    die_with_parent()
    # An agent that was there before keeps the address of the ranks' store to itself
    # (torch 2.13 dynamic_rendezvous.py, next_rendezvous), so a restarted agent would wait for ever.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    from torch.distributed.elastic.multiprocessing import SignalException

    sys.argv = agent_options(command, node=os.environ.get("SLURMD_NODENAME", ""))
    memory = Path("/dev/shm")
    try:
        with tempfile.TemporaryDirectory(
            prefix="frontload-beats-", dir=memory if memory.is_dir() else None
        ) as folder:
            os.environ[FOLDER] = folder
            threading.Thread(target=watch_ranks, args=(Path(folder),), daemon=True).start()
            runpy.run_module("torch.distributed.run", run_name="__main__")
    except SignalException as asked:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)  # it is ending: Slurm may send more than one
        print(f"frontload: the ranks were asked to stop ({asked.sigval.name})", file=sys.stderr)
        return INTERRUPTED if asked.sigval is signal.SIGINT else Stopped.exit_code
    return 0


def agent_options(command: Sequence[str], *, node: str) -> list[str]:
    """The command with torchrun's options that every agent has, and those of this node.

    With HEAD_NODE this node hosts the rendezvous if it has that name, and says at which address it
    is reached. Left to itself torch compares the endpoint with what a host calls itself, and takes
    that for its address: neither need be so under Slurm.
    """
    words = [command[0], SIGNALS, *(word for word in command[1:] if not word.startswith(HEAD_NODE))]
    head = [word.removeprefix(HEAD_NODE) for word in command if word.startswith(HEAD_NODE)]
    if not head:
        return words
    endpoint = next(word for word in words if word.startswith(ENDPOINT)).removeprefix(ENDPOINT)
    is_host = f"is_host={int(node == head[0])}"
    words = [f"{word},{is_host}" if word.startswith(SETTINGS) else word for word in words]
    return [words[0], f"--local-addr={address_towards(endpoint)}", *words[1:]]


def address_towards(endpoint: str) -> str:
    """The address of this machine that HOST:PORT answers to; sends nothing.

    Raises: StageError if HOST is not known here.
    """
    host, _, port = endpoint.rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as towards:
            towards.connect(address)
            return str(towards.getsockname()[0])
    except OSError as error:
        raise StageError(
            f"rendezvous at {endpoint}",
            found=f"{socket.gethostname()} finds no way there ({error.strerror})",
            rule="every node of a job reaches its first node by the address that Slurm has for it",
            do="give the node a NodeAddr in slurm.conf, or a name that all nodes resolve",
        ) from error


def run_rank(job_file: Path) -> None:
    """What one rank runs: the stage function on the shared workspace, without publishing."""
    die_with_parent()
    job: Job = pickle.loads(job_file.read_bytes())
    seat, folder = take_seat(os.environ), os.environ.get(FOLDER, "")
    beats = start_beats(folder, seat, upkeep=job.placement.upkeep, log=None)
    try:
        with ended(beats):
            run_function(job, Rank(seat=seat, stop=[], beats=beats, logs=None))
    except FrontloadError as error:
        aside = job_file.with_name(f"{RANK_ERROR.format(rank=seat.rank)}.tmp")
        aside.write_bytes(pickle.dumps(error))
        aside.replace(aside.with_suffix(""))
        raise


if __name__ == "__main__":
    if sys.argv[1] == "torchrun":
        try:
            sys.exit(run_agent(sys.argv[1:]))
        except FrontloadError as error:
            print(f"frontload: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
    else:
        run_rank(Path(sys.argv[1]))
