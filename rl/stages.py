"""The stage `grpo`: a checkpoint and prompts in, a checkpoint out, veRL's main_ppo in between."""

from frontload.recipes.artifact import Inputs, Workspace
from frontload.recipes.runs.grpo import GrpoRecipe


def grpo(recipe: GrpoRecipe, inputs: Inputs, work: Workspace) -> None:
    """Trains the checkpoint `start` by GRPO on `prompts`; `tokenizer` is the study's own."""
    from frontload.rl.trainer.train import train  # transformers and torch load when a stage runs

    train(recipe, inputs, work)
