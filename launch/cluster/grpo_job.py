"""A GRPO recipe as a job: Ray and veRL's trainer on a Slurm placement, or `frontload rl` here."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from frontload.launch.cluster.rendered import (
    CLI,
    RenderedJob,
    absolute,
    local_script,
    run_folder_name,
    whole_path,
)
from frontload.launch.cluster.slurm import ClusterJob, check_gpus, job_script, slurm_of
from frontload.launch.cluster.slurm_bodies import ray_body
from frontload.launch.store import Store, Ticket
from frontload.recipes.artifact import exported_model, train_prompts, validation_prompts
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.stage import Stage
from frontload.rl.cluster.files import RUN, run_files
from frontload.rl.cluster.need import Need, arguments_of
from frontload.rl.trainer.settings import RunFiles, verl_settings

FLAGS = "--model, --prompts and --validation"


def render_grpo(
    recipe: GrpoRecipe, placement: Placement, options: argparse.Namespace
) -> RenderedJob:
    """The job of a recipe: a Slurm script, or the command of this machine.

    Raises: RecipeError for GPUs without Slurm, or for settings that veRL would run wrongly.
    """
    name = Path(options.recipe).stem
    root = Path(placement.slurm.shared_folder) if placement.slurm else Path("store")
    model = options.model or root / "models" / name
    prompts = options.prompts or root / "prompts" / "train.parquet"
    validation = options.validation or root / "prompts" / "validation.parquet"
    model, prompts, validation = needs = tuple(
        whole_path(path, placement) for path in (model, prompts, validation)
    )
    named = run_folder_name(name, "grpo", {"grpo": recipe}, needs)
    folder = whole_path(options.out or root / "runs" / named, placement)
    files = run_files(folder, model=model, train_prompts=prompts, validation_prompts=validation)
    if placement.slurm is None:
        verl_settings(recipe, placement, files)  # refuses now what the command would refuse
        _check_local(recipe, placement)
        command = _local_command(options, needs, folder)
        return RenderedJob(
            script=local_script(command, {}),
            command=command,
            environment={},
            folder=folder,
            needs=needs,
            flags=FLAGS,
        )
    job = ray_job(recipe, placement, name=name, folder=folder, files=files)
    return RenderedJob(
        script=job_script(job, placement),
        command=(),
        environment=job.environment,
        folder=folder,
        needs=needs,
        flags=FLAGS,
    )


def ray_job(
    recipe: GrpoRecipe, placement: Placement, *, name: str, folder: Path, files: RunFiles
) -> ClusterJob:
    """The job of a GRPO run whose folder is `folder`: Ray on every node, veRL's trainer on one.

    `files` are `run_files` of that folder, with the model as a Hugging Face folder and the prompts
    as parquet. When the job has ended, `rl/cluster/publish.py` makes a checkpoint of the folder.

    Raises: RecipeError for settings that veRL would run wrongly, or a placement without Slurm.
    """
    settings = verl_settings(recipe, placement, files)
    check_gpus(placement)
    return ClusterJob(
        name=name,
        folder=folder,
        environment=settings.environment,
        body=ray_body(
            settings.command,
            _checks(recipe, placement, files),
            keeper=_keeper(placement, files),
            max_failures=slurm_of(placement).max_failures,
        ),
    )


def run_folder(stage: Stage, store: Store) -> Path:
    """The folder of a stage's Ray job: in the stage's scratch folder, where the stage looks."""
    return store.workspace(Ticket.of(stage)).absolute() / "scratch" / RUN


def stage_job(stage: Stage, store: Store, placement: Placement) -> ClusterJob:
    """The Ray job of a stage of a study.

    Raises: as `ray_job`.
    """
    folders = {role: store.root.absolute() / below.folder for role, below in stage.inputs.items()}
    run = run_folder(stage, store)
    files = run_files(
        run,
        model=exported_model(folders["exported"]),
        train_prompts=train_prompts(folders["prompts"]),
        validation_prompts=validation_prompts(folders["prompts"]),
    )
    name = f"{stage.kind}-{stage.key}-ray"
    return ray_job(stage.recipe, placement, name=name, folder=run, files=files)


def _checks(recipe: GrpoRecipe, placement: Placement, files: RunFiles) -> tuple[str, ...]:
    """What every node is asked for before Ray starts."""
    need = Need(
        actor=recipe.actor,
        rollout=recipe.rollout,
        is_hybrid=recipe.is_hybrid,
        gpus=placement.ranks_per_node,
        context_tokens=recipe.context_tokens,
        prompt_tokens=recipe.prompt_tokens,
        model=files.model,
        files=(files.train_prompts, files.validation_prompts),
    )
    return ("python", "-m", "frontload.rl.cluster.preflight", *arguments_of(need))


def _keeper(placement: Placement, files: RunFiles) -> tuple[str, ...]:
    """What starts the trainer from its newest whole checkpoint, and ends one that gets nowhere."""
    machines = placement.rl
    return (
        *("python", "-m", "frontload.rl.cluster.run", "--checkpoints", str(files.checkpoints)),
        *("--kept", str(machines.checkpoints_kept), "--ranks", str(placement.world_size)),
        *("--hang-seconds", f"{machines.hang_seconds:g}"),
        *("--answers", str(files.validation_responses)),
    )


def _check_local(recipe: GrpoRecipe, placement: Placement) -> None:
    if recipe.rollout != "frontload":
        raise RecipeError(
            f"launch --placement {placement.name}",
            found=f"a placement without a `slurm` section, for rollout {recipe.rollout}",
            rule="on GPUs RL is a job of a cluster; this machine runs rollout frontload on its CPU",
            do="choose a placement with one, e.g. --placement slurm, or recipe grpo_tiny",
        )


def _local_command(
    options: argparse.Namespace, needs: Sequence[Path], folder: Path
) -> tuple[str, ...]:
    """`frontload rl` on what was found for the job."""
    named = zip(("--model", "--prompts", "--validation"), map(str, needs), strict=True)
    return (
        *(*CLI, "rl", absolute(options.recipe)),
        *("--placement", absolute(options.placement)),
        *(word for pair in named for word in pair),
        *("--out", str(folder), *options.overrides),
    )
