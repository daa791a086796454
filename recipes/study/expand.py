"""Study recipe -> graph of stages: a pure function. No disk, no clock."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from frontload.recipes import schema
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import (
    Loaded,
    load_recipe,
    recipe_path,
)
from frontload.recipes.machines.placement import Placements
from frontload.recipes.stage import Stage
from frontload.recipes.study.checks import MOST_SEEDS, check_study
from frontload.recipes.study.data import study_data
from frontload.recipes.study.graph import StudyGraph
from frontload.recipes.study.points import Point, cell_of, study_points
from frontload.recipes.study.reading import reading_of, role_of
from frontload.recipes.study.schema import StudyRecipe


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study and the stages that make it, inputs before what needs them."""

    name: str
    recipe: StudyRecipe
    points: tuple[Point, ...]
    stages: tuple[Stage, ...]
    tabulate: Stage

    @property
    def placements(self) -> Placements:
        """Where the stages of each kind run."""
        return Placements(default=self.recipe.placement, by_kind=self.recipe.placements)


def load_study(
    study: str,
    *,
    overrides: Sequence[str] = (),
    settle: Callable[[Loaded[StudyRecipe]], Loaded[StudyRecipe]] | None = None,
) -> Study:
    """Loads a study by name (recipes/studies) or path and expands it to stages.

    `settle` gets the checked recipe: it may refuse it, or fill in what only the disk knows (the
    digest of a user's files).

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    path = recipe_path(study, folder="studies", what="study")
    loaded = load_recipe(path, StudyRecipe, overrides=overrides)
    check_study(loaded)
    return expand_study(path.stem, settle(loaded) if settle else loaded)


def expand_study(name: str, loaded: Loaded[StudyRecipe]) -> Study:
    """The graph of stages of a checked recipe, one stage a key."""
    recipe = loaded.value
    points = study_points(recipe)
    study = expand_points(name, recipe, points)
    _check_expected(study, loaded)
    return study


def expand_points(name: str, recipe: StudyRecipe, points: Sequence[Point]) -> Study:
    """The graph of some points of a checked recipe, with the tables of their cells."""
    graph = StudyGraph(recipe, study_data(recipe), points=points)
    cells: dict[str, list[str]] = {}
    inputs: dict[str, Stage] = {}
    ledger: dict[str, schema.CellReading] = {}
    proxies: dict[str, list[str]] = {}
    for point in points:
        cell, found = cell_of(point, recipe.sft), graph.evaluations(point)
        cells.setdefault(cell, []).extend(found)
        inputs |= found
        proxy = graph.proxy(point)
        inputs |= proxy
        if proxy:
            proxies.setdefault(cell, []).extend(proxy)
        if cell not in ledger:
            reading = reading_of(graph.model(point))
            inputs |= {role_of(stage): stage for stage in reading.stages}
            ledger[cell] = reading.of_cell()
    set_losses: dict[str, dict[str, tuple[str, ...]]] = {}
    for (cell, mix), by_role in graph.set_losses(points).items():
        set_losses.setdefault(cell, {})[mix] = tuple(by_role)
        inputs |= by_role
    tabulate = Stage(
        kind="tabulate",
        label=name,
        recipe=schema.Tabulate(
            cells={cell: tuple(roles) for cell, roles in cells.items()},
            min_effect=recipe.evaluation.min_effect,
            seed_spreads=recipe.evaluation.seed_spreads,
            ledger=ledger,
            set_losses=set_losses,
            proxies={cell: tuple(roles) for cell, roles in proxies.items()},
            draws_data_per_seed=recipe.draws_data_per_seed,
        ),
        inputs=inputs,
    )
    return Study(
        name=name,
        recipe=recipe,
        points=tuple(points),
        stages=in_order([tabulate]),
        tabulate=tabulate,
    )


def seeds_override(text: str) -> str:
    """`--seeds` as an override: `3` is seeds 1 to 3, `4,5,6` are these.

    Raises: RecipeError for another text.
    """
    words = text.replace(" ", "").strip(",").split(",")
    if not all(word.isascii() and word.isdigit() for word in words):
        raise RecipeError(
            f"--seeds {text}",
            found="no number, and no list of numbers",
            rule="seeds are counted, or listed",
            do="write 3 for the seeds 1 to 3, or 4,5,6 for these",
        )
    numbers = [int(word) for word in words]
    if "," not in text:
        numbers = list(range(1, min(numbers[0], MOST_SEEDS + 1) + 1))
    return f"seeds=[{', '.join(map(str, numbers))}]"


def with_seeds(study: Study, seeds: Sequence[int]) -> Study:
    """The same study at other seeds."""
    recipe = replace(study.recipe, seeds=tuple(seeds))
    return expand_points(study.name, recipe, study_points(recipe))


def in_order(last: Iterable[Stage]) -> tuple[Stage, ...]:
    """Stages and everything below them, one stage a key, inputs first."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key in found:
            return
        for below in stage.inputs.values():
            visit(below)
        found[stage.key] = stage

    for stage in last:
        visit(stage)
    return tuple(found.values())


def _check_expected(study: Study, loaded: Loaded[StudyRecipe]) -> None:
    keys = {f"{stage.kind}/{stage.label}": stage.key for stage in study.stages}
    for label, key in study.recipe.expect.items():
        if keys.get(label) != key:
            raise loaded.refuse(
                f"expect.{label}",
                found=f"expected {key}, the recipe gives {keys.get(label, 'no such stage')}",
                rule="a pinned key may not move",
                do="undo the change that moved it (`frontload plan` names it) or pin the new key",
            )
