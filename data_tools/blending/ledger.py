"""The plan of a phase: its sources, its ledger of tokens, and what earlier phases have read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from frontload.data_tools.blending.stream import Slice
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


def account(window: Window, cut: Slice, *, one_epoch: int, phase_tokens: int) -> LedgerRow:
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
        unique_tokens=_unique_tokens(window, cut, one_epoch=one_epoch),
        repeated_tokens=max(0, end - max(window.start_tokens, one_epoch)),
        tokens_by_epoch=by_epoch,
    )


def _unique_tokens(window: Window, cut: Slice, *, one_epoch: int) -> int:
    """Distinct tokens of a window: all, when it holds a whole epoch; else by documents.

    Without a whole epoch a window touches at most two: the tail of one and the head of the next.
    In each, a document is read in one piece; two pieces of a document overlap or they do not.
    """
    if cut.first_epoch == cut.last_epoch:
        return window.tokens
    boundary = (cut.first_epoch + 1) * one_epoch
    end = window.start_tokens + window.tokens
    if cut.last_epoch - cut.first_epoch > 1 or window.start_tokens == boundary - one_epoch:
        return one_epoch
    if end == boundary + one_epoch:
        return one_epoch
    starts = cut.offsets[:-1] + cut.stream_start
    is_tail = starts < boundary
    tail = _pieces(cut, is_tail, low=window.start_tokens, high=boundary)
    head = _pieces(cut, ~is_tail, low=boundary, high=end)
    _, at_tail, at_head = np.intersect1d(
        tail[:, 0], head[:, 0], assume_unique=True, return_indices=True
    )
    begin = np.maximum(tail[at_tail, 1], head[at_head, 1])
    finish = np.minimum(tail[at_tail, 2], head[at_head, 2])
    return window.tokens - int(np.maximum(finish - begin, 0).sum())


def _pieces(cut: Slice, chosen: np.ndarray, *, low: int, high: int) -> np.ndarray:
    """(document, first token, end token) of the part of each chosen document in [low, high)."""
    starts = cut.offsets[:-1][chosen] + cut.stream_start
    ends = cut.offsets[1:][chosen] + cut.stream_start
    begin, finish = np.maximum(starts, low) - starts, np.minimum(ends, high) - starts
    pieces = np.stack([cut.order[chosen].astype(np.int64), begin, finish], axis=1)
    return pieces[finish > begin]


def plan_json(
    recipe: Blend,
    *,
    readings: Sequence[Reading],
    earlier: Sequence[Reading],
    slices: Mapping[str, Slice],
) -> dict[str, Any]:
    """The plan of a phase: its sources, its ledger, and every reading of earlier phases."""
    phase_tokens = sum(window.tokens for window in recipe.windows)
    sources = []
    ledger = {}
    for window, reading in zip(recipe.windows, readings, strict=True):
        cut = slices[window.source]
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
