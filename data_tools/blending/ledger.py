"""The plan of a phase: its sources, its ledger of tokens, and what earlier phases have read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from frontload.data_tools.blending.stream import Cut
from frontload.data_tools.blending.windows import Reading
from frontload.recipes.schema import Blend, Window

PLAN_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """What one window reads, in tokens.

    `tokens_by_epoch` is keyed by epoch of the stream. `unique_tokens` are distinct tokens read
    in this window, `repeated_tokens` those at stream positions behind the first pass.
    """

    source: str
    tokens: int
    share: str  # of the phase, an exact fraction
    document_tokens: int
    start_tokens: int
    end_tokens: int
    unique_tokens: int
    repeated_tokens: int
    tokens_by_epoch: dict[str, int]


def account(window: Window, cut: Cut, *, one_epoch: int, phase_tokens: int) -> LedgerRow:
    """The ledger of one window."""
    end = window.start_tokens + window.tokens
    by_epoch = {
        str(epoch): min(end, (epoch + 1) * one_epoch) - max(window.start_tokens, epoch * one_epoch)
        for epoch in range(cut.first_epoch, cut.last_epoch + 1)
    }
    return LedgerRow(
        source=window.source,
        tokens=window.tokens,
        share=str(Fraction(window.tokens, phase_tokens)),
        document_tokens=one_epoch,
        start_tokens=window.start_tokens,
        end_tokens=end,
        unique_tokens=cut.unique_tokens,
        repeated_tokens=max(0, end - max(window.start_tokens, one_epoch)),
        tokens_by_epoch=by_epoch,
    )


def plan_json(
    recipe: Blend,
    *,
    readings: Sequence[Reading],
    earlier: Sequence[Reading],
    cuts: Mapping[str, Cut],
) -> dict[str, Any]:
    """The plan of a phase: its sources, its ledger, and every reading of earlier phases."""
    phase_tokens = sum(window.tokens for window in recipe.windows)
    sources = []
    ledger = {}
    for window, reading in zip(recipe.windows, readings, strict=True):
        cut = cuts[window.source]
        row = account(window, cut, one_epoch=reading.document_tokens, phase_tokens=phase_tokens)
        ledger[window.source] = asdict(row)
        sources.append(
            {
                "name": window.source,
                "num_samples": window.tokens // recipe.sequence_tokens,
                "start_tokens": window.start_tokens,
                "tokens": window.tokens,
                "document_tokens": reading.document_tokens,
                "num_documents": reading.num_documents,
                "index_sha256": reading.index_sha256,
                "stream_start": cut.stream_start,
                "first_epoch": cut.first_epoch,
                "last_epoch": cut.last_epoch,
                "epochs": str(Fraction(window.tokens, reading.document_tokens)),
                "repeats": row.repeated_tokens,
                "max_epochs": recipe.max_epochs[window.source],
            }
        )
    return {
        "format": PLAN_FORMAT,
        "phase": recipe.phase,
        "seed": recipe.seed,
        "sequence_tokens": recipe.sequence_tokens,
        "tokens": phase_tokens,
        "num_samples": phase_tokens // recipe.sequence_tokens,
        "sources": sources,
        "ledger": ledger,
        "earlier": [asdict(reading) for reading in earlier],
    }


def plan_readings(plan: Mapping[str, Any]) -> list[Reading]:
    """Every window read up to and including the phase of a plan, oldest first."""
    own = [
        Reading(
            phase=plan["phase"],
            source=source["name"],
            start_tokens=source["start_tokens"],
            tokens=source["tokens"],
            document_tokens=source["document_tokens"],
            num_documents=source["num_documents"],
            seed=plan["seed"],
            index_sha256=source["index_sha256"],
        )
        for source in plan["sources"]
    ]
    return [Reading(**past) for past in plan["earlier"]] + own
