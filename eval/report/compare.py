"""Two studies beside each other: differences of cells with errors, verdicts, recipes. No files.

Differs from the differences inside a study, which are paired by question and seed: two studies
share neither by any promise, so their errors add as those of independent numbers do.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frontload.eval.report.number_tips import NATS, POINTS
from frontload.eval.tables.build import cell_order, label_of
from frontload.recipes.errors import RecipeError

ERRORS_TEXT = (
    "Difference: the second study minus the first. Its error is the root of the sum of both "
    "squares, as for independent studies. Studies that share questions or weights differ by less "
    "than that says."
)
RULES_TEXT = (
    "The verdicts were reached by different rules (forms {} and {} of verdicts.json): write both "
    "reports again before they are compared."
)
ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One study as it is read for a comparison."""

    name: str
    key: str  # of its tabulate stage; "" where none is known
    cells: Mapping[str, Mapping[str, Any]]  # of cells.json
    verdicts: Sequence[Mapping[str, Any]]  # hypotheses of verdicts.json
    verdicts_format: int  # of verdicts.json
    evaluations: Mapping[str, Mapping[int, str]]  # cell -> seed -> key; {} if not known
    recipe: Mapping[str, Any] | None  # None where it is not known


@dataclass(frozen=True, kw_only=True)
class MeasuredCell:
    """A metric of a cell in one study."""

    value: float
    se: float
    num_seeds: int
    num_items: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric of a cell in both studies. `shared`: seeds whose evaluation is one stage of both."""

    cell: str
    metric: str
    unit: str
    first: MeasuredCell
    second: MeasuredCell
    value: float
    se: float
    shared: tuple[int, ...]

    @property
    def is_same(self) -> bool:
        """Whether both numbers are of the very same evaluations."""
        return len(self.shared) == self.first.num_seeds == self.second.num_seeds


@dataclass(frozen=True, kw_only=True)
class VerdictPair:
    """One hypothesis in both studies; None where a study does not have it."""

    id: str
    name: str
    first: str | None
    first_detail: str
    second: str | None
    second_detail: str


@dataclass(frozen=True, kw_only=True)
class FieldPair:
    """One field that the recipes have not alike."""

    field: str
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class StudyComparison:
    """All that is told of two studies."""

    names: tuple[str, str]
    keys: tuple[str, str]
    differences: tuple[Difference, ...]
    only_first: tuple[str, ...]  # cells
    only_second: tuple[str, ...]
    verdicts: tuple[VerdictPair, ...]
    rules: str  # "", or that the verdicts are of different rules
    fields: tuple[FieldPair, ...] | None  # None where a recipe is not known
    without_recipe: tuple[str, ...]  # the studies whose recipe is not known

    def of_metric(self, *metrics: str) -> list[Difference]:
        """The differences of these metrics, in the order of the cells."""
        return [one for one in self.differences if one.metric in metrics]

    def to_json(self) -> dict[str, Any]:
        """The form of compare.json."""
        return {"format": 1, "errors": ERRORS_TEXT, **asdict(self)}


def compare_studies(first: Side, second: Side) -> StudyComparison:
    """Compares every metric of every cell that both studies have.

    Raises: RecipeError where both are one study, or have no metric of a cell in common.
    """
    asked = f"compare {first.name} {second.name}"
    if first.key and first.key == second.key:
        raise RecipeError(
            asked,
            found=f"both are tabulate {first.key}",
            rule="a comparison has two studies",
            do="name another; '\"STUDY rl=null\"' in quotes is STUDY with an override",
        )
    differences = tuple(_differences(first, second))
    if not differences:
        raise RecipeError(
            asked,
            found=f"no cell in common: {_listed(first.cells)} and {_listed(second.cells)}",
            rule="studies are compared cell by cell",
            do="name two studies that share an arm",
        )
    formats = first.verdicts_format, second.verdicts_format
    unknown = tuple(side.name for side in (first, second) if side.recipe is None)
    return StudyComparison(
        names=(first.name, second.name),
        keys=(first.key, second.key),
        differences=differences,
        only_first=_only(first, second),
        only_second=_only(second, first),
        verdicts=tuple(_verdicts(first.verdicts, second.verdicts)),
        rules="" if len(set(formats)) == 1 else RULES_TEXT.format(*formats),
        fields=None if unknown else tuple(_fields(first.recipe, second.recipe)),
        without_recipe=unknown,
    )


def _differences(first: Side, second: Side) -> Iterator[Difference]:
    for cell in sorted(first.cells.keys() & second.cells.keys(), key=cell_order):
        ours, theirs = first.cells[cell], second.cells[cell]
        asked = second.evaluations.get(cell, {})
        shared = tuple(
            seed for seed, key in first.evaluations.get(cell, {}).items() if asked.get(seed) == key
        )
        for metric in ours:
            if metric not in theirs:
                continue
            pair = _measured(ours[metric]), _measured(theirs[metric])
            yield Difference(
                cell=cell,
                metric=metric,
                unit=NATS if metric.startswith("heldout.loss") else POINTS,
                first=pair[0],
                second=pair[1],
                value=pair[1].value - pair[0].value,
                se=math.hypot(pair[0].se, pair[1].se),
                shared=shared,
            )


def _measured(metric: Mapping[str, Any]) -> MeasuredCell:
    return MeasuredCell(
        value=metric["value"],
        se=metric["se"],
        num_seeds=len(metric["seeds"]),
        num_items=metric["num_items"],
    )


def _only(mine: Side, other: Side) -> tuple[str, ...]:
    return tuple(sorted(mine.cells.keys() - other.cells.keys(), key=cell_order))


def _verdicts(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> Iterator[VerdictPair]:
    ours, theirs = ({row["id"]: row for row in rows} for rows in (first, second))
    for name in dict.fromkeys([*ours, *theirs]):
        mine, other = ours.get(name), theirs.get(name)
        told = mine or other
        assert told is not None
        yield VerdictPair(
            id=name,
            name=told["name"],
            first=mine["verdict"] if mine else None,
            first_detail=mine["detail"] if mine else "",
            second=other["verdict"] if other else None,
            second_detail=other["detail"] if other else "",
        )


def _fields(first: Any, second: Any, at: str = "") -> Iterator[FieldPair]:
    """Fields that differ, by their path; where one side has no mapping or list, as a whole."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for name in dict.fromkeys([*first, *second]):
            below = f"{at}.{name}" if at else str(name)
            yield from _fields(first.get(name, ABSENT), second.get(name, ABSENT), below)
    elif _is_list_of_mappings(first) and _is_list_of_mappings(second):
        for place in range(max(len(first), len(second))):
            ours, theirs = (s[place] if place < len(s) else ABSENT for s in (first, second))
            yield from _fields(ours, theirs, f"{at}[{place}]")
    elif first != second:
        yield FieldPair(field=at, first=_plain(first), second=_plain(second))


def _is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, Mapping) for one in value)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_plain(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:_}" if isinstance(value, int) else str(value)


def _listed(cells: Mapping[str, Any]) -> str:
    names = [label_of(cell) for cell in sorted(cells, key=cell_order)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "no cell") + more
