"""Proves a blend: its ledger is counted again from its order, offsets, samples and indexes.

Nothing here calls the code that wrote the files, except for the seeded shuffles, which are drawn
again and compared.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.artifacts.read import BlendFiles, prefix_of, read_blend
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.disk.seeds import permutation
from frontload.data_tools.proof.checks import Check, array_place, check, equal
from frontload.recipes.errors import ArtifactError

MOSTLY = 0.5  # ours: with more of an order wrong than this, the seed is to blame, not the order


def verify_blend(
    folder: Path, index_folders: Mapping[str, Path], *, others: Sequence[Path] = ()
) -> list[Check]:
    """Re-derives a phase's ledger from its order, offsets and samples and the sources' indexes.

    `others` are the blends of other phases of the same run: windows must not overlap theirs.
    """
    blend = read_blend(folder)
    listed = min(len(blend.samples), blend.plan["num_samples"])
    checks = [
        equal(
            "samples",
            len(blend.samples),
            blend.plan["num_samples"],
            where=f"{blend.file('samples')} row {listed}",
        ),
        equal(
            "phase tokens",
            len(blend.samples) * blend.plan["sequence_tokens"],
            sum(source["tokens"] for source in blend.plan["sources"]),
            where=f"{blend.field()} sources, or {blend.file('samples')}",
        ),
    ]
    for number, source in enumerate(blend.plan["sources"]):
        name = source["name"]
        if name not in index_folders:
            raise ArtifactError(
                f"verifying {folder.name}",
                found=f"no index of source {name}",
                rule="a blend is verified against the index of each of its sources",
                do=f"give the index of {name} too; it is known by index_sha256 of plan.json",
            )
        reader = IndexedReader(prefix_of(index_folders[name]))
        lengths = reader.document_lengths
        found = _verify_documents(blend, source, lengths=lengths)
        checks += found
        if not all(one.holds for one in found):
            continue  # samples and ledger are counted over these documents
        checks += _verify_samples(blend, source, number=number)
        checks += _verify_ledger(blend, source, lengths=lengths)
        for other in others:
            checks += _verify_disjoint(blend, read_blend(other), source, lengths=lengths)
    return checks


def _verify_documents(
    blend: BlendFiles, source: Mapping[str, Any], *, lengths: np.ndarray
) -> list[Check]:
    """Documents, their lengths, and the shuffle of each epoch."""
    name = source["name"]
    order, offsets = blend.order[name], blend.offsets[name]
    one_epoch = int(lengths.sum())
    order_file, offsets_file = (blend.file(f"{name}.{what}") for what in ("order", "offsets"))
    checks = [
        equal(
            f"{name}: tokens of one epoch",
            one_epoch,
            source["document_tokens"],
            where=blend.field("sources", name, "document_tokens"),
        ),
        equal(
            f"{name}: documents",
            len(lengths),
            source["num_documents"],
            where=blend.field("sources", name, "num_documents"),
        ),
        check(f"{name}: documents are listed", len(order), len(order) > 0, where=order_file),
    ]
    if len(order):
        lowest, highest = int(order.min()), int(order.max())
        found = array_place(order_file, order, (order < 0) | (order >= len(lengths)))
        claim, exist = f"{name}: document ids exist", lowest >= 0 and highest < len(lengths)
        checks.append(check(claim, f"{lowest} to {highest}", exist, where=found))
    if not all(one.holds for one in checks):
        return checks
    expected = np.concatenate([[0], np.cumsum(lengths[order])])
    is_as_long = len(offsets) == len(expected)
    is_off = offsets != expected if is_as_long else np.zeros(1, dtype=bool)
    checks.append(
        check(
            f"{name}: offsets add up the documents' lengths",
            f"{len(offsets)} offsets of {len(order)} documents",
            is_as_long and not is_off.any(),
            where=array_place(offsets_file, offsets, is_off),
        )
    )
    if not is_as_long:
        return checks
    return [*checks, *_verify_shuffles(blend, source, lengths=lengths)]


def _verify_shuffles(
    blend: BlendFiles, source: Mapping[str, Any], *, lengths: np.ndarray
) -> list[Check]:
    """Each epoch lists the documents of its seeded shuffle, drawn again.

    Documents are counted, not placed by their tokens: one without tokens begins where the next
    does, and that one may be of the next epoch.
    """
    name, one_epoch = source["name"], int(lengths.sum())
    order, order_file = blend.order[name], blend.file(f"{name}.order")
    checks: list[Check] = []
    epoch, skipped_tokens = divmod(source["stream_start"], one_epoch)
    end = 0
    while end < len(order):
        first = end
        shuffled = permutation(len(lengths), blend.plan["seed"], "blend", name, epoch)
        skipped = 0
        if not first:
            ends = np.cumsum(lengths[shuffled])
            skipped = int(np.searchsorted(ends, skipped_tokens, side="right"))
        end = min(first + len(lengths) - skipped, len(order))
        listed = order[first:end]
        expected = shuffled[skipped : skipped + len(listed)]
        is_off = np.ones(len(listed), dtype=bool)
        is_off[: len(expected)] = listed[: len(expected)] != expected
        is_listed = np.zeros(len(lengths), dtype=bool)
        is_listed[listed] = True
        place = np.zeros(len(order), dtype=bool)
        place[first:end] = is_off
        is_seed = is_off.mean() > MOSTLY
        where = blend.field("seed") if is_seed else array_place(order_file, order, place)
        checks.append(
            check(
                f"{name}: epoch {epoch} is the seeded shuffle, no document twice",
                f"{len(listed)} of {len(lengths)} documents",
                not is_off.any() and np.count_nonzero(is_listed) == len(listed),
                where=where,
            )
        )
        epoch += 1
    return checks


def _verify_samples(blend: BlendFiles, source: Mapping[str, Any], *, number: int) -> list[Check]:
    """The samples of a source tile its window: no gap, no overlap, in stream order."""
    name, row_tokens = source["name"], blend.plan["sequence_tokens"]
    places = blend.samples[blend.samples[:, 0] == number, 1] + source["stream_start"]
    expected = source["start_tokens"] + row_tokens * np.arange(len(places), dtype=np.int64)
    is_off = np.zeros(len(blend.samples), dtype=bool)
    is_off[blend.samples[:, 0] == number] = places != expected
    ledger, offsets = blend.field("sources", name, "tokens"), blend.file(f"{name}.offsets")
    listed_end = source["stream_start"] + int(blend.offsets[name][-1])
    end = source["start_tokens"] + source["tokens"]
    return [
        equal(
            f"{name}: samples x sequence_tokens",
            len(places) * row_tokens,
            source["tokens"],
            where=ledger,
        ),
        check(
            f"{name}: samples tile the window in order",
            f"stream tokens {source['start_tokens']} to {end}",
            not is_off.any(),
            where=array_place(blend.file("samples"), blend.samples, is_off),
        ),
        check(
            f"{name}: the last label's document is listed, and nothing behind it",
            f"documents end at {listed_end}",
            end < listed_end and end >= listed_end - int(np.diff(blend.offsets[name])[-1]),
            where=f"{offsets} row {len(blend.offsets[name]) - 1}",
        ),
    ]


def _verify_ledger(
    blend: BlendFiles, source: Mapping[str, Any], *, lengths: np.ndarray
) -> list[Check]:
    """Tokens by epoch, distinct and repeated tokens, counted from the intervals that are read."""
    name = source["name"]
    ledger = blend.plan["ledger"][name]
    begins, ends, stream = read_intervals(blend, source, lengths=lengths)
    one_epoch = int(lengths.sum())
    counted = np.bincount(stream // one_epoch, weights=ends - begins)
    by_epoch = {str(epoch): int(tokens) for epoch, tokens in enumerate(counted) if tokens}
    repeated = sum(tokens for epoch, tokens in by_epoch.items() if int(epoch) > 0)
    counts = {
        "tokens by epoch": ("tokens_by_epoch", by_epoch),
        "tokens": ("tokens", int((ends - begins).sum())),
        "distinct tokens": ("unique_tokens", union_tokens(begins, ends)),
        "tokens behind the first pass": ("repeated_tokens", repeated),
        "share": ("share", str(Fraction(source["tokens"], blend.plan["tokens"]))),
    }
    return [
        equal(f"{name}: {claim}", found, ledger[key], where=blend.field("ledger", name, key))
        for claim, (key, found) in counts.items()
    ]


def read_intervals(
    blend: BlendFiles, source: Mapping[str, Any], *, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a window reads as intervals of the index's own tokens, and where in the stream.

    Shapes: begins, ends, stream int64 [pieces]; a piece is the read part of one listed document.
    """
    order, offsets = blend.order[source["name"]], blend.offsets[source["name"]]
    stream_starts = offsets[:-1] + source["stream_start"]
    low = source["start_tokens"]
    high = low + source["tokens"]
    skipped = np.maximum(low - stream_starts, 0)
    kept = np.minimum(offsets[1:] + source["stream_start"], high) - stream_starts
    index_starts = (np.cumsum(lengths) - lengths)[order]
    begins, ends = index_starts + skipped, index_starts + kept
    is_read = ends > begins
    return begins[is_read], ends[is_read], (stream_starts + skipped)[is_read]


