"""A training recipe as a job: torchrun on the nodes of a Slurm placement, or on this machine."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from frontload.launch.cluster.rendered import Rendered, absolute, local_script, whole_path
from frontload.launch.cluster.slurm import ClusterJob, check_gpus, job_script
from frontload.launch.cluster.slurm_bodies import MAX_RESTARTS, torchrun_body
from frontload.launch.run.inputs import Given, check_blends, phases_to_train
from frontload.megatron_ext.sizing.memory import GIB
from frontload.megatron_ext.sizing.search import estimate_layout
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.cluster import TORCH
from frontload.recipes.machines.gpus import find_gpu
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import find_precision
from frontload.recipes.runs.training import PretrainRecipe, SftRecipe
from frontload.recipes.stage import canonical

LOCAL_SHUTDOWN_SECONDS = 600  # to save after SIGTERM, on this machine
MEMORY_ERROR = 0.15  # of the estimate; how it was found: launch/estimate/README.md
KEY_DIGITS = 12
FLAGS = "--blend or --pack, --start and --index"


def render_train(
    recipe: PretrainRecipe | SftRecipe, placement: Placement, options: argparse.Namespace
) -> Rendered:
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
    key = run_key(recipe, needs)
    folder = whole_path(options.out or root / "runs" / f"{name}-{key}", placement)
    words = ["train", absolute(options.recipe), "--placement", absolute(options.placement)]
    for flag, paths in inputs.items():
        words += [flag, *paths]
    words += ["--until", options.until] if options.until else []
    words += ["--out", str(folder), *options.overrides]
    environment = {
        "OMP_NUM_THREADS": str(placement.threads_per_rank),
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",  # Megatron: orders its kernels by it
    }
    worker = ("--module", "--", "frontload.launch.cli", *words)  # torchrun takes none of its flags
    if placement.slurm is not None:
        doctor = ("python", "-m", "frontload.launch.cli", "doctor", "--brief")
        gpus = placement.ranks_per_node if placement.gpus else 0
        checks = (*doctor, "--gpus", str(gpus), "--disk", str(root))
        job = ClusterJob(
            name=name,
            folder=folder,
            environment=environment,
            body=torchrun_body(
                worker,
                checks,
                max_restarts=MAX_RESTARTS,
                max_failures=placement.slurm.max_failures,
            ),
            is_chained=options.chain > 1,
        )
        return Rendered(
            script=job_script(job, placement),
            command=(),
            environment=environment,
            folder=folder,
            needs=needs,
            flags=FLAGS,
        )
    command = (*local_torchrun(placement), *worker)
    return Rendered(
        script=local_script(command, environment),
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


def run_key(recipe: PretrainRecipe | SftRecipe, needs: Sequence[Path]) -> str:
    """Digits of a run's folder: what its stages are and the folders that it reads."""
    stages = {name: canonical(stage) for name, stage in recipe.stages().items()}
    payload = {"stages": stages, "inputs": [str(path) for path in needs]}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]
