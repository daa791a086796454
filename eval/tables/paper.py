"""The paper's printed tables and claims, read from the data files of the recipes room."""

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any


@lru_cache(maxsize=1)
def paper_tables() -> dict[str, Any]:
    """Tables as printed, with captions, averaging rules and sources."""
    return _load("paper_tables.json")


@lru_cache(maxsize=1)
def paper_claims() -> dict[str, Any]:
    """Claims and hypotheses as expressions over cells."""
    return _load("claims.json")


@lru_cache(maxsize=1)
def paper_controls() -> list[dict[str, Any]]:
    """The controls that the paper lacks, each with the hypotheses that it bears on."""
    return _load("controls.json")["controls"]


def printed(cell: str, metric: str) -> float | None:
    """What the paper prints for a metric of a cell, in percent; None when it prints nothing."""
    if metric == "flat9.avg":
        return _flat_mean_of_nine(cell)
    found = paper_tables()["cells"].get(cell, {}).get(metric)
    return None if found is None else float(found["value"])


def _flat_mean_of_nine(cell: str) -> float | None:
    """`Overall` of arXiv Table 8, which the cells of the data file do not repeat."""
    table = paper_tables()["tables"]["arxiv_T8"]
    place = table["columns"].index("Overall")
    found = [row["values"][place] for row in table["rows"] if row["canonical_cell"] == cell]
    return float(found[0]) if found else None


def _load(name: str) -> dict[str, Any]:
    return json.loads((files("frontload.recipes") / "paper" / name).read_text(encoding="utf-8"))