def union_tokens(begins: np.ndarray, ends: np.ndarray) -> int:
    """Number of distinct tokens that intervals cover together."""
    by_begin = np.argsort(begins, kind="stable")
    begins, ends = begins[by_begin], ends[by_begin]
    reached = np.maximum.accumulate(np.concatenate([[0], ends[:-1]]))
    return int(np.maximum(ends - np.maximum(begins, reached), 0).sum())


def _verify_disjoint(
    blend: BlendFiles, other: BlendFiles, source: Mapping[str, Any], *, lengths: np.ndarray
) -> list[Check]:
    """No stream token is an input of both phases; within the first pass, no token of the index."""
    found = [past for past in other.plan["sources"] if past["name"] == source["name"]]
    if not found or found[0]["index_sha256"] != source["index_sha256"]:
        return []
    past, one_epoch = found[0], int(lengths.sum())
    ends = [one["start_tokens"] + one["tokens"] for one in (source, past)]
    both = min(ends) - max(source["start_tokens"], past["start_tokens"])
    claim = f"{source['name']}: disjoint from phase {other.plan['phase']}"
    theirs, ours = other.plan["seed"], blend.plan["seed"]
    start = blend.field("sources", source["name"], "start_tokens")
    where = f"{start}, and {other.field('sources', source['name'], 'start_tokens')}"
    checks = [
        check(f"{claim}, same stream", f"seed {theirs}", theirs == ours, where=blend.field("seed")),
        check(claim, f"{max(both, 0)} stream tokens in both", both <= 0, where=where),
    ]
    if max(ends) <= one_epoch:
        pieces = [
            read_intervals(blend, source, lengths=lengths),
            read_intervals(other, past, lengths=lengths),
        ]
        begins, finishes = (np.concatenate([piece[k] for piece in pieces]) for k in (0, 1))
        twice = int((finishes - begins).sum()) - union_tokens(begins, finishes)
        checks.append(equal(f"{claim}, tokens of the index read twice", twice, 0, where=where))
    return checks
