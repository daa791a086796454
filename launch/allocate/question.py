"""An allocation as its decisions see it: candidates with prices, and what the store has of them.

Prices and earlier cells are looked up once, when a store first sees a question, and stand in the
first decision from then on: a run that was killed continues to the same bytes, whatever the store
has learnt of prices since.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from frontload.eval.allocation.scores import known_metrics
from frontload.launch.store import Store
from frontload.launch.study.price import price_stages, read_measured
from frontload.launch.study.settle import settle
from frontload.recipes.allocation.graph import AllocationGraph
from frontload.recipes.allocation.lattice import Lattice, make_lattice, passes_of
from frontload.recipes.allocation.load import load_allocation
from frontload.recipes.allocation.schema import CPU_SECONDS, AllocationRecipe
from frontload.recipes.grammar.limits import require_choice
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.placement import Placement, Placements
from frontload.recipes.runs import allocation as asking
from frontload.recipes.stage import Stage, canonical
from frontload.recipes.stage_file import read_as

SCANNED_SEEDS = 20  # of which a store's earlier cells are looked up
BENCH = "bench."  # metrics named by the study's own items
HELDOUT = "heldout."


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """A question looked up in a store."""

    name: str
    loaded: Loaded[AllocationRecipe]
    lattice: Lattice
    graph: AllocationGraph
    question: asking.AllocationQuestion
    prior: tuple[tuple[int, int], ...]  # cells that were there when the question was first asked
    num_unpaired: int  # of the store's cells, alone at their seed and left out
    data_price: float  # of what all seeds share and the store lacks

    @property
    def recipe(self) -> AllocationRecipe:
        return self.loaded.value

    @property
    def placements(self) -> Placements:
        """Where the stages run: as the study says."""
        return placements_of(self.recipe)

    @property
    def are_jobs(self) -> bool:
        """The stages of its study run as jobs of a cluster; decisions run where the loop does."""
        return self.placements.default.slurm is not None

    def asked_cell(self, candidate: int, seed: int) -> asking.AskedCell:
        """A cell with the words that it is called by."""
        name = self.question.candidates[candidate].name
        return asking.AskedCell(candidate=candidate, seed=seed, role=f"{name}, seed {seed}")

    def inputs(self, cells: Sequence[asking.AskedCell]) -> dict[str, Stage]:
        """Role -> evaluation."""
        return {one.role: self.graph.evaluation(one.candidate, one.seed) for one in cells}


def look_up(name: str, store: Store, *, overrides: Sequence[str] = ()) -> Allocation:
    """An allocation by name or path, its question as this store was first asked it.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    loaded = load_allocation(name, overrides=overrides)
    _check_metrics(loaded)
    study = settle(loaded.section("study", loaded.value.study)).value
    loaded = replace(loaded, value=replace(loaded.value, study=study))
    recipe = loaded.value
    lattice = make_lattice(recipe)
    graph = AllocationGraph(recipe, lattice)
    label = Path(name).stem
    asked = digest_of(recipe)
    first = first_decision(store, asked)
    cells, unpaired = _paired(graph, _built_cells(graph, store))
    if first is None:
        question = _question(recipe, graph, store=store, asked=asked)
    else:
        question, cells = first.question, [(one.candidate, one.seed) for one in first.cells]
    return Allocation(
        name=label,
        loaded=loaded,
        lattice=lattice,
        graph=graph,
        question=question,
        prior=tuple(cells),
        num_unpaired=unpaired if first is None else 0,
        data_price=_data_price(recipe, graph, store=store),
    )


