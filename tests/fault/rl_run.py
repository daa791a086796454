"""One GRPO run in a process of its own, for the faults to hit: FOLDER LEARNING_RATE STEPS NAME."""

import resource
import sys
from dataclasses import replace
from pathlib import Path

from frontload.launch.stage.workspace import LiveWorkspace
from frontload.launch.store import Store, Ticket
from frontload.megatron_ext.checkpoints.files import read_model
from frontload.recipes.grammar.load import find_recipe, load_recipe
from frontload.recipes.machines.cluster import RlPlacement
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.stages import grpo

ROWS_A_TIME = 16  # two micro-batches an update


def recipe_of(folder: Path, learning_rate: float, steps: int) -> GrpoRecipe:
    path = find_recipe("training", "grpo_tiny")
    assert path is not None
    tiny = load_recipe(path, GrpoRecipe).value
    return replace(
        tiny,
        model=read_model(folder / "start"),
        steps=steps,
        response_tokens=24,
        batch_prompts=8,
        mini_batch_prompts=4,  # two updates a step: the second's ratios are not 1
        validate_every_steps=0,
        optimizer=replace(tiny.optimizer, learning_rate=learning_rate),
    )


def run(folder: Path, learning_rate: float, steps: int) -> None:
    recipe = recipe_of(folder, learning_rate, steps)
    name = f"lr{learning_rate:g}-{sys.argv[4]}"
    ticket = Ticket(kind="grpo", label="t", key=name, folder=f"grpo/{name}", payload={})
    store = Store(folder / "store")
    # every step's checkpoint and answers are kept, to compute a step again by hand
    answers = {"trainer.rollout_data_dir": str(store.workspace(ticket) / "scratch" / "answers")}
    machines = RlPlacement(checkpoints_kept=steps, verl=answers)
    placement = Placement(rl=machines, micro_batch_sequences=ROWS_A_TIME)
    work = LiveWorkspace(store, ticket, placement=placement, report=lambda *_: None)
    inputs = {"start": folder / "start", "prompts": folder, "tokenizer": folder / "tokenizer.json"}
    try:
        grpo(recipe, inputs, work)
    finally:
        work.close()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    (work.path.parent / "counted").write_text(str(usage.ru_utime + usage.ru_stime))


if __name__ == "__main__":
    run(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
