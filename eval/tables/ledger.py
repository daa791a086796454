"""The ledger of a study: what each cell has read, how often, and what its training cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.packing.account import PackReading, account_reading
from frontload.eval.tables.build import label_of
from frontload.recipes.artifact import Inputs
from frontload.recipes.schema import CellReading, Tabulate

BASE = "base"


@dataclass(frozen=True, kw_only=True)
class SourceReading:
    """What pretraining read of one reasoning set."""

    source: str
    tokens: int
    distinct_tokens: int
    epochs: float


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One cell, of its first seed. Tokens are real ones, and so are those that FLOPs count."""

    cell: str
    label: str
    pretraining_tokens: int
    reasoning: tuple[SourceReading, ...]
    sft: PackReading | None
    training_flops: float
    sparse_flops: float = 0.0  # without weights that stay 0; 0.0 where there are none

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of all reasoning sets, read in pretraining."""
        return sum(one.tokens for one in self.reasoning)


def ledger(recipe: Tabulate, inputs: Inputs) -> list[LedgerEntry]:
    """The ledger of every cell whose stages the recipe names: pretrained ones first, by name.

    A key does not see the order of a mapping, so the recipe's decides no byte.
    """
    packs: dict[str, PackReading] = {}
    found = []
    for cell, reading in sorted(recipe.ledger.items(), key=lambda one: (one[0].count(">"), one[0])):
        if reading.pack and reading.pack not in packs:
            packs[reading.pack] = account_reading(inputs[reading.pack])
        found.append(_entry(cell, reading, inputs=inputs, sft=packs.get(reading.pack)))
    return found


def ledger_entry(row: Mapping[str, Any]) -> LedgerEntry:
    """An entry read back from tables.json."""
    reasoning = tuple(SourceReading(**one) for one in row["reasoning"])
    sft = PackReading(**row["sft"]) if row["sft"] else None
    return LedgerEntry(**{**row, "reasoning": reasoning, "sft": sft})


def _entry(
    cell: str, reading: CellReading, *, inputs: Inputs, sft: PackReading | None
) -> LedgerEntry:
    plans = [read_json(inputs[role] / "plan.json") for role in reading.blends]
    rows = [row for plan in plans for row in plan["ledger"].values()]
    sources = dict.fromkeys(row["source"] for row in rows if row["source"] != BASE)
    sft_flops = reading.sft_flops_per_token * (sft.tokens if sft is not None else 0)
    return LedgerEntry(
        cell=cell,
        label=label_of(cell),
        pretraining_tokens=sum(plan["tokens"] for plan in plans),
        reasoning=tuple(
            _source(name, [row for row in rows if row["source"] == name]) for name in sources
        ),
        sft=sft,
        training_flops=reading.pretraining_flops + sft_flops,
        sparse_flops=reading.sparse_flops + sft_flops if reading.sparse_flops else 0.0,
    )


def _source(name: str, rows: Sequence[Mapping[str, Any]]) -> SourceReading:
    """One set over all windows on it; windows of one stream share no token before its end."""
    tokens, one_epoch = sum(row["tokens"] for row in rows), rows[0]["document_tokens"]
    return SourceReading(
        source=name,
        tokens=tokens,
        distinct_tokens=min(sum(row["unique_tokens"] for row in rows), one_epoch),
        epochs=tokens / one_epoch,
    )
