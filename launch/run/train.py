"""`frontload train`: one run of a training recipe, alone or as a rank that torchrun started.

The folder --out holds what folder.py says, and
logs/rank-NNNNN.jsonl      each rank's own pace; telemetry.jsonl beside them, tensorboard/
logs/hangs.jsonl           ranks that stood still and were ended, with the stacks of the others
"""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from frontload.launch.jobs import die_with_parent, load_function
from frontload.launch.ranks.beats import FOLDER, HANGS, Beats, start_beats
from frontload.launch.ranks.rank_run import ended, heard_signals, told_failures
from frontload.launch.ranks.seat import take_seat
from frontload.launch.run import listeners
from frontload.launch.run.folder import ERROR, RunFolder
from frontload.launch.run.inputs import Given, Inputs, check_inputs, digest_input
from frontload.launch.store import check_given
from frontload.launch.workspace import FolderWorkspace
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.load import load_placement, load_training, only_stages, split_overrides
from frontload.recipes.runs.training import PretrainRecipe, SftRecipe
from frontload.recipes.stage import canonical, revision_of

FUNCTIONS = {
    "pretrain": "frontload.megatron_ext.stages:pretrain",
    "sft": "frontload.megatron_ext.stages:sft",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One start of a run, as one rank sees it."""

    folder: RunFolder
    kind: str  # pretrain or sft
    recipe: PretrainRecipe | SftRecipe
    placement: Placement
    inputs: Inputs
    stop: list[str]  # the signal that asked this process to end, once one did
    beats: Beats | None  # for the agent that started this rank
    say_every_seconds: float


def train(options: argparse.Namespace) -> int:
    """Trains what is missing of the run, and says how it goes."""
    recipe_overrides, placement_overrides = split_overrides(options.overrides)
    loaded = only_stages(load_training(options.recipe, recipe_overrides), options.recipe)
    seat = take_seat(os.environ)
    if seat.world > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    beats = start_beats(
        os.environ.get(FOLDER, ""),
        seat,
        upkeep=loaded.value.upkeep,
        log=options.out / "logs" / HANGS,
    )
    asked = load_placement(options.placement, placement_overrides).value
    placement = replace(seat.place(asked), upkeep=loaded.value.upkeep)
    given = Given(
        blends=options.blend,
        indexes=options.index,
        pack=options.pack,
        start=options.start,
        until=options.until,
    )
    name = Path(options.recipe).stem
    run = Run(
        folder=RunFolder(command="train", name=name, out=options.out, seat=seat),
        kind="sft" if isinstance(loaded.value, SftRecipe) else "pretrain",
        recipe=loaded.value,
        placement=placement,
        inputs=check_inputs(loaded.value, given),
        stop=[],
        beats=beats,
        say_every_seconds=options.say_every,
    )
    failure = run.folder.out / ERROR
    with ended(beats), heard_signals(run.stop), told_failures(failure, seat), run.folder.held():
        if seat.is_leader:
            if given.start is not None:
                check_given(given.start)
            run.folder.open(_identity(run), placement)
        _make_stages(run)
    return 0


def _identity(run: Run) -> dict[str, Any]:
    """Stage -> its recipe and the digests of its inputs; in JSON's own types."""
    found: dict[str, Any] = {}
    stages = run.recipe.stages()
    for name, inputs in run.inputs.stages.items():
        digests = {role: digest_input(role, folder) for role, folder in inputs.items()}
        if not found and run.inputs.start is not None:
            digests["start"] = digest_input("start", run.inputs.start)
        found[name] = {
            "kind": run.kind,
            "revision": revision_of(run.kind, stages[name]),
            "recipe": canonical(stages[name]),
            "inputs": digests,
        }
    return json.loads(json.dumps(found))


# ---------------------------------------------------------------- the stages


def _make_stages(run: Run) -> None:
    """Makes the stages one after the other; each goes on from the one before."""
    stages, start, folder = run.recipe.stages(), run.inputs.start, run.folder
    published = {name for name in run.inputs.stages if folder.has(name)}
    for name, inputs in run.inputs.stages.items():
        if name in published:
            folder.say(f"stage {name} is there")
            folder.forget(name)
        else:
            roles = dict(inputs) if start is None else {**inputs, "start": start}
            _make(run, name, stages[name], roles)
            folder.publish(name, stop_asked=lambda: bool(run.stop))
        start = folder.out / name
    folder.finish()


def _make(run: Run, name: str, stage: Any, inputs: Mapping[str, Path]) -> None:
    num_steps = stage.num_samples // stage.training.global_batch_sequences
    folder, rank = run.folder, run.folder.seat.rank
    work = FolderWorkspace(
        folder.work(name),
        telemetry=folder.out / "logs" / "telemetry.jsonl",
        placement=run.placement,
        key=f"{folder.name}/{name}",
        report=lambda *_: None,
        rank=rank,
    )
    work.stop = lambda: bool(run.stop)
    work.beats = run.beats
    work.rank_log = folder.out / "logs" / f"rank-{rank:05d}.jsonl"
    if folder.seat.is_leader:
        work.listeners.extend(_listeners(run, name, num_steps))
        tokens = stage.num_samples * stage.training.sequence_tokens
        folder.say(f"stage {name}: {num_steps} steps, {tokens:,} tokens, {folder.seat.world} ranks")
    try:
        load_function(FUNCTIONS[run.kind])(stage, inputs, work)
    finally:
        work.close()


def _listeners(run: Run, name: str, num_steps: int) -> list[listeners.Listener]:
    every, upkeep = run.say_every_seconds, run.recipe.upkeep
    label, out = f"{run.folder.name}/{name}", run.folder.out
    found: list[listeners.Listener] = [
        listeners.Teller(label, num_steps=num_steps, every_seconds=every)
    ]
    if upkeep.tensorboard:
        scratch = run.folder.work(name) / "scratch"
        last = max((int(path.name[5:]) for path in scratch.glob("step-*[0-9]")), default=0)
        folder = out / "tensorboard" / name
        found.append(listeners.tensorboard_listener(folder, first_step=last + 1))
    if upkeep.wandb_project:
        config = {"recipe": canonical(run.recipe.stages()[name]), "layout": asdict(run.placement)}
        found.append(
            listeners.wandb_listener(
                upkeep.wandb_project,
                run=f"{out.name}-{name}",
                folder=out / "wandb",
                config=config,
            )
        )
    return found
