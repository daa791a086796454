"""A training recipe as a job: torchrun on the nodes of a Slurm placement, or on this machine."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frontload.launch.cluster.ranks_job import (
    MAX_RESTARTS,
    rank_command,
    ranks_environment,
    ranks_job,
)
from frontload.launch.cluster.rendered import (
    RenderedJob,
    absolute,
    local_script,
    run_folder_name,
    whole_path,
)
from frontload.launch.cluster.slurm import check_gpus, job_script
from frontload.launch.run.inputs import Given, check_blends, phases_to_train
from frontload.megatron_ext.sizing.memory import GIB
from frontload.megatron_ext.sizing.search import estimate_layout
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.cluster import TORCH
from frontload.recipes.machines.gpus import find_gpu
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import find_precision
from frontload.recipes.runs.training import PretrainRecipe, SftRecipe

LOCAL_SHUTDOWN_SECONDS = 600  # to save after SIGTERM, on this machine
MEMORY_ERROR = 0.15  # of the estimate; how it was found: launch/estimate/README.md
FLAGS = "--blend or --pack, --start and --index"


def render_train(
    recipe: PretrainRecipe | SftRecipe, placement: Placement, options: argparse.Namespace
) -> RenderedJob:
    """The job of a training recipe.

    Raises: RecipeError for a layout that the model or the batch cannot be cut to, for what its
        GPUs cannot hold or compute, or a placement that Slurm would refuse.
    """
    _check_machines(recipe, placement, options)
    name = Path(options.recipe).stem
    root = Path(placement.slurm.shared_folder) if placement.slurm else Path("store")
    found = _inputs(recipe, options, root=root, name=name)
    inputs = {flag: _whole(paths, placement) for flag, paths in found.items()}
    needs = tuple(Path(path) for paths in inputs.values() for path in paths)
    kind = "sft" if isinstance(recipe, SftRecipe) else "pretrain"
    named = run_folder_name(name, kind, recipe.stages(), needs)
    folder = whole_path(options.out or root / "runs" / named, placement)
    words = ["train", absolute(options.recipe), "--placement", absolute(options.placement)]
    for flag, paths in inputs.items():
        words += [flag, *paths]
    words += ["--until", options.until] if options.until else []
    words += ["--out", str(folder), *options.overrides]
    if placement.slurm is not None:
        job = ranks_job(words, placement, name=name, folder=folder, disk=root)
        job = replace(job, is_chained=options.chain > 1)
        script, command, environment = job_script(job, placement), (), job.environment
    else:
        environment = ranks_environment(placement)
        command = (*local_torchrun(placement), *rank_command(words))
        script = local_script(command, environment)
    return RenderedJob(
        script=script,
        command=command,
        environment=environment,
        folder=folder,
        needs=needs,
        flags=FLAGS,
    )


def _check_machines(
    recipe: PretrainRecipe | SftRecipe, placement: Placement, options: argparse.Namespace
) -> None:
    """Refuses here what every rank would refuse, or die of, at its start."""
    precision = find_precision(recipe.precision)
    found = estimate_layout(recipe.model, recipe, placement=placement, precision=precision)
    if placement.slurm is not None and placement.kernels != TORCH:
        check_gpus(placement)
    if placement.gpus is None:
        return
    gib, kind = found.fullest.total / GIB, find_gpu(placement.gpus.kind)
    recompute = "" if placement.recompute else "write placement.recompute=true, or "
    if gib > (1.0 + MEMORY_ERROR) * kind.memory_gib:
        raise RecipeError(
            f"launch --placement {placement.name}",
            found=f"the fullest GPU needs {gib:.1f} GiB",
            rule=f"{kind.name} has {kind.memory_gib:g} GiB; an estimate is trusted to "
            f"{MEMORY_ERROR:.0%}",
            do=f"{recompute}choose a layout that fits: `frontload estimate {options.recipe} "
            f"--placement {options.placement}` ranks them",
        )


def local_torchrun(placement: Placement) -> tuple[str, ...]:
    """The agent that starts the ranks of this machine, and starts them again when one fails."""
    return (
        *("python", "-m", "frontload.launch.torchrun", "torchrun", "--standalone"),
        f"--nproc-per-node={placement.ranks_per_node}",
        f"--max-restarts={MAX_RESTARTS}",
        f"--shutdown-timeout={LOCAL_SHUTDOWN_SECONDS}",
    )


def _inputs(
    recipe: PretrainRecipe | SftRecipe, options: argparse.Namespace, *, root: Path, name: str
) -> dict[str, Sequence[str]]:
    """Flag -> folders: those of the command line, else where the shared folder would have them."""
    found: dict[str, Sequence[str]] = {}
    if options.start is not None or isinstance(recipe, SftRecipe):
        found["--start"] = [str(options.start or root / "models" / f"{name}-start")]
    if isinstance(recipe, SftRecipe):
        found["--pack"] = [str(options.pack or root / "packs" / name)]
        return found
    is_there = options.start is not None and options.start.is_dir()
    given = Given(start=options.start if is_there else None, until=options.until)
    blends = options.blend or [
        root / "blends" / f"{name}-{phase}" for phase in phases_to_train(recipe, given)
    ]
    found["--blend"] = [str(path) for path in blends]
    if not options.start or is_there:
        check_blends(blends, phases_to_train(recipe, given))
    if options.index:
        found["--index"] = [str(path) for path in options.index]
    return found


def _whole(paths: Sequence[str], placement: Placement) -> list[str]:
    return [str(whole_path(Path(one), placement)) for one in paths]
