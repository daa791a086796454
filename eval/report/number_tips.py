"""What a reader is told of one number of a table: its error, n, seeds, unit, cell and stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frontload.eval.report.origins import Place, ReportOrigin, places
from frontload.eval.report.seed_values import seeds_behind, seeds_text
from frontload.eval.tables.build import label_of

PERCENT, POINTS, NATS = "percent", "points", "nats a token"
CHANGE = "change"  # label of a row of differences


def unit_of(row: Mapping[str, Any], column: str) -> str:
    """The unit of a number of tables.json."""
    if column.startswith("loss"):
        return NATS
    return POINTS if row["label"] == CHANGE else PERCENT


@dataclass(frozen=True, kw_only=True)
class NumberTips:
    """Looks numbers of tables.json up in cells.json and in the stages of the study."""

    cells: Mapping[str, Mapping[str, Any]]  # of cells.json
    places: Mapping[str, Place]  # of every cell and group of cells that a table names
    labels: Mapping[str, str]  # label of a cell -> the cell

    @classmethod
    def of(
        cls,
        tables: Mapping[str, Any],
        cells: Mapping[str, Any],
        *,
        origins: Mapping[str, Sequence[ReportOrigin]],
        names: Mapping[str, str],
    ) -> "NumberTips":
        """Reads what the tables name; `names` are those of `origins.slugs`."""
        rows = [row["cell"] for table in tables["tables"] for row in table["rows"]]
        asked = dict.fromkeys([*origins, *rows])
        return cls(
            cells=cells,
            places=places(origins, asked, names=names),
            labels={label_of(cell): cell for cell in cells},
        )

    def cell(self, row: Mapping[str, Any], column: str) -> str:
        """The cell of a number: the row's own, or that of row and column in a grid; "" without."""
        return row["cell"] or self.labels.get(f"{row['label']} + {column}", "")

    def place(self, row: Mapping[str, Any], column: str = "") -> Place | None:
        """Where the page tells the stages behind a row, or behind a number of a grid."""
        return self.places.get(self.cell(row, column))

    def tip(self, table: Mapping[str, Any], row: Mapping[str, Any], place: int) -> str:
        """The hover text of the number in column `place`; "" where there is no number."""
        number, column = row["ours"][place], table["columns"][place]
        if number is None:
            return ""
        cell = self.cell(row, column)
        error = "" if number["se"] is None else f" +- {number['se']:.3f}"
        seeds = "seed" if number["num_seeds"] == 1 else "seeds"
        asked = f"{number['num_seeds']} {seeds} x " if number["num_seeds"] else ""
        lines = [
            f"{label_of(cell) if cell else row['label']}, {column}",
            f"{number['value']:.3f}{error} {unit_of(row, column)}, "
            f"{asked}{number['num_items']} questions",
        ]
        found = seeds_behind(number, self.cells.get(cell, {}))
        if len(found) > 1:
            lines.append(seeds_text(found, decimals=3))
        if not row["cell"] and cell in self.places:
            lines.append(self.places[cell].tip)
        return "\n".join(lines)
