"""One RL run on this machine: veRL's trainer, its log as ours, and the checkpoint it leaves."""

import importlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from frontload.megatron_ext.checkpoints.table import read_object
from frontload.megatron_ext.hf import convert
from frontload.megatron_ext.hf.names import our_name
from frontload.megatron_ext.hf.safetensors import WHOLE
from frontload.recipes.artifact import Inputs, Workspace, write_json
from frontload.recipes.errors import StageError
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.plugins.validation import answers_file
from frontload.rl.trainer.inputs import prepare
from frontload.rl.trainer.local_run import answers_folder, local_settings, step_log
from frontload.rl.trainer.processes import check_end, ray_folder, running_trainer
from frontload.rl.trainer.settings import RunFiles, going_on
from frontload.rl.watch.checkpoints import keep_newest, last_step
from frontload.rl.watch.first_steps import FirstSteps
from frontload.rl.watch.log_reader import LogReader
from frontload.rl.watch.metrics import step_metrics
from frontload.rl.watch.step_watch import StepWatch

POLL_SECONDS = 0.1
METRICS = "metrics.jsonl"  # of the workspace, see recipes/artifact.py
ANSWERS = "validation.jsonl"


def train(recipe: GrpoRecipe, inputs: Inputs, work: Workspace) -> None:
    """Runs or goes on with one GRPO run and publishes its last weights."""
    files = prepare(recipe, inputs, work.scratch)
    done = last_step(files.checkpoints, logged=logged_step(work.path / METRICS))
    keep_newest(files.checkpoints, work.placement.rl.checkpoints_kept, and_later=True)
    work.rewind(done or -1)  # from the beginning, step 0 is measured again
    if done < recipe.steps:
        run(recipe, files, work, done=done)
    publish(recipe, inputs, work, files=files)


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
    ends = [answers_file(answers_folder(files), number).read_bytes() for number in (0, step)]
    (work.path / ANSWERS).write_bytes(b"".join(ends))
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
