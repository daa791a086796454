"""One phase of pretraining as exact token windows over seeded document streams. Integers only.

A source's stream is its documents in shuffled order, epoch after epoch, each epoch shuffled anew.
A phase reads the window [start, start + tokens) of it, in samples of `sequence_tokens` inputs; the
label of a sample's last token is the next sample's first token. The very last label of a window
may lie one token behind it. Phases of one study read one stream, so windows that do not overlap
read nothing twice before everything was read once.

Differs: Megatron re-reads 120B or 320B of 600B base tokens when it switches blends, since its order
depends on the documents and the seed only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from frontload.data_tools.document import nearest_name
from frontload.data_tools.seeds import permutation
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Blend, Window

PLAN_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A window that some phase reads of one source's stream: what later phases must not touch."""

    phase: str
    source: str
    start_tokens: int
    tokens: int
    document_tokens: int  # of one epoch
    num_documents: int
    seed: int
    index_sha256: str  # of the .idx, so that a stream is never continued with other documents

    @property
    def end_tokens(self) -> int:
        return self.start_tokens + self.tokens


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The documents that hold one window, in stream order, with their cumulative offsets."""

    order: np.ndarray  # int32 [n], document ids
    offsets: np.ndarray  # int64 [n + 1], tokens from the start of the first listed document
    stream_start: int  # place of the first listed document in the stream
    first_epoch: int
    last_epoch: int  # of the window's last input token


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


def epoch_order(source: str, epoch: int, *, seed: int, num_documents: int) -> np.ndarray:
    """Documents of one epoch of a source's stream, in order."""
    return permutation(num_documents, seed, "blend", source, epoch)


def check_blend(recipe: Blend, document_tokens: Mapping[str, int]) -> None:
    """Refuses windows that the sources cannot give.

    `document_tokens` has the tokens of one epoch of every source that is an input.

    Raises: RecipeError, with the number of tokens that would fit.
    """
    names = [window.source for window in recipe.windows]
    if not names or len(set(names)) != len(names):
        raise RecipeError(
            f"blend {recipe.phase}: windows",
            found=", ".join(names) or "no window",
            rule="a phase has one window for each of its sources",
            do="write one window a source",
        )
    for window in recipe.windows:
        where = f"blend {recipe.phase}: window of {window.source}"
        for known, what in ((document_tokens, "input"), (recipe.max_epochs, "max_epochs")):
            if window.source not in known:
                raise RecipeError(
                    where,
                    found=f"no {what} of that name{nearest_name(window.source, known)}",
                    rule="a window's source is an index input and has a max_epochs",
                    do=f"name one of {', '.join(sorted(known)) or 'none'}, or add {window.source}",
                )
        if window.tokens <= 0 or window.tokens % recipe.sequence_tokens or window.start_tokens < 0:
            down = window.tokens // recipe.sequence_tokens * recipe.sequence_tokens
            raise RecipeError(
                where,
                found=f"{window.tokens} tokens from {window.start_tokens}",
                rule=f"tokens are a positive multiple of sequence_tokens {recipe.sequence_tokens}",
                do=f"write {max(down, recipe.sequence_tokens)}",
            )
        _check_window_fits(recipe, window, where=where, one_epoch=document_tokens[window.source])


def _check_window_fits(recipe: Blend, window: Window, *, where: str, one_epoch: int) -> None:
    if one_epoch == 0:
        raise RecipeError(
            where,
            found="an index without tokens",
            rule="a source holds at least one token",
            do="name another source",
        )
    max_epochs = recipe.max_epochs[window.source]
    limit = int(Fraction(max_epochs) * one_epoch)
    if window.start_tokens + window.tokens <= limit:
        return
    free = max(limit - window.start_tokens, 0)
    fits = free // recipe.sequence_tokens * recipe.sequence_tokens
    needed = Fraction(window.start_tokens + window.tokens, one_epoch)
    raise RecipeError(
        where,
        found=f"{window.tokens} tokens from {window.start_tokens} end at epoch {float(needed):.3f}"
        f" of {one_epoch} tokens",
        rule=f"max_epochs.{window.source} is {max_epochs:g}: {limit} tokens, {fits} of them left",
        do=f"write at most {fits} tokens, raise max_epochs to {float(needed):.3f}, or make the"
        " source larger",
    )


