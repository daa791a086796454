"""One RL run on this machine: veRL's trainer, its log as ours, and the checkpoint it leaves."""

import importlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from frontload.megatron_ext import convert
from frontload.megatron_ext.checkpoint_table import read_object
from frontload.megatron_ext.convert_files import WHOLE
from frontload.megatron_ext.convert_names import our_name
from frontload.recipes.artifact import Inputs, Workspace, write_json
from frontload.recipes.errors import StageError
from frontload.recipes.rl_schema import GrpoRecipe
from frontload.rl.inputs import prepare
from frontload.rl.local_run import local_settings, step_log
from frontload.rl.metrics import step_metrics
from frontload.rl.processes import check_end, ray_folder, running_trainer
from frontload.rl.settings import RunFiles

POLL_SECONDS = 0.1
METRICS = "metrics.jsonl"  # of the workspace, see recipes/artifact.py
TRACKER = "latest_checkpointed_iteration.txt"  # verl trainer_base.py:1039


def train(recipe: GrpoRecipe, inputs: Inputs, work: Workspace) -> None:
    """Runs or goes on with one GRPO run and publishes its last weights."""
    files = prepare(recipe, inputs, work.scratch)
    done = last_step(files.checkpoints, logged=logged_step(work.path / METRICS))
    work.rewind(done or -1)  # from the beginning, step 0 is measured again
    if done < recipe.steps:
        run(recipe, files, work, done=done)
    publish(recipe, inputs, work, files=files)


def run(recipe: GrpoRecipe, files: RunFiles, work: Workspace, *, done: int) -> None:
    """Runs veRL's trainer from step `done` on and passes its log on as it grows."""
    step_log(files).unlink(missing_ok=True)
    begin = time.monotonic()
    with ray_folder(work.scratch / "ray_folder") as folder:
        settings = local_settings(recipe, work.placement, files, ray_folder=folder)
        lines = LogReader(step_log(files))
        with running_trainer(settings) as trainer:
            while True:
                has_ended = trainer.poll() is not None
                for line in lines.read():
                    report(recipe, line, work, done=done, begin=begin)
                if has_ended:
                    break
                time.sleep(POLL_SECONDS)
        check_end(trainer, "the stage's log")


def report(
    recipe: GrpoRecipe, line: Mapping[str, Any], work: Workspace, *, done: int, begin: float
) -> None:
    """Logs one line of veRL's; the validation that a resumed run repeats was logged before."""
    step = line["step"]
    if done and step <= done:
        return
    metrics = step_metrics(line["data"])
    if step <= done + 1:
        metrics["system__start_seconds"] = time.monotonic() - begin
    work.log(step, **metrics)
    reward = metrics.get("train__reward")
    work.progress(step, recipe.steps, note="" if reward is None else f"reward {reward:.3f}")


@dataclass
class LogReader:
    """Whole new lines of a file that another process appends to."""

    path: Path
    offset: int = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """The objects written since the last call."""
        if not self.path.is_file():
            return
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                yield json.loads(line)


def last_step(checkpoints: Path, *, logged: int) -> int:
    """The step to go on from; 0 = from the beginning. veRL's tracker is made to say the same.

    It is the last whole checkpoint whose step is in our log: veRL saves a step before it logs it,
    and a kill between the two would leave a gap. veRL keeps the checkpoint before, too.
    """
    tracker = checkpoints / TRACKER
    text = tracker.read_text() if tracker.is_file() else "0"
    # The tracker is written last: if a kill tore it, what it was about to name is whole.
    newest = int(text) if text.isdigit() else sys.maxsize
    steps = [int(path.parent.name.rpartition("_")[2]) for path in checkpoints.glob("*/data.pt")]
    found = max((step for step in steps if step <= min(newest, logged)), default=0)
    if found:
        tracker.write_text(str(found))
    else:
        tracker.unlink(missing_ok=True)
    return found


def logged_step(metrics: Path) -> int:
    """The last step that our log holds whole."""
    lines = metrics.read_text().splitlines(keepends=True) if metrics.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def publish(recipe: GrpoRecipe, inputs: Inputs, work: Workspace, *, files: RunFiles) -> None:
    """Turns veRL's own float32 checkpoint into the artifact that evaluation loads.

    Raises: StageError if veRL left no checkpoint of the last step.
    """
    step = last_step(files.checkpoints, logged=recipe.steps)
    if step != recipe.steps:
        raise StageError(
            "veRL's last checkpoint",
            found=f"of step {step}",
            rule=f"the run has {recipe.steps} steps",
            do="read the stage's log and run again",
        )
    last = work.scratch / "last"
    shutil.rmtree(last, ignore_errors=True)
    shutil.copytree(files.model, last, ignore=shutil.ignore_patterns("*safetensors*"))
    save_file(actor_weights(files.checkpoints, step), last / WHOLE, {"format": "pt"})
    convert.import_into(last, work.path, model=recipe.model)
    write_json(
        work.path / "training_state.json",
        {
            "key": work.key,
            "samples": step * recipe.batch_prompts * recipe.grpo.rollouts_per_prompt,
            "steps_of_stage": step,
            "learning_rate": recipe.optimizer.learning_rate,
            "has_optimizer": False,
        },
    )


def actor_weights(checkpoints: Path, step: int) -> dict[str, torch.Tensor]:
    """The actor's float32 tensors by our names, from the checkpoint of one rank."""
    folder = checkpoints / f"global_step_{step}" / "actor"
    importlib.import_module("torch.distributed.tensor")  # lets the reader know DTensor
    asked = f"veRL's checkpoint of step {step}"
    state = read_object(folder / "model_world_size_1_rank_0.pt", asked=asked)
    found = {}
    for name, tensor in state.items():
        local = getattr(tensor, "_local_tensor", tensor)  # a DTensor of one rank
        assert (local.dtype, local.shape) == (torch.float32, tensor.shape), name
        found[our_name(name)] = local.detach().clone()
    return found
