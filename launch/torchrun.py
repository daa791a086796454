"""A stage on several ranks of this machine: the torchrun command, and what each rank runs.

The pickles here are read back by the run that wrote them: its job by its ranks, their errors by it.
"""

import os
import pickle
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from frontload.launch.jobs import Job, die_with_parent, load_function
from frontload.launch.ranks.beats import FOLDER, start_beats
from frontload.launch.ranks.hangs import watch_ranks
from frontload.launch.ranks.seat import take_seat
from frontload.launch.store import Store
from frontload.launch.workspace import LiveWorkspace
from frontload.recipes.artifact import Part
from frontload.recipes.errors import FrontloadError, RecipeError, StageError, Stopped

JOB_FILE = "job.pickle"
RANK_ERROR = "error-{rank}.pickle"
INTERRUPTED = 130


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
        log = Store(job.store).telemetry_file(job.ticket, "log")
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
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGUSR1")
    # An agent that was there before keeps the address of the ranks' store to itself
    # (torch 2.13 dynamic_rendezvous.py, next_rendezvous), so a restarted agent would wait for ever.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    from torch.distributed.elastic.multiprocessing import SignalException

    sys.argv = command
    memory = Path("/dev/shm")
    try:
        with tempfile.TemporaryDirectory(
            prefix="frontload-beats-", dir=memory if memory.is_dir() else None
        ) as folder:
            os.environ[FOLDER] = folder
            threading.Thread(target=watch_ranks, args=(Path(folder),), daemon=True).start()
            runpy.run_module("torch.distributed.run", run_name="__main__")
    except SignalException as asked:
        print(f"frontload: the ranks were asked to stop ({asked.sigval.name})", file=sys.stderr)
        return INTERRUPTED if asked.sigval is signal.SIGINT else Stopped.exit_code
    return 0


def run_rank(job_file: Path) -> None:
    """What one rank runs: the stage function on the shared workspace, without publishing."""
    die_with_parent()
    job: Job = pickle.loads(job_file.read_bytes())
    seat = take_seat(os.environ)
    rank, upkeep = seat.rank, job.placement.upkeep
    beats = start_beats(os.environ.get(FOLDER, ""), seat, upkeep=upkeep, log=None)
    work = LiveWorkspace(
        Store(job.store), job.ticket, placement=job.placement, report=lambda *_: None, rank=rank
    )
    work.beats = beats
    try:
        load_function(job.function)(job.recipe, job.inputs, work)
    except FrontloadError as error:
        aside = job_file.with_name(f"{RANK_ERROR.format(rank=rank)}.tmp")
        aside.write_bytes(pickle.dumps(error))
        aside.replace(aside.with_suffix(""))
        raise
    finally:
        work.mark(Part.END)
        work.close()


if __name__ == "__main__":
    if sys.argv[1] == "torchrun":
        sys.exit(run_agent(sys.argv[1:]))
    else:
        run_rank(Path(sys.argv[1]))