def check_disjoint(readings: Sequence[Reading], earlier: Sequence[Reading]) -> None:
    """Refuses windows that an earlier phase already read, or that continue another stream.

    Raises: RecipeError with the first free start_tokens.
    """
    for reading in readings:
        same_source = [past for past in earlier if past.source == reading.source]
        free_from = max((past.end_tokens for past in same_source), default=0)
        for past in same_source:
            is_overlapping = (
                reading.start_tokens < past.end_tokens and past.start_tokens < reading.end_tokens
            )
            if is_overlapping:
                raise RecipeError(
                    f"blend {reading.phase}: window of {reading.source}",
                    found=f"it starts at {reading.start_tokens}; phase {past.phase} read"
                    f" {past.start_tokens} to {past.end_tokens}",
                    rule="phases read disjoint windows of a stream",
                    do=f"write start_tokens: {free_from}",
                )
            for what in ("seed", "num_documents", "document_tokens", "index_sha256"):
                was, now = getattr(past, what), getattr(reading, what)
                if was != now:
                    raise RecipeError(
                        f"blend {reading.phase}: stream of {reading.source}",
                        found=f"{what} {now}; phase {past.phase} had {was}",
                        rule="all phases read one stream of a source: same documents, same seed",
                        do="use the same index and seed in every phase",
                    )


def cut_slice(window: Window, document_lengths: np.ndarray, *, seed: int) -> Slice:
    """The documents of one window, from its first token's to its last label's."""
    one_epoch = int(document_lengths.sum())
    num_documents = len(document_lengths)
    label_position = window.start_tokens + window.tokens
    first_epoch = window.start_tokens // one_epoch
    orders: list[np.ndarray] = []
    stream_start = 0
    for epoch in range(first_epoch, label_position // one_epoch + 1):
        order = epoch_order(window.source, epoch, seed=seed, num_documents=num_documents)
        ends = np.cumsum(document_lengths[order])
        low, high = 0, num_documents
        if epoch == first_epoch:
            low = int(np.searchsorted(ends, window.start_tokens - epoch * one_epoch, side="right"))
            stream_start = epoch * one_epoch + (int(ends[low - 1]) if low else 0)
        if label_position < (epoch + 1) * one_epoch:
            at = label_position - epoch * one_epoch
            high = int(np.searchsorted(ends, at, side="right")) + 1
        orders.append(order[low:high].astype(np.int32))
    order = np.concatenate(orders)
    offsets = np.zeros(len(order) + 1, dtype=np.int64)
    np.cumsum(document_lengths[order], out=offsets[1:])
    return Slice(
        order=order,
        offsets=offsets,
        stream_start=stream_start,
        first_epoch=first_epoch,
        last_epoch=(label_position - 1) // one_epoch,
    )


def interleave(num_samples: Sequence[int], *, seed: int, phase: str) -> np.ndarray:
    """Source number of every sample of a phase, in training order, int64.

    Sample k of n of a source stands at (2k + 1) / 2n of the phase, so after m samples a source has
    had its exact share of m to within (sources + 1) / 2 samples. Samples that stand at the same
    place follow a seeded order of the sources.
    """
    sources = np.repeat(np.arange(len(num_samples), dtype=np.int64), num_samples)
    places = np.concatenate([(2 * np.arange(n) + 1) / (2 * n) for n in num_samples])
    rank = np.argsort(permutation(len(num_samples), seed, "interleave", phase))
    return sources[np.lexsort((rank[sources], places))]


def order_samples(recipe: Blend, slices: Mapping[str, Slice]) -> np.ndarray:
    """The phase's samples in training order.

    Shapes: int64 [num_samples, 2]: source number, place of the first token relative to the start
            of the first document that the source's slice lists.
    """
    counts = [window.tokens // recipe.sequence_tokens for window in recipe.windows]
    sources = interleave(counts, seed=recipe.seed, phase=recipe.phase)
    samples = np.empty((len(sources), 2), dtype=np.int64)
    samples[:, 0] = sources
    for number, window in enumerate(recipe.windows):
        start = window.start_tokens - slices[window.source].stream_start
        steps = np.arange(counts[number], dtype=np.int64) * recipe.sequence_tokens
        samples[sources == number, 1] = start + steps
    return samples


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
