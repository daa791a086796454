"""A study for a cluster, on the disk and in numbers: what is there, what is missing, the price."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.launch.estimate.answer import Workload
from frontload.launch.run.folder import ERROR, FINISHED
from frontload.launch.study.price import GRPO_FACTOR
from frontload.megatron_ext.sizing.memory import GIB
from frontload.megatron_ext.sizing.search import estimate_layout
from frontload.recipes.cluster_runs import (
    BLENDS,
    TRUNK,
    Product,
    Run,
    expand_data,
    expand_runs,
)
from frontload.recipes.cluster_study import (
    CONVERT,
    GRPO,
    ClusterStudy,
    Recipes,
    check_cluster_study,
    leave_out,
    load_recipes,
)
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.facts.census import forward_flops_per_token, training_flops_per_token
from frontload.recipes.grammar.load import Loaded, find_recipe, load_recipe, read_tree
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import find_precision
from frontload.recipes.runs.blend import load_blend
from frontload.recipes.runs.load import load_placement, load_training

FOLDER = "cluster_studies"
JOB = "job"  # in a run's folder: the number that Slurm gave it
BUILT, BEGUN, FAILED, READY, BLOCKED = "finished", "begun", "failed", "ready", "waits"


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """A study, expanded, and where it lies."""

    name: str
    study: ClusterStudy
    recipes: Recipes
    runs: tuple[Run, ...]
    products: tuple[Product, ...]
    placements: Mapping[str, Placement]
    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    def folder(self, label: str) -> Path:
        """Of a run."""
        return self.root / "runs" / self.name / label

    def start_of(self, run: Run) -> Path | None:
        """What a run goes on from."""
        return self.folder(run.start) / run.start_folder if run.start else None

    def run(self, label: str) -> Run:
        return next(one for one in self.runs if one.label == label)

    def recipe(self, run: Run) -> Any:
        """The training recipe of a run; a conversion has none."""
        of_kind = {"pretrain": self.recipes.pretrain, "sft": self.recipes.sft}
        return of_kind.get(run.kind, self.recipes.grpo)[run.recipe]


@dataclass(frozen=True, kw_only=True)
class RunPrice:
    """What a run costs; None where the placement names no GPUs that could be priced."""

    flops: float
    hours: float | None = None
    gpu_hours: float | None = None
    dollars: float | None = None
    memory_gib: float | None = None  # of the fullest GPU
    fits: bool = True


def is_cluster_study(name: str) -> bool:
    """Whether a name or path is that of a study for a cluster: such a one has a trunk."""
    path = _path(name)
    if path is None or not path.is_file():
        return False
    tree = read_tree(path, ClusterStudy, seen=())
    return isinstance(tree.value, dict) and "trunk" in tree.value


def load_cluster_plan(name: str, overrides: Sequence[str]) -> ClusterPlan:
    """Loads and expands a study with everything that it names.

    Raises: RecipeError naming file, line and key of what is wrong, there or in what it names.
    """
    path = _path(name)
    assert path is not None
    loaded = leave_out(load_recipe(path, ClusterStudy, overrides=overrides))
    study = loaded.value
    recipes = load_recipes(
        study,
        lambda one: load_training(one, []).value,
        lambda one: load_blend(one).value,
    )
    check_cluster_study(loaded, recipes)
    runs = expand_runs(study, recipes)
    names = dict.fromkeys(run.placement for run in runs)
    placements = {one: load_placement(one, []).value for one in names}
    return ClusterPlan(
        name=path.stem,
        study=study,
        recipes=recipes,
        runs=runs,
        products=expand_data(study, recipes, runs),
        placements=placements,
        root=_root(loaded, placements),
    )


def _path(name: str) -> Path | None:
    return Path(name) if name.endswith(".yaml") else find_recipe(FOLDER, name)


def _root(loaded: Loaded[ClusterStudy], placements: Mapping[str, Placement]) -> Path:
    """The folder that all placements share."""
    roots = {
        name: Path(one.slurm.shared_folder) if one.slurm else Path("store")
        for name, one in placements.items()
    }
    if len(set(roots.values())) > 1:
        raise loaded.refuse(
            "placements",
            found=", ".join(f"{name}: {root}" for name, root in roots.items()),
            rule="a run reads what another one left, so all have one shared_folder",
            do="write the same slurm.shared_folder, or choose other placements",
        )
    return next(iter(roots.values()))


# ---------------------------------------------------------------- price


def price_run(plan: ClusterPlan, run: Run) -> RunPrice:
    """FLOPs, hours and dollars of a run, by `frontload estimate`'s own model.

    Raises: RecipeError for a layout that the model or the batch cannot be cut to.
    """
    if run.kind == CONVERT:
        return RunPrice(flops=0.0)
    recipe, placement = plan.recipe(run), plan.placements[run.placement]
    if run.kind == GRPO:  # at most: responses that end early cost less
        forward = forward_flops_per_token(recipe.model, recipe.context_tokens)
        flops = GRPO_FACTOR * forward * run.tokens
        return RunPrice(flops=flops)
    flops = training_flops_per_token(recipe.model, recipe.sequence_tokens) * run.tokens
    workload = Workload(
        name=run.recipe,
        model=recipe.model,
        sequence_tokens=recipe.sequence_tokens,
        global_batch_sequences=recipe.global_batch_sequences,
        tokens=run.tokens,
        precision=recipe.precision,
        reset_at_document_boundaries=recipe.reset_at_document_boundaries,
    )
    precision = find_precision(recipe.precision)
    try:
        found = estimate_layout(recipe.model, workload, placement=placement, precision=precision)
    except RecipeError as error:
        raise RecipeError(
            f"{run.label} on {run.placement}: {error.asked}",
            found=error.found,
            rule=error.rule,
            do=f"{error.do}; `frontload estimate {run.recipe} --placement {run.placement}` lists "
            "what is legal",
        ) from error
    if found.time is None or placement.gpus is None:
        return RunPrice(flops=flops)
    gpu_hours = found.time.gpu_hours(run.tokens)
    rate = placement.gpus.dollars_per_hour
    return RunPrice(
        flops=flops,
        hours=gpu_hours / placement.world_size,
        gpu_hours=gpu_hours,
        dollars=gpu_hours * rate if rate else None,
        memory_gib=found.fullest.total / GIB,
        fits=found.fits,
    )


def critical_hours(runs: Iterable[Run], prices: Mapping[str, RunPrice]) -> float:
    """The longest way through runs that are left, were each started as soon as it could be."""
    ends: dict[str, float] = {}
    for run in runs:
        ends[run.label] = ends.get(run.start, 0.0) + (prices[run.label].hours or 0.0)
    return max(ends.values(), default=0.0)


# ---------------------------------------------------------------- state


def missing_products(plan: ClusterPlan) -> list[Product]:
    """What the data tools have not made yet."""
    return [one for one in plan.products if not is_there(plan, one)]


def is_there(plan: ClusterPlan, product: Product) -> bool:
    return all((plan.data / file).is_file() for file in product.files)


def lacking(plan: ClusterPlan, run: Run) -> list[str]:
    """Labels of the data that a run reads and that is not there."""
    absent = {one.label for one in missing_products(plan)}
    return [label for label in run.data if product_label(label) in absent]


def product_label(data: str) -> str:
    """`blends/ldq/second` is made with all phases of `blends/ldq`."""
    return "/".join(data.split("/")[:2]) if data.startswith(f"{BLENDS}/") else data


def state_of(plan: ClusterPlan, run: Run) -> tuple[str, str]:
    """The state of a run by what lies in its folder, and a word about it."""
    folder = plan.folder(run.label)
    if (folder / FINISHED).is_file():
        return BUILT, ""
    if (folder / ERROR).is_file():
        told = json.loads((folder / ERROR).read_text(encoding="utf-8"))
        return FAILED, f"{told['asked']}: {told['found']}"
    steps = [int(path.name[5:]) for path in folder.glob("work/*/scratch/step-*[0-9]")]
    if steps:
        return BEGUN, f"checkpoint of step {max(steps)}"
    absent = lacking(plan, run)
    if absent:
        return BLOCKED, "for data: " + ", ".join(absent)
    if run.start and not (plan.folder(run.start) / FINISHED).is_file():
        return BLOCKED, f"for {run.start}"
    return READY, ""


def check_shared_phases(plan: ClusterPlan) -> None:
    """Refuses arms whose blends do not go on from what the trunk reads.

    A branch continues the trunk's checkpoint, so the trunk's phase of its own blend must be the one
    that the trunk was trained on: the same documents, windows and order.

    Raises: ArtifactError naming the arm and the file that differs.
    """
    trunk = plan.run(TRUNK)
    for label in (one for one in trunk.data if one.startswith(f"{BLENDS}/")):
        phase = label.rpartition("/")[2]
        ours = _phase_files(plan.data / label)
        for arm in plan.study.arms:
            folder = plan.data / BLENDS / arm / phase
            theirs = _phase_files(folder)
            if ours is None or theirs is None:
                continue
            moved = sorted(name for name in ours if ours[name] != theirs.get(name))
            if moved:
                raise ArtifactError(
                    f"{folder}/{moved[0]}",
                    found=f"is not the file of {plan.data / label}, which the trunk reads",
                    rule="an arm goes on from the trunk, so that both have read the same",
                    do="make both blends from the same indexes, seed and first phase",
                )


def _phase_files(folder: Path) -> dict[str, str] | None:
    """Array of a phase -> its sha256; None where the phase is not there."""
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    files: Iterable[tuple[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["files"].items()
    return {name: str(entry["sha256"]) for name, entry in files if name.endswith(".npy")}
