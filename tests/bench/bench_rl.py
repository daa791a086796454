"""Where a GRPO run's time goes: start-up, and a step's shares of generation, reward and update.

veRL's own main_ppo as the laptop study runs it: 32 prompts x 8 responses of up to 64 tokens a step,
model hybrid_138k. The weights are random over 32 words, so a response ends after 28 tokens in the
mean, near the study's 25. There is no peer: these are parts of one run, means without step 1.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frontload.launch.stage.workspace import LiveWorkspace
from frontload.launch.store import Store, Ticket
from frontload.recipes.grammar.load import find_recipe, load_recipe
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.stages import grpo

# by its own name: veRL installs a package `tests`, which would hide ours
sys.path.append(str(Path(__file__).resolve().parents[1] / "unit" / "megatron_ext"))

from convert_inputs import write_checkpoint, write_tokenizer_file

STEPS = 8
PROMPTS, SAMPLES, NEW = 32, 8, 64
WORDS = 32
PARTS = {
    "generation": ("system/generation_seconds",),
    "reward": ("system/reward_seconds",),
    "scoring by actor and reference": (
        "system/old_log_prob_seconds",
        "system/reference_seconds",
    ),
    "update, weights to the rollout": ("system/update_seconds", "system/weights_seconds"),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "start").mkdir()
        recipe = laptop_recipe()
        write_checkpoint(folder / "start", recipe.model, scale=0.1)
        write_tokenizer_file(folder / "tokenizer.json")
        write_prompts(folder / "prompts.jsonl")
        begin, cpu = time.monotonic(), cpu_seconds()
        lines = run(recipe, folder)
        show(lines, wall=time.monotonic() - begin, cpu=cpu_seconds() - cpu)


def laptop_recipe() -> GrpoRecipe:
    """The study's sizes; validation is left out of the steps."""
    path = find_recipe("training", "grpo_tiny")
    assert path is not None
    tiny = load_recipe(path, GrpoRecipe).value
    return replace(
        tiny,
        model=replace(tiny.model, vocab_size=WORDS, max_sequence_tokens=128),
        grpo=replace(tiny.grpo, rollouts_per_prompt=SAMPLES),
        batch_prompts=PROMPTS,
        mini_batch_prompts=PROMPTS,
        steps=STEPS,
        prompt_tokens=64,
        response_tokens=NEW,
        validate_every_steps=0,
        checkpoint_every_steps=STEPS,
    )


def write_prompts(path: Path) -> None:
    row = {"trace": "", "answer": "", "family": "own", "domain": "math"}
    lines = [
        json.dumps({"id": str(n), "question": "what is " + "3 + " * (n % 15 + 1) + "4", **row})
        for n in range(80)
    ]
    path.write_text("\n".join(lines) + "\n")


def run(recipe: GrpoRecipe, folder: Path) -> list[dict[str, float]]:
    """The stage, and what it says of its time."""
    ticket = Ticket(kind="grpo", label="bench", key="bench", folder="grpo/bench", payload={})
    store = Store(folder / "store")
    work = LiveWorkspace(store, ticket, placement=Placement(), report=lambda *_: None)
    inputs = {"start": folder / "start", "prompts": folder, "tokenizer": folder / "tokenizer.json"}
    try:
        grpo(recipe, inputs, work)
    finally:
        work.close()
    text = store.telemetry_file(ticket, "jsonl").read_text()
    metrics = (work.path / "metrics.jsonl").read_text()
    parts = [[json.loads(line) for line in one.splitlines()] for one in (text, metrics)]
    return [{**system, **train} for system, train in zip(*parts, strict=True)]


def show(lines: Sequence[dict[str, float]], *, wall: float, cpu: float) -> None:
    """Prints the table."""
    steps = [line for line in lines if line["step"] > 1]
    seconds = mean(steps, "system/step_seconds")
    tokens = mean(steps, "train/response_tokens")
    print(f"\nGRPO through veRL: {PROMPTS} prompts x {SAMPLES} responses of {tokens:.0f} tokens")
    print(f"{'from the start to the first validation':44s} {start_of(lines, 0):8.1f} s")
    print(f"{'from the start to the end of step 1':44s} {start_of(lines, 1):8.1f} s")
    print(f"{f'a step (mean of {len(steps)})':44s} {seconds:8.2f} s {'share':>9s}")
    left = seconds
    for part, names in PARTS.items():
        spent = sum(mean(steps, name) for name in names)
        left -= spent
        print(f"  {part:42s} {spent:8.2f} s {spent / seconds:9.1%}")
    print(f"  {'the rest of veRL':42s} {left:8.2f} s {left / seconds:9.1%}")
    print(f"{f'the run, {STEPS} steps':44s} {wall:8.1f} s   {cpu:.0f} CPU s\n", flush=True)


def start_of(lines: Sequence[dict[str, float]], step: int) -> float:
    return next(line["system/start_seconds"] for line in lines if line["step"] == step)


def mean(lines: Sequence[dict[str, float]], name: str) -> float:
    return statistics.fmean(line.get(name, 0.0) for line in lines)


def cpu_seconds() -> float:
    """Of this process and of all that it started and that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
