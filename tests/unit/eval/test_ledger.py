"""The ledger of a study: in which order its cells stand, and what it says of masked weights."""

from frontload.eval.tables.ledger import ledger
from frontload.eval.tables.text import ledger_row
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


def test_operations_without_masked_weights_stand_in_brackets_where_there_are_some() -> None:
    readings = {
        "pt:LDQ": CellReading(blends=(), pack="", pretraining_flops=2e12, sft_flops_per_token=0.0),
        "pt:LDQ@sparse75": CellReading(
            blends=(),
            pack="",
            pretraining_flops=2e12,
            sft_flops_per_token=0.0,
            sparse_flops=1.25e12,
        ),
    }
    entries = ledger(Tabulate(cells={}, min_effect=0.5, ledger=readings), {})
    assert [ledger_row(entry)[-1] for entry in entries] == ["2e+12", "2e+12 (1.25e+12)"]
