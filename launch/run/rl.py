"""`frontload rl`: one run of a GRPO recipe on this machine's CPU, as a folder that it goes on in.

The folder --out holds what folder.py says; its one stage is `grpo`. Clock-bound metrics are in
logs/telemetry.jsonl, veRL's own lines on the terminal.
"""

import argparse
from pathlib import Path
from typing import Any

from frontload.launch.convert import find_checkpoint, find_tokenizer
from frontload.launch.ranks.seat import Seat
from frontload.launch.run.folder import RunFolder
from frontload.launch.run.listeners import ProgressTeller
from frontload.launch.stage.alone import Meter, make_alone
from frontload.launch.stage.jobs import Job
from frontload.launch.stage.provenance import write_provenance
from frontload.launch.store import Store
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.runs.load import load_placement, load_training, split_overrides, with_place
from frontload.rl.trainer.guards import check_parts

STAGE = "grpo"


def reinforce(options: argparse.Namespace) -> int:
    """Trains what is missing of the run, and says how it goes."""
    mine, placements = split_overrides(options.overrides)
    recipe = _only_grpo(load_training(options.recipe, mine), options.recipe)
    placement = load_placement(options.placement, placements)
    check_here(options.recipe, recipe, placement)
    inputs = find_inputs(options)
    folder = RunFolder(options.out, command="rl", name=Path(options.recipe).stem)
    job = folder.job(
        STAGE,
        kind=STAGE,
        recipe=recipe.value,
        inputs=inputs,
        before=None,
        placement=placement.value,
    )
    with folder.opened([job], Seat()):
        if folder.find_made(job.ticket) is not None:
            folder.say(f"stage {STAGE} is there")
            folder.forget(job.ticket)
        else:
            _make(job, folder, every_seconds=options.say_every)
    return 0


def check_here(name: str, recipe: Loaded[GrpoRecipe], placement: Loaded[Placement]) -> None:
    """Refuses a recipe that this command cannot run on this machine.

    Raises: RecipeError with what it needs, or with what recipe and placement have wrong.
    """
    if recipe.value.rollout != "frontload":
        raise RecipeError(
            f"rl {name}",
            found=f"it generates with {recipe.value.rollout}, which needs GPUs",
            rule="`frontload rl` trains on the CPU of one machine, with rollout frontload",
            do=f"frontload launch {name} --placement slurm, where the GPUs are; or rl grpo_tiny",
        )
    try:
        check_parts(recipe.value, placement.value)
    except RecipeError as error:
        raise with_place(error, recipe, placement) from error


def find_inputs(options: argparse.Namespace) -> dict[str, Path]:
    """Role -> path of what the run reads.

    Raises: RecipeError for what is not there.
    """
    for flag, path in (("--prompts", options.prompts), ("--validation", options.validation)):
        if not path.is_file():
            raise RecipeError(
                f"rl {flag} {path}",
                found="no such file",
                rule="prompts are a file of parquet, or of rows as prompts.jsonl of a study",
                do="correct the path",
            )
    store = Store(options.store)
    start = find_checkpoint(store, str(options.model), command="rl --model")
    found = {"start": start, "prompts": options.prompts, "validation": options.validation}
    if (start / "config.json").is_file():
        return found
    tokenizer = options.tokenizer or find_tokenizer(store, start, command="rl --model")
    return {**found, "tokenizer": tokenizer}


def _only_grpo(loaded: Loaded[Any], name: str) -> Loaded[GrpoRecipe]:
    if not isinstance(loaded.value, GrpoRecipe):
        raise RecipeError(
            f"rl {name}",
            found="no recipe of reinforcement learning",
            rule="rl runs a recipe whose file begins with grpo",
            do=f"frontload train {name}",
        )
    return loaded


def _make(job: Job, folder: RunFolder, *, every_seconds: float) -> None:
    recipe, meter = job.recipe, Meter()
    responses = recipe.batch_prompts * recipe.grpo.rollouts_per_prompt
    folder.say(f"stage {STAGE}: {recipe.steps} steps of {responses} responses; veRL starts")
    make_alone(job, ProgressTeller(f"{folder.name}: step", every_seconds=every_seconds))
    write_provenance(folder, job.ticket, end=meter.end(), placement=job.placement, work=0.0)
