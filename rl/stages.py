"""The stage `grpo`: a checkpoint and prompts in, a checkpoint out, veRL's main_ppo in between."""

from frontload.recipes.artifact import Inputs, Workspace
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.cluster.files import RUN


def grpo(recipe: GrpoRecipe, inputs: Inputs, work: Workspace) -> None:
    """Trains the checkpoint `start` by GRPO on `prompts`; `tokenizer` is the study's own.

    On GPUs the trainer is a job with Ray on every node, whose folder is `run` of the scratch
    folder. The stage then makes the checkpoint of what the job has left; `exported` is the
    Hugging Face folder that the job started from.
    """
    # transformers and torch load when a stage runs
    if work.placement.gpus is None:
        from frontload.rl.trainer.train import train

        train(recipe, inputs, work)
        return
    from frontload.rl.cluster.publish import publish_cluster

    publish_cluster(recipe, inputs, work, run=work.scratch / RUN)
