"""One run of training on a real Slurm that meets drawn faults, against one that meets none.

    make soak SLURM=1                     12 faults
    make soak SLURM=1 ROUNDS=40 SEED=7

Each round draws a fault, a node and a number of steps to wait; the run must come back from it, by
itself or by a second `frontload launch`, and end with the bytes of the undisturbed run. A fault
that asks for a stop must leave a checkpoint of the step that was being made.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.slurm.cluster import NODES, SlurmCluster
from tests.slurm.packages import UnavailableError, unpack
from tests.slurm.training import (
    AGENT,
    END_SECONDS,
    RANK,
    START_SECONDS,
    TrainingRun,
    send,
    write_run,
)

STEPS = {"first": 2_000, "second": 100}
SAVE_EVERY = 20
MOST_STEPS_BEFORE = 40
HANG_SECONDS = 5.0
URGENT = "#!/bin/bash\n#SBATCH -p high -N2 --exclusive --mem=0 -o /dev/null\nsleep 1\n"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens in one round."""

    kind: str
    node: str
    steps: int  # that the start has trained before


def draw(rng: random.Random) -> Fault:
    """A fault of any kind, on any node, at any moment."""
    return Fault(
        kind=rng.choice(tuple(KINDS)),
        node=rng.choice(tuple(NODES)),
        steps=rng.randrange(MOST_STEPS_BEFORE),
    )


# ---------------------------------------------------------------- what each kind does


def _warn(run: TrainingRun, job: str, _node: str) -> None:
    run.cluster.command("scancel", "--batch", "--signal=USR1", job)


def _preempt(run: TrainingRun, _job: str, _node: str) -> None:
    run.cluster.command("sbatch", "--parsable", stdin=URGENT)


def _cancel(run: TrainingRun, job: str, _node: str) -> None:
    run.cluster.command("scancel", job)
    run.cluster.wait_for(job, ("CANCELLED",), seconds=END_SECONDS, log=run.log_file(job))
    run.launch()


def _signal(what: str, number: signal.Signals) -> Callable[[TrainingRun, str, str], None]:
    def strike(run: TrainingRun, _job: str, node: str) -> None:
        send(run.cluster, node, what, number)

    return strike


def _lose_node(run: TrainingRun, job: str, node: str) -> None:
    run.cluster.kill_node(node)
    about = f"job {job} runs on without {node}"
    run.cluster.wait_until(lambda: run.cluster.job(job) == "PENDING", START_SECONDS, about=about)
    run.cluster.start_node(node)


def _lose_controller(run: TrainingRun, job: str, _node: str) -> None:
    run.cluster.kill_controller()
    time.sleep(2.0)
    run.cluster.start_controller()
    _warn(run, job, "")


KINDS: dict[str, Callable[[TrainingRun, str, str], None]] = {
    "the warning before the limit": _warn,
    "a job of a higher partition": _preempt,
    "scancel, and launch again": _cancel,
    "SIGTERM to an agent": _signal(AGENT, signal.SIGTERM),
    "SIGUSR1 to an agent": _signal(AGENT, signal.SIGUSR1),
    "SIGTERM to a rank": _signal(RANK, signal.SIGTERM),
    "SIGKILL to an agent": _signal(AGENT, signal.SIGKILL),
    "SIGKILL to a rank": _signal(RANK, signal.SIGKILL),
    "SIGSTOP to a rank": _signal(RANK, signal.SIGSTOP),
    "the loss of a node": _lose_node,
    "the loss of the controller, then the warning": _lose_controller,
}
"""Every kind is followed by another start of the ranks."""

LOSE_STEPS = ("SIGKILL to an agent", "SIGKILL to a rank", "SIGSTOP to a rank", "the loss of a node")
"""Kinds after which the ranks go on from a checkpoint before; all others save first."""


def meet(run: TrainingRun, fault: Fault) -> str:
    """Lets the newest start train, strikes, and waits for the next; what is wrong, or nothing."""
    start, job = run.starts() - 1, run.jobs()[-1]
    run.wait_training(job, start=start, steps=fault.steps)
    KINDS[fault.kind](run, job, fault.node)
    run.wait_start(run.jobs()[-1], start + 1)
    if fault.kind in LOSE_STEPS:
        return ""
    return "" if run.is_saved(job) else "the newest checkpoint is not of the step of the stop"


def soak(cluster: SlurmCluster, folder: Path, *, rounds: int, seed: int) -> int:
    """Runs it; the number of rounds that went wrong, and 1 for other bytes at the end."""
    alone, run = (
        write_run(cluster, made, steps=STEPS, every=every, hang_seconds=HANG_SECONDS)
        for made, every in ((folder / "alone", 100_000), (folder / "run", SAVE_EVERY))
    )
    _finish(alone, alone.launch()[-1])
    rng, wrong = random.Random(seed), 0
    run.wait_start(run.launch()[-1], 0)
    for number in range(1, rounds + 1):
        fault, began = draw(rng), time.monotonic()
        problem = meet(run, fault)
        wrong += bool(problem)
        seconds = time.monotonic() - began
        where = f"{fault.kind} ({fault.node}, after {fault.steps} steps)"
        print(f"{number:3} {where}: {problem or 'back'} in {seconds:.0f} s", flush=True)
    _finish(run, run.jobs()[-1])
    is_same = run.results() == alone.results()
    print(f"{run.starts()} starts; bytes {'the same' if is_same else 'DIFFER'}")
    return wrong + (not is_same)


def _finish(run: TrainingRun, job: str) -> None:
    seconds = START_SECONDS + 2 * END_SECONDS
    run.cluster.wait_for(job, ("COMPLETED",), seconds=seconds, log=run.log_file(job))


def main() -> int:
    """0 if every round came back and the bytes are the same."""
    parser = argparse.ArgumentParser(prog="slurm_faults", allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="frontload-soak-") as folder:
        try:
            cluster = SlurmCluster(software=unpack(), folder=Path(folder) / "slurm")
            cluster.start()
        except UnavailableError as error:
            print(f"no real Slurm: {error}", file=sys.stderr)
            return 2
        try:
            return int(soak(cluster, Path(folder), rounds=options.rounds, seed=options.seed) > 0)
        finally:
            cluster.stop()


if __name__ == "__main__":
    sys.exit(main())
