"""`frontload rl`: one run of a GRPO recipe on this machine's CPU, as a folder that it goes on in.

The folder --out holds what folder.py says; its one stage is `grpo`. Clock-bound metrics are in
logs/telemetry.jsonl, veRL's own lines on the terminal.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frontload.launch.convert import find_checkpoint, find_tokenizer
from frontload.launch.jobs import load_function
from frontload.launch.ranks.seat import Seat
from frontload.launch.run.folder import RunFolder
from frontload.launch.store import Store
from frontload.launch.workspace import FolderWorkspace
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.runs.load import load_placement, load_training, split_overrides, with_place
from frontload.recipes.stage import canonical, revision_of
from frontload.rl.trainer.guards import check_parts

STAGE = "grpo"
FUNCTION = "frontload.rl.stages:grpo"
NAMING_FILES = ("weights/.metadata", "model.safetensors.index.json", "model.safetensors")
"""The small file of a model folder that names its bytes, or the file itself."""


def reinforce(options: argparse.Namespace) -> int:
    """Trains what is missing of the run, and says how it goes."""
    mine, placements = split_overrides(options.overrides)
    recipe = _only_grpo(load_training(options.recipe, mine), options.recipe)
    placement = load_placement(options.placement, placements)
    check_here(options.recipe, recipe, placement)
    inputs = find_inputs(options)
    identity = _identity(recipe.value, inputs)
    name = Path(options.recipe).stem
    folder = RunFolder(command="rl", name=name, out=options.out, seat=Seat())
    with folder.held():
        folder.open(identity, placement.value)
        if folder.has(STAGE):
            folder.say(f"stage {STAGE} is there")
            folder.forget(STAGE)
        else:
            _make(folder, recipe.value, inputs, placement.value, say_every=options.say_every)
            folder.publish(STAGE)
        folder.finish()
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


def _identity(recipe: GrpoRecipe, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """The stage, its recipe and the digests of its inputs; in JSON's own types."""
    digests = {role: _digest(path) for role, path in inputs.items()}
    found = {
        "kind": STAGE,
        "revision": revision_of(STAGE, recipe),
        "recipe": canonical(recipe),
        "inputs": digests,
    }
    return json.loads(json.dumps({STAGE: found}))


def _digest(path: Path) -> str:
    """What tells one input from another: the sha256 of a file, or of what names a folder's."""
    names = (*NAMING_FILES, "tokenizer.json")
    named = [path] if path.is_file() else [path / name for name in names]
    for file in named:
        if file.is_file():
            with open(file, "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
    raise RecipeError(
        f"rl: {path}",
        found="none of " + ", ".join(names),
        rule="a model is a checkpoint or a Hugging Face folder",
        do="correct the path",
    )


@dataclass
class _Teller:
    """Prints the stage's progress now and then, and its end."""

    folder: RunFolder
    every_seconds: float
    said_at: float = field(default=float("-inf"))

    def __call__(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if done == total or now - self.said_at >= self.every_seconds:
            self.said_at = now
            self.folder.say(f"step {done} of {total}" + (f", {note}" if note else ""))


def _make(
    folder: RunFolder,
    recipe: GrpoRecipe,
    inputs: Mapping[str, Path],
    placement: Placement,
    *,
    say_every: float,
) -> None:
    responses = recipe.batch_prompts * recipe.grpo.rollouts_per_prompt
    folder.say(f"stage {STAGE}: {recipe.steps} steps of {responses} responses; veRL starts")
    work = FolderWorkspace(
        folder.work(STAGE),
        telemetry=folder.out / "logs" / "telemetry.jsonl",
        placement=placement,
        key=f"{folder.name}/{STAGE}",
        report=_Teller(folder, say_every),
    )
    try:
        load_function(FUNCTION)(recipe, inputs, work)
    finally:
        work.close()
