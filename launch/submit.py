"""`frontload launch`: a training recipe on a placement, printed or given to Slurm."""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from frontload.launch.slurm import ClusterJob, job_script, ray_body
from frontload.recipes.errors import RecipeError, StageError
from frontload.recipes.load import Loaded, find_recipe, load_recipe, nearest, recipe_names
from frontload.recipes.placement import Placement
from frontload.recipes.rl_budgets import check_grpo
from frontload.recipes.rl_schema import GrpoRecipe
from frontload.recipes.stage import canonical
from frontload.rl.preflight import Need, arguments_of
from frontload.rl.settings import RunFiles, Settings, verl_settings

KINDS: dict[str, type] = {"grpo": GrpoRecipe}
"""First word of a file of recipes/training -> what it holds."""

PLACEMENT = "placement."
KEY_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A job, ready to be printed or run."""

    script: str
    folder: Path  # of the run
    needs: tuple[Path, ...]  # what must be there before it starts


def launch(options: argparse.Namespace) -> int:
    """Prints the job, or submits it and prints its number."""
    recipe = load_training(options.recipe, _of(options.overrides, is_placement=False))
    placement = load_placement(options.placement, _of(options.overrides, is_placement=True))
    try:
        rendered = render(recipe.value, placement.value, options)
    except RecipeError as error:
        raise _with_place(error, recipe, placement) from error
    if options.dry_run:
        print(rendered.script, end="")
        return 0
    print(submit(rendered, placement.value))
    return 0


def _with_place(
    error: RecipeError, recipe: Loaded[GrpoRecipe], placement: Loaded[Placement]
) -> RecipeError:
    """The error with the file and line that set its value, where it names a field."""
    inside = error.asked.removeprefix(PLACEMENT)
    owner = placement if inside != error.asked else recipe
    if inside.partition(".")[0] not in {item.name for item in fields(owner.value)}:
        return error
    return owner.refuse(inside, found=error.found, rule=error.rule, do=error.do)


def load_training(name: str, overrides: Sequence[str]) -> Loaded[GrpoRecipe]:
    """A recipe by name under recipes/training, or by path; its first word says what it holds.

    Raises: RecipeError for an unknown name or kind, and for what the recipe itself has wrong.
    """
    path = _named(name, "training", asked=f"launch {name}", what="recipe")
    kind = path.stem.partition("_")[0]
    if kind not in KINDS:
        raise RecipeError(
            f"launch {name}",
            found=f"'{kind}' is no kind of training that can be launched",
            rule="a file begins with the kind of its stage: " + ", ".join(KINDS),
            do="rename it, e.g. grpo_mine.yaml",
        )
    loaded = load_recipe(path, KINDS[kind], overrides=overrides)
    check_grpo(loaded)
    return loaded


def load_placement(name: str, overrides: Sequence[str]) -> Loaded[Placement]:
    """A placement by name under recipes/placements, or by path.

    Raises: RecipeError for an unknown name, and for what the placement itself has wrong.
    """
    path = _named(name, "placements", asked=f"--placement {name}", what="placement")
    return load_recipe(path, Placement, overrides=overrides)


def _named(name: str, folder: str, *, asked: str, what: str) -> Path:
    path = Path(name) if name.endswith(".yaml") else find_recipe(folder, name)
    if path is None or not path.is_file():
        raise RecipeError(
            asked,
            found=f"no such {what}",
            rule=f"a {what} is a name under recipes/{folder} or a path ending in .yaml",
            do=nearest(name, recipe_names(folder)),
        )
    return path


def render(recipe: GrpoRecipe, placement: Placement, options: argparse.Namespace) -> Rendered:
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


def submit(rendered: Rendered, placement: Placement) -> str:
    """Gives the job to sbatch and returns what to tell the user. Writes the log folder only.

    Raises: RecipeError without a cluster, sbatch or an input; StageError if sbatch refuses.
    """
    if placement.slurm is None:
        raise RecipeError(
            f"launch --placement {placement.name}",
            found="a placement without a `slurm` section",
            rule="launch gives jobs to Slurm; on this machine RL runs as a stage of a study",
            do="add --dry-run to see the command, or choose --placement slurm",
        )
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise RecipeError(
            "launch",
            found="no sbatch on the PATH",
            rule="jobs are submitted from a machine of the cluster",
            do="log in there, or add --dry-run to print the job",
        )
    for path in rendered.needs:
        if not path.exists():
            raise RecipeError(
                f"launch: {path}",
                found="is not there",
                rule="the start model and the prompts are on the shared folder before a job starts",
                do="name them with --model, --prompts and --validation",
            )
    (rendered.folder / "logs").mkdir(parents=True, exist_ok=True)  # Slurm does not make it
    done = subprocess.run(
        [sbatch, "--parsable"],
        input=rendered.script,
        text=True,
        capture_output=True,
        check=False,
        env=dict(os.environ),
    )
    if done.returncode:
        raise StageError(
            "sbatch",
            found=f"ended with status {done.returncode}: {done.stderr.strip()}",
            rule="Slurm takes the job",
            do="change the placement's `slurm` section as it says",
        )
    job = done.stdout.strip().partition(";")[0]
    return f"job {job} submitted; its lines go to {rendered.folder}/logs/{job}.out"


def _of(overrides: Sequence[str], *, is_placement: bool) -> list[str]:
    mine = [text for text in overrides if text.startswith(PLACEMENT) == is_placement]
    return [text.removeprefix(PLACEMENT) for text in mine]
