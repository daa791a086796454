"""The GRPO recipe as a job: Ray and veRL's trainer on a Slurm placement, or its local command."""

import argparse
import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frontload.launch.slurm import ClusterJob, job_script
from frontload.launch.slurm_bodies import ray_body
from frontload.recipes.placement import Placement
from frontload.recipes.rl_schema import GrpoRecipe
from frontload.recipes.stage import canonical
from frontload.rl.preflight import Need, arguments_of
from frontload.rl.settings import RunFiles, Settings, verl_settings

KEY_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A job, ready to be printed or run."""

    script: str
    folder: Path  # of the run
    needs: tuple[Path, ...]  # what must be there before it starts


def render_grpo(recipe: GrpoRecipe, placement: Placement, options: argparse.Namespace) -> Rendered:
    """The job of a recipe: a Slurm script, or the command of this machine."""
    name = Path(options.recipe).stem
    root = Path(placement.slurm.shared_folder) if placement.slurm else Path("store")
    model = options.model or root / "models" / name
    prompts = options.prompts or root / "prompts" / "train.parquet"
    validation = options.validation or root / "prompts" / "validation.parquet"
    needs = (model, prompts, validation)
    folder = options.out or root / "runs" / f"{name}-{run_key(recipe, needs)}"
    files = RunFiles(
        model=model,
        train_prompts=prompts,
        validation_prompts=validation,
        checkpoints=folder / "checkpoints",
        work=folder / "hydra",
        validation_responses=folder / "validation",
    )
    settings = verl_settings(recipe, placement, files)
    if placement.slurm is None:
        return Rendered(script=local_script(settings), folder=folder, needs=needs)
    need = Need(
        actor=recipe.actor,
        rollout=recipe.rollout,
        is_hybrid=recipe.is_hybrid,
        gpus=placement.ranks_per_node,
        context_tokens=recipe.context_tokens,
        model=model,
        files=(prompts, validation),
    )
    checks = ("python", "-m", "frontload.rl.preflight", *arguments_of(need))
    job = ClusterJob(
        name=name,
        folder=folder,
        environment=settings.environment,
        body=ray_body(settings.command, checks),
    )
    return Rendered(script=job_script(job, placement), folder=folder, needs=needs)


def run_key(recipe: GrpoRecipe, needs: Sequence[Path]) -> str:
    """Digits of a run's folder: another recipe, model or prompts never resume its checkpoints."""
    payload = {"recipe": canonical(recipe), "inputs": [str(path) for path in needs]}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def local_script(settings: Settings) -> str:
    """The trainer's command for this machine, as a shell would take it."""
    exports = [f"export {name}={shlex.quote(text)}" for name, text in settings.environment.items()]
    words = " \\\n    ".join(shlex.quote(word) for word in settings.command)
    return "\n".join([*exports, words]) + "\n"
