"""A run of two tiny phases on two nodes: its recipe, data, placement and undisturbed twin."""

import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from frontload.launch import cli
from tests.slurm.cluster import PORTS_EACH, ROOT, SlurmCluster
from tests.tiny_run import artifact_bytes, write_tiny_data

START_SECONDS = 150.0  # for Slurm and the ranks to begin, on a busy machine
END_SECONDS = 150.0  # for a run to finish, or to stop
STOPPED = re.compile(r"was asked to stop at step (\d+)")
PHASES = ("first", "second")
AGENT, RANK = "frontload.launch.torchrun torchrun", "-m frontload.launch.cli train"
"""Words of their command lines."""

STEPS = {"first": 640, "second": 60}
RECIPE = """
extends: pretrain_tiny
phases:
  - {{name: first, tokens: {first}, sources: {{base: 1.0}}}}
  - {{name: second, tokens: {second}, sources: {{base: 0.5, ldq: 0.5}}}}
upkeep: {{checkpoint_every_steps: {every}, asynchronous: false, hang_seconds: {hang_seconds}}}
"""
TOKENS_PER_STEP = 128
TOKENS_PER_DOCUMENT = 20  # or more, on average

PLACEMENT = """
name: two_nodes
num_nodes: {nodes}
ranks_per_node: 1
checkpoint_every_seconds: 3600.0
slurm:
  shared_folder: {shared}
  activate: export PATH={bin}:$PATH PYTHONPATH={imports} PYTHONDONTWRITEBYTECODE=1
  time_limit: "00:10:00"
  stop_seconds: 30
  requeue_seconds: 300
  first_port: {port}
  num_ports: {ports}
"""


def write_placement(folder: Path, cluster: SlurmCluster, *, nodes: int = 2, more: str = "") -> Path:
    """A placement without GPUs on the nodes of the cluster; `more` are lines of `slurm`."""
    path = folder / f"placement-{nodes}.yaml"
    text = PLACEMENT.format(
        nodes=nodes,
        shared=folder / "shared",
        bin=Path(sys.executable).parent,
        imports=ROOT / ".imports",
        port=cluster.first_port,
        ports=PORTS_EACH,
    )
    path.write_text(text + more, encoding="utf-8")
    return path


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One run of the recipe under Slurm."""

    cluster: SlurmCluster
    folder: Path
    words: tuple[str, ...]  # recipe, placement and data, as `frontload launch` reads them

    @property
    def out(self) -> Path:
        return self.folder / "run"

    def launch(self, *more: str) -> list[str]:
        """Submits it; the numbers of its jobs."""
        with pytest.MonkeyPatch.context() as patch:
            for name, text in self.cluster.environment().items():
                patch.setenv(name, text)
            said = self.folder / "said"
            with said.open("w", encoding="utf-8") as file:
                patch.setattr(sys, "stdout", file)
                assert cli.main(["launch", *self.words, "--out", str(self.out), *more]) == 0
        lines = said.read_text(encoding="utf-8").splitlines()
        return [line.split()[1] for line in lines if line.startswith("job ")]

    def jobs(self) -> list[str]:
        """The jobs that have begun, in order."""
        return sorted(path.stem for path in self.out.glob("logs/*.out"))

    def log_file(self, number: str) -> Path:
        """Where a job says what it does."""
        return self.out / "logs" / f"{number}.out"

    def log(self, number: str) -> str:
        """What a job has said so far."""
        path = self.log_file(number)
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def starts(self) -> int:
        """How often its ranks have begun."""
        return len(list(self.out.glob("starts/*.json")))

    def step(self, start: int) -> int:
        """The newest step that start number `start` has trained, 0 before; phases count on."""
        if self.starts() <= start:
            return 0
        began = (self.out / "starts" / f"{start:04d}.json").stat().st_mtime
        path = self.out / "logs" / "rank-00000.jsonl"
        if not path.is_file() or path.stat().st_mtime < began:
            return 0
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return int(lines[-1]["step"]) if lines else 0

    def wait_training(self, number: str, *, start: int, steps: int = 1) -> None:
        """Returns when start number `start` has trained so many steps."""
        first = 0

        def has_trained() -> bool:
            nonlocal first
            step = self.step(start)
            first = first or step
            return step > 0 and step >= first + steps - 1

        about = f"start {start} of job {number} does not train"
        self.cluster.wait_until(has_trained, START_SECONDS, about=about)

    def wait_start(self, number: str, start: int) -> None:
        """Returns when start number `start` has begun."""
        about = f"job {number} is not back"
        self.cluster.wait_until(lambda: self.starts() > start, START_SECONDS, about=about)

    def is_saved(self, number: str) -> bool:
        """Whether the newest checkpoint is of the step at which the ranks of a job stopped last."""
        steps = STOPPED.findall(self.log(number))
        return bool(steps) and self.saved()[-1:] == [int(steps[-1])]

    def saved(self) -> list[int]:
        """Steps of the checkpoints of the phase in the making."""
        found = self.out.glob("work/*/scratch/step-*[0-9]")
        return sorted(int(path.name.removeprefix("step-")) for path in found)

    def results(self) -> dict[str, Mapping[str, bytes]]:
        """Phase -> the bytes of its artifact."""
        return {name: artifact_bytes(self.out / name) for name in PHASES}


def write_run(
    cluster: SlurmCluster,
    folder: Path,
    *,
    every: int,
    steps: Mapping[str, int] = STEPS,
    hang_seconds: float = 60.0,
) -> TrainingRun:
    """Recipe, data and placement in a folder; nothing is submitted."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "pretrain_long.yaml"
    tokens = {name: count * TOKENS_PER_STEP for name, count in steps.items()}
    text = RECIPE.format(every=every, hang_seconds=hang_seconds, **tokens)
    recipe.write_text(text, encoding="utf-8")
    documents = sum(tokens.values()) // TOKENS_PER_DOCUMENT
    data = write_tiny_data(folder / "data", recipe, num_documents=documents)
    placement = write_placement(folder, cluster)
    words = (str(recipe), "--placement", str(placement), *data.flags())
    return TrainingRun(cluster=cluster, folder=folder, words=words)


def send(cluster: SlurmCluster, node: str, what: str, number: signal.Signals) -> None:
    """Sends a signal to the agent or the rank of a node, to nothing around it."""
    pids = cluster.processes(node, what, program="python")
    assert len(pids) == 1, pids
    os.kill(pids[0], number)
