"""One RL run on this machine: veRL's trainer, its log as ours, and the checkpoint it leaves."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frontload.recipes.artifact import Inputs, Workspace
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.plugins.validation import answers_file
from frontload.rl.trainer.inputs import prepare
from frontload.rl.trainer.local_run import answers_folder, local_settings, step_log
from frontload.rl.trainer.processes import check_end, ray_folder, running_trainer
from frontload.rl.trainer.publish import ANSWERS, METRICS, publish_actor
from frontload.rl.trainer.settings import RunFiles, going_on
from frontload.rl.watch.checkpoints import keep_newest, last_step
from frontload.rl.watch.first_steps import FirstSteps
from frontload.rl.watch.log_reader import LogReader
from frontload.rl.watch.metrics import step_metrics
from frontload.rl.watch.step_watch import StepWatch

POLL_SECONDS = 0.1


def train(recipe: GrpoRecipe, inputs: Inputs, work: Workspace) -> None:
    """Runs or goes on with one GRPO run and publishes its last weights."""
    files = prepare(recipe, inputs, work.scratch)
    done = last_step(files.checkpoints, logged=logged_step(work.path / METRICS))
    keep_newest(files.checkpoints, work.placement.rl.checkpoints_kept, and_later=True)
    work.rewind(done or -1)  # from the beginning, step 0 is measured again
    if done < recipe.steps:
        run(recipe, files, work, done=done)
    publish_actor(recipe, work, model=files.model, checkpoints=files.checkpoints)
    folder = answers_folder(files)
    ends = [answers_file(folder, step).read_bytes() for step in (0, recipe.steps)]
    (work.path / ANSWERS).write_bytes(b"".join(ends))


def run(recipe: GrpoRecipe, files: RunFiles, work: Workspace, *, done: int) -> None:
    """Runs veRL's trainer from step `done` on and passes its log on as it grows."""
    step_log(files).unlink(missing_ok=True)
    begin, step = time.monotonic(), done
    first = FirstSteps(done=done, answers=answers_folder(files))
    with ray_folder(work.scratch / "ray_folder") as folder:
        settings = local_settings(recipe, work.placement, files, ray_folder=folder)
        if done:
            settings = going_on(settings)
        lines = LogReader(step_log(files))
        watch = StepWatch(work.placement.rl.hang_seconds, "the stage's log")
        with running_trainer(settings) as trainer:
            while True:
                has_ended = trainer.poll() is not None
                new = list(lines.read())
                for line in new:
                    step = line["step"]
                    report(recipe, line, work, done=done, begin=begin)
                    first.look(line["step"], line["data"])
                if has_ended:
                    break
                watch.look(has_moved=bool(new), step=step)
                time.sleep(POLL_SECONDS)
        check_end(trainer, "the stage's log")


def report(
    recipe: GrpoRecipe, line: Mapping[str, Any], work: Workspace, *, done: int, begin: float
) -> None:
    """Logs one line of veRL's."""
    step = line["step"]
    metrics = step_metrics(line["data"])
    if step <= done + 1:
        metrics["system__start_seconds"] = time.monotonic() - begin
    work.log(step, **metrics)
    reward = metrics.get("train__reward")
    work.progress(step, recipe.steps, note="" if reward is None else f"reward {reward:.3f}")


def logged_step(metrics: Path) -> int:
    """The last step that our log holds whole."""
    lines = metrics.read_text().splitlines(keepends=True) if metrics.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)
