"""From a finished run of veRL, here or on a cluster, to the checkpoint that evaluation loads."""

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file

from frontload.megatron_ext.hf import convert
from frontload.megatron_ext.hf.safetensors import WHOLE
from frontload.recipes.artifact import Workspace, write_json
from frontload.recipes.errors import ArtifactError, StageError
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.trainer.gather import AGAIN, gather_actor
from frontload.rl.watch.checkpoints import MEGATRON, last_step, step_folders

METRICS, ANSWERS = "metrics.jsonl", "validation.jsonl"  # of a workspace, recipes/artifact.py
WEIGHTS = "*safetensors*"  # of a Hugging Face folder, the index too
HUGGING_FACE = "huggingface"  # verl/utils/checkpoint/megatron_checkpoint_manager.py:505


def publish_actor(recipe: GrpoRecipe, work: Workspace, *, model: Path, checkpoints: Path) -> None:
    """Turns veRL's own checkpoint of the last step into the weights that evaluation loads.

    `model` is the Hugging Face folder that the run started from.

    Raises: StageError if veRL left no checkpoint of the last step, ArtifactError if its weights
        are not whole or not those of the recipe's model.
    """
    step = last_step(checkpoints, logged=recipe.steps)
    if step != recipe.steps:
        raise StageError(
            "veRL's last checkpoint",
            found=f"of step {step}",
            rule=f"the run has {recipe.steps} steps",
            do="read the stage's log and run again",
        )
    last = work.scratch / "last"
    shutil.rmtree(last, ignore_errors=True)
    shutil.copytree(model, last, ignore=shutil.ignore_patterns(WEIGHTS))
    put_weights(recipe, step_folders(checkpoints)[step] / "actor", last)
    convert.import_into(last, work.path, model=recipe.model)
    shutil.rmtree(last)
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


def put_weights(recipe: GrpoRecipe, actor: Path, folder: Path) -> None:
    """Puts an actor's weights into a Hugging Face folder that has none, as safetensors.

    Those of FSDP2 ranks are gathered; a Megatron actor's are there as files, which are linked.
    """
    if recipe.actor == "fsdp2":
        save_file(gather_actor(actor), folder / WHOLE, {"format": "pt"})
        return
    for file in megatron_weights(actor).glob(WEIGHTS):
        (folder / file.name).symlink_to(file.absolute())


def megatron_weights(actor: Path) -> Path:
    """The Hugging Face folder that Megatron-Bridge wrote into a Megatron actor's checkpoint.

    veRL's list of contents names it. Its numbers are the actor's own, in bf16; the float32 ones
    that its optimizer keeps lie elsewhere, cut by its layout, and are not read.

    Raises: ArtifactError if the list is no such one, or names another format.
    """
    asked = f"veRL's checkpoint {actor}"
    try:
        saved = json.loads((actor / MEGATRON).read_text(encoding="utf-8"))["contents"]["model"]
        form, folder = str(saved["format"]), actor / str(saved["path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            asked,
            found=f"no {MEGATRON} that says where the weights are ({error})",
            rule="veRL 0.9.1 writes it last, into every checkpoint of a Megatron actor",
            do=AGAIN,
        ) from error
    if form != HUGGING_FACE:
        raise ArtifactError(
            asked,
            found=f"its weights are a {form}",
            rule="of a Megatron actor the Hugging Face folder of Megatron-Bridge is read",
            do="run again without actor_rollout_ref.actor.megatron.use_dist_checkpointing under "
            "placement.rl.verl",
        )
    return folder
