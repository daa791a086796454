"""Where a job of GRPO on a cluster keeps its files: what is rendered, watched and read afterwards.

RUN/checkpoints/global_step_N    veRL's own
RUN/validation/N.jsonl           the answers of the validation after step N
RUN/metrics-JOB-START.jsonl      the steps that one start of a job has logged
RUN/hydra                        Hydra's own files
"""

import re
from pathlib import Path

from frontload.rl.trainer.settings import RunFiles
from frontload.rl.watch.log_reader import LogReader

RUN = "run"  # of a stage's scratch folder: its job's
LOG = re.compile(r"metrics-(?P<job>\d+)-(?P<start>\d+)\.jsonl")


def run_files(run: Path, *, model: Path, train_prompts: Path, validation_prompts: Path) -> RunFiles:
    """Where a job reads, and where it writes in its folder."""
    return RunFiles(
        model=model,
        train_prompts=train_prompts,
        validation_prompts=validation_prompts,
        checkpoints=checkpoints_folder(run),
        work=run / "hydra",
        validation_responses=answers_folder(run),
    )


def checkpoints_folder(run: Path) -> Path:
    return run / "checkpoints"


def answers_folder(run: Path) -> Path:
    return run / "validation"


def read_steps(run: Path) -> dict[int, dict[str, float]]:
    """Step -> what veRL logged of it, in the order of the steps, over all starts of a run.

    A start goes on after the checkpoint that it began from: what an earlier one had logged from
    there on was made again.
    """
    found: dict[int, dict[str, float]] = {}
    for path in sorted(run.glob("*.jsonl"), key=_place):
        if LOG.fullmatch(path.name) is None:
            continue
        lines = list(LogReader(path).read())
        first = min((line["step"] for line in lines), default=None)
        if first is not None:
            found = {step: data for step, data in found.items() if step <= first}
        for line in lines:
            found[line["step"]] = found.get(line["step"], {}) | line["data"]
    return dict(sorted(found.items()))


def _place(path: Path) -> tuple[int, int]:
    match = LOG.fullmatch(path.name)
    return (int(match["job"]), int(match["start"])) if match else (0, 0)
