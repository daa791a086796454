"""`frontload train`: one run of a training recipe, alone or as a rank that torchrun started.

The folder --out holds what folder.py says, and
logs/rank-NNNNN.jsonl      each rank's own pace; telemetry.jsonl beside them, tensorboard/
logs/hangs.jsonl           ranks that stood still and were ended, with the stacks of the others
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from frontload.launch.run import listeners
from frontload.launch.run.folder import RunFolder
from frontload.launch.run.inputs import Given, Roles, check_inputs
from frontload.launch.stage.as_rank import Rank, as_rank, make_as_rank
from frontload.launch.stage.jobs import Job
from frontload.launch.stage.workspace import Listener
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.upkeep import Upkeep
from frontload.recipes.runs.load import load_placement, load_training, only_stages, split_overrides
from frontload.recipes.runs.training import PretrainRecipe, SftRecipe
from frontload.recipes.stage import canonical


def train(options: argparse.Namespace) -> int:
    """Trains what is missing of the run, and says how it goes."""
    mine, placements = split_overrides(options.overrides)
    recipe = only_stages(load_training(options.recipe, mine), options.recipe).value
    asked = load_placement(options.placement, placements).value
    given = Given(
        blends=options.blend,
        indexes=options.index,
        pack=options.pack,
        start=options.start,
        until=options.until,
    )
    inputs = check_inputs(recipe, given)
    folder = RunFolder(options.out, command="train", name=Path(options.recipe).stem)
    with as_rank(options.out, recipe.upkeep) as rank:
        placement = replace(rank.seat.place(asked), upkeep=recipe.upkeep)
        jobs = stage_jobs(recipe, inputs, folder=folder, placement=placement)
        with folder.opened(jobs, rank.seat):
            for job in jobs:
                _make(job, rank, folder=folder, every_seconds=options.say_every)
    return 0


def stage_jobs(
    recipe: PretrainRecipe | SftRecipe,
    inputs: dict[str, Roles],
    *,
    folder: RunFolder,
    placement: Placement,
) -> list[Job]:
    """The stages of the run, each behind the one before."""
    stages = recipe.stages()
    jobs: list[Job] = []
    for name, roles in inputs.items():
        job = folder.job(
            name,
            kind="sft" if isinstance(recipe, SftRecipe) else "pretrain",
            recipe=stages[name],
            inputs=roles,
            before=jobs[-1] if jobs else None,
            placement=placement,
        )
        jobs.append(job)
    return jobs


def _make(job: Job, rank: Rank, *, folder: RunFolder, every_seconds: float) -> None:
    if not rank.seat.is_leader:
        make_as_rank(job, rank)
        return
    name, stage = job.ticket.label, job.recipe
    if folder.find_made(job.ticket) is not None:
        folder.say(f"stage {name} is there")
        folder.forget(job.ticket)
        return
    tokens = stage.num_samples * stage.training.sequence_tokens
    num_steps = stage.num_samples // stage.training.global_batch_sequences
    folder.say(f"stage {name}: {num_steps} steps, {tokens:,} tokens, {rank.seat.world} ranks")
    teller = listeners.Teller(
        f"{folder.name}/{name}", num_steps=num_steps, every_seconds=every_seconds
    )
    others = _listeners(job, folder, job.placement.upkeep)
    make_as_rank(job, rank, listeners=[teller, *others])


def _listeners(job: Job, folder: RunFolder, upkeep: Upkeep) -> list[Listener]:
    """TensorBoard and Weights & Biases, where the recipe asks for them."""
    found: list[Listener] = []
    name, out = job.ticket.label, folder.root
    if upkeep.tensorboard:
        scratch = folder.workspace(job.ticket) / "scratch"
        last = max((int(path.name[5:]) for path in scratch.glob("step-*[0-9]")), default=0)
        curves = out / "tensorboard" / name
        found.append(listeners.tensorboard_listener(curves, first_step=last + 1))
    if upkeep.wandb_project:
        config = {"recipe": canonical(job.recipe), "layout": asdict(job.placement)}
        found.append(
            listeners.wandb_listener(
                upkeep.wandb_project, run=f"{out.name}-{name}", folder=out / "wandb", config=config
            )
        )
    return found
