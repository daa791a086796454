"""How right each cell is in each benchmark, above what the best constant answer scores there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frontload.eval.report.item_pages import AskedQuestion
from frontload.eval.report.seed_values import seed_values, seeds_text
from frontload.eval.suites import CATEGORIES, CELL_PREFIX
from frontload.eval.tables.build import cell_order, label_of

BENCHMARK = "bench."
TITLES = {"base": "Pretrained cells", "sft": "Fine-tuned cells"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One benchmark."""

    benchmark: str
    category: str
    family: str  # "" where it has none or several
    inside_shq: bool | None
    floor: float | None  # percent; None where none is known


@dataclass(frozen=True, kw_only=True)
class Square:
    """One cell on one benchmark. `weight` is 0 at the floor and 1 at 100%."""

    value: float
    weight: float
    tip: str


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """The cells of one suite by its benchmarks."""

    title: str
    columns: tuple[Column, ...]
    spans: tuple[tuple[str, int], ...]  # category and how many columns it has
    rows: tuple[tuple[str, tuple[Square | None, ...]], ...]  # a cell, and a square a column

    @property
    def has_floors(self) -> bool:
        """Whether any floor is known."""
        return any(column.floor is not None for column in self.columns)


def heat_maps(
    cells: Mapping[str, Any],
    questions: Iterable[AskedQuestion],
    *,
    floors: Mapping[str, Mapping[str, float]],
) -> list[HeatMap]:
    """One map a suite that this study asked; `floors` are those of cells.json."""
    asked: dict[str, list[AskedQuestion]] = {}
    for question in questions:
        asked.setdefault(question.benchmark, []).append(question)
    made = []
    for suite, prefix in CELL_PREFIX.items():
        mine = sorted((c for c in cells if f"{prefix}.avg" in cells[c]), key=cell_order)
        measured = {name for cell in mine for name in cells[cell] if name.startswith(BENCHMARK)}
        names = {name.removeprefix(BENCHMARK) for name in measured} & set(asked)
        if not names:
            continue
        order, guessed = CATEGORIES[suite], floors.get(suite, {})
        columns = sorted(
            (_column(name, asked[name], guessed.get(BENCHMARK + name)) for name in names),
            key=lambda c: (order.index(c.category) if c.category in order else 99, c.benchmark),
        )
        made.append(
            HeatMap(
                title=TITLES[suite],
                columns=tuple(columns),
                spans=_spans(columns),
                rows=tuple((cell, _squares(cell, cells[cell], columns)) for cell in mine),
            )
        )
    return made


def _column(name: str, questions: Sequence[AskedQuestion], floor: float | None) -> Column:
    families = {question.family for question in questions}
    inside = {question.inside_shq for question in questions}
    return Column(
        benchmark=name,
        category=questions[0].category,
        family=families.pop() if len(families) == 1 else "",
        inside_shq=inside.pop() if len(inside) == 1 else None,
        floor=floor,
    )


def _spans(columns: Sequence[Column]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for column in columns:
        counts[column.category] = counts.get(column.category, 0) + 1
    return tuple(counts.items())


def _squares(
    cell: str, metrics: Mapping[str, Any], columns: Sequence[Column]
) -> tuple[Square | None, ...]:
    return tuple(
        _square(cell, metrics[BENCHMARK + column.benchmark], column)
        if BENCHMARK + column.benchmark in metrics
        else None
        for column in columns
    )


def _square(cell: str, metric: Mapping[str, Any], column: Column) -> Square:
    floor = column.floor or 0.0
    seeds = seed_values(metric)
    lines = [
        f"{label_of(cell)}, {column.benchmark}",
        f"{metric['value']:.1f} +- {metric['se']:.1f}%, {metric['num_items']} questions",
    ]
    if len(seeds) > 1:
        lines.append(seeds_text(seeds, decimals=1))
    if column.floor is not None:
        lines.append(f"the best constant answer: {column.floor:.1f}%")
    room = 100.0 - floor
    return Square(
        value=metric["value"],
        weight=min(1.0, max(0.0, (metric["value"] - floor) / room)) if room > 0 else 0.0,
        tip="\n".join(lines),
    )