def digest_of(recipe: AllocationRecipe) -> str:
    """The question without where it runs and what is read beside it, in 12 digits."""
    study = replace(recipe.study, placement=Placement(), placements={}, expect={})
    asked = replace(recipe, study=study, readings=None)
    text = json.dumps(canonical(asked), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def first_decision(store: Store, asked: str) -> asking.Decide | None:
    """The first decision of a question in this store; None before it is made."""
    for _, manifest in store.manifests("decide"):
        recipe = manifest["recipe"]
        if recipe["round"] == 0 and recipe["question"]["asked"] == asked:
            return read_as(asking.Decide, recipe)
    return None


def placements_of(recipe: AllocationRecipe) -> Placements:
    """Where the stages of an allocation's study run."""
    return Placements(default=recipe.study.placement, by_kind=recipe.study.placements)


def _question(
    recipe: AllocationRecipe, graph: AllocationGraph, *, store: Store, asked: str
) -> asking.AllocationQuestion:
    names = list(recipe.objectives)
    names.sort(key=lambda name: name != recipe.decides)
    design, money = recipe.design, recipe.money
    return asking.AllocationQuestion(
        asked=asked,
        budget_tokens=recipe.budget.tokens,
        budget_unit=recipe.budget.unit,
        budget_fixed=recipe.budget.fixed,
        money_unit=money.unit,
        factors=graph.lattice.factors,
        candidates=_candidates(recipe, graph, store=store),
        competitors=tuple(
            asking.Competitor(name=name, candidate=place)
            for name, place in graph.lattice.competitors.items()
        ),
        objectives=tuple(
            asking.Objective(
                name=name,
                weights=dict(recipe.objectives[name].weights),
                epsilon=recipe.objectives[name].epsilon,
            )
            for name in names
        ),
        first_arms=design.first_arms,
        first_seeds=design.first_seeds,
        explore_price=money.explore,
        validate_price=money.validate,
        half_width=design.half_width,
        least_seeds=design.least_seeds,
        made=_made(graph, store),
    )


def _candidates(
    recipe: AllocationRecipe, graph: AllocationGraph, *, store: Store
) -> tuple[asking.Candidate, ...]:
    parts = [list(graph.parts(place, 1)) for place in range(len(graph.lattice.points))]
    stages = list({one.stage.key: one.stage for each in parts for one in each}.values())
    prices = _prices(recipe, stages, store=store)
    return tuple(
        asking.Candidate(
            name=point.name,
            arm=arm,
            levels=point.levels,
            sets=point.sets,
            pretraining_tokens=point.pretraining_tokens,
            sft_tokens=point.sft_tokens,
            parts={one.part: prices[one.stage.key] for one in each},
            epochs=passes_of(recipe, point),
        )
        for point, arm, each in zip(graph.lattice.points, graph.arms, parts, strict=True)
    )


def _prices(
    recipe: AllocationRecipe, stages: Sequence[Stage], *, store: Store
) -> Mapping[str, float]:
    """Key -> price in the money's unit, to four digits after the point."""
    placements = placements_of(recipe)
    prices = price_stages(stages, read_measured(store, placements), placements=placements)
    is_cpu = recipe.money.unit == CPU_SECONDS
    return {key: round(one.seconds if is_cpu else one.gpu_hours, 4) for key, one in prices.items()}


def price_parts(
    recipe: AllocationRecipe, graph: AllocationGraph, *, store: Store
) -> dict[str, float]:
    """Every part that the points of a graph need at a seed -> its price."""
    places = range(len(graph.lattice.points))
    parts = {one.part: one.stage for place in places for one in graph.parts(place, 1)}
    prices = _prices(recipe, list(parts.values()), store=store)
    return {part: prices[stage.key] for part, stage in parts.items()}


def _data_price(recipe: AllocationRecipe, graph: AllocationGraph, *, store: Store) -> float:
    data = {one.key: one for one in graph.data_stages()}
    built = store.find_all(data.values())
    missing = [one for key, one in data.items() if key not in built]
    return sum(_prices(recipe, missing, store=store).values())


def _made(graph: AllocationGraph, store: Store) -> dict[str, tuple[str, ...]]:
    """Seed -> the parts that the store has."""
    found: dict[str, tuple[str, ...]] = {}
    for seed in range(1, SCANNED_SEEDS + 1):
        stages: dict[str, Stage] = {}
        for place in range(len(graph.lattice.points)):
            stages |= {one.part: one.stage for one in graph.parts(place, seed)}
        built = store.find_all(stages.values())
        names = sorted(part for part, stage in stages.items() if stage.key in built)
        if names:
            found[str(seed)] = tuple(names)
    return found


def _built_cells(graph: AllocationGraph, store: Store) -> list[tuple[int, int]]:
    """Cells whose scores the store has, whoever asked for them."""
    cells = {
        graph.evaluation(place, seed).key: (place, seed)
        for seed in range(1, SCANNED_SEEDS + 1)
        for place in range(len(graph.lattice.points))
    }
    stages = [graph.evaluation(place, seed) for place, seed in cells.values()]
    built = store.find_all(stages)
    return [cell for key, cell in cells.items() if key in built]


def _paired(
    graph: AllocationGraph, cells: Sequence[tuple[int, int]]
) -> tuple[list[tuple[int, int]], int]:
    """Cells of seeds that have two arms or more, and how many others there are."""
    arms: dict[int, set[str]] = {}
    for place, seed in cells:
        arms.setdefault(seed, set()).add(graph.arms[place])
    kept = [(place, seed) for place, seed in cells if len(arms[seed]) > 1]
    return kept, len(cells) - len(kept)


def _check_metrics(loaded: Loaded[AllocationRecipe]) -> None:
    """Every metric of an objective is one that the suite has."""
    for name, knobs in loaded.value.objectives.items():
        for metric in knobs.weights:
            if metric.startswith(BENCH):  # of the study's own items, which a plan does not open
                continue
            is_domain = metric.startswith(HELDOUT) and metric.count(".") == 2
            if not is_domain:
                path = f"objectives.{name}.weights.{metric}"
                require_choice(loaded, path, value=metric, names=known_metrics())
