"""The ledger of a study: in which order its cells stand."""

from frontload.eval.tables.ledger import ledger
from frontload.recipes.schema import CellReading, Tabulate

CELLS = ("pt:SHQ>sft:SHQ", "pt:SHQ", "pt:LDQ>sft:SHQ>rl:CrossThink", "pt:LDQ")


def recipe_of(*cells: str) -> Tabulate:
    reading = CellReading(blends=(), pack="", pretraining_flops=1.0, sft_flops_per_token=0.0)
    return Tabulate(cells={}, min_effect=0.5, ledger=dict.fromkeys(cells, reading))


def test_the_order_of_the_recipe_decides_no_byte() -> None:
    """A job reads its recipe from sorted JSON, and ends with the bytes of a worker."""
    found = [entry.cell for entry in ledger(recipe_of(*CELLS), {})]
    assert found == ["pt:LDQ", "pt:SHQ", "pt:SHQ>sft:SHQ", "pt:LDQ>sft:SHQ>rl:CrossThink"]
    assert [entry.cell for entry in ledger(recipe_of(*reversed(CELLS)), {})] == found
