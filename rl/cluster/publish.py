"""A finished job of GRPO on a cluster as the stage's artifact: weights, metrics, answers."""

import json
import logging
from pathlib import Path

from frontload.recipes.artifact import Inputs, Workspace, exported_model
from frontload.recipes.errors import ArtifactError
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.cluster.files import answers_folder, checkpoints_folder, read_steps
from frontload.rl.plugins.validation import KEPT_ANSWERS, answers_file, read_described
from frontload.rl.trainer.publish import ANSWERS, publish_actor
from frontload.rl.watch.metrics import step_metrics

LOGGER = logging.getLogger(__name__)


def publish_cluster(recipe: GrpoRecipe, inputs: Inputs, work: Workspace, *, run: Path) -> None:
    """Writes what the local stage writes, of the job whose folder is `run`.

    Raises: ArtifactError for a job that has not run, or that left no whole metrics or answers;
        StageError and ArtifactError as `publish_actor`.
    """
    steps = read_steps(run)
    if not steps:
        raise ArtifactError(
            f"GRPO on GPUs, its job's folder {run}",
            found="no line of metrics-JOB-START.jsonl",
            rule="on GPUs veRL's trainer is a job of a cluster, with Ray on every node; this stage "
            "makes the checkpoint of what the job has left",
            do="run the study on a placement with a `slurm` section, with file among "
            "placement.rl.loggers",
        )
    ends = [_answers(run, step) for step in (0, recipe.steps)]
    model = exported_model(inputs["exported"])
    publish_actor(recipe, work, model=model, checkpoints=checkpoints_folder(run))
    (work.path / ANSWERS).write_text("".join(ends), encoding="utf-8")
    missing = [step for step in range(recipe.steps + 1) if step not in steps]
    if missing:
        LOGGER.warning(
            "metrics: %d of %d steps have no line, the first is %d: the job was killed after it "
            "had saved them",
            *(len(missing), recipe.steps + 1, missing[0]),
        )
    work.rewind(-1)
    for step, data in steps.items():
        work.log(step, **step_metrics(data))
    work.progress(recipe.steps, recipe.steps)


def _answers(run: Path, step: int) -> str:
    """The lines of a validation's first answers, as the local stage writes them.

    Raises: ArtifactError if the file is not there, or not whole.
    """
    path = answers_file(answers_folder(run), step)
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        answers = list(read_described(lines, step=step))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"answers of the validation after step {step}, {path}",
            found=f"they cannot be read ({error!r})",
            rule="veRL writes the prompt, the answer and its grades of each, one object per line",
            do=f"remove {run / 'finished'} and submit the run again: the last checkpoint is then "
            "validated"
            if step
            else f"move {run} away and submit the run again, from its start",
        ) from error
    return "".join(json.dumps(one, sort_keys=True) + "\n" for one in answers[:KEPT_ANSWERS])
