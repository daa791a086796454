"""Proves artifacts from their files alone: ledgers are counted again, never believed.

Nothing here calls the code that wrote the files, except for the seeded shuffles, which are drawn
again and compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.blending.stream import epoch_order
from frontload.data_tools.files import read_array, read_json
from frontload.data_tools.indexed import IndexedReader
from frontload.data_tools.pack import order_rows
from frontload.data_tools.tokenizer import ANSWER, ASSISTANT, END, USER
from frontload.recipes.artifact import index_prefix
from frontload.recipes.errors import ArtifactError


@dataclass(frozen=True, kw_only=True)
class Check:
    """One proven or refuted statement about an artifact."""

    claim: str
    found: str
    holds: bool


@dataclass(frozen=True, kw_only=True)
class BlendFiles:
    """A blend as it lies on disk."""

    folder: Path
    plan: Mapping[str, Any]
    samples: np.ndarray
    order: Mapping[str, np.ndarray]
    offsets: Mapping[str, np.ndarray]


def read_blend(folder: Path) -> BlendFiles:
    """Reads the files of a blend.

    Raises: ArtifactError for a missing or torn file.
    """
    plan = read_json(folder / "plan.json")
    names = [source["name"] for source in plan["sources"]]
    return BlendFiles(
        folder=folder,
        plan=plan,
        samples=read_array(folder / "samples.npy", np.int64),
        order={name: read_array(folder / f"{name}.order.npy", np.int32) for name in names},
        offsets={name: read_array(folder / f"{name}.offsets.npy", np.int64) for name in names},
    )


def verify_index(folder: Path) -> list[Check]:
    """Checks that an index is whole and as its index.json counts it; every document ends in EOD."""
    reader = IndexedReader(index_prefix(folder))
    counts = read_json(folder / "index.json")
    lengths = reader.document_lengths
    checks = [
        _equal("documents", reader.num_documents, counts["num_documents"]),
        _equal("tokens", reader.num_tokens, counts["num_tokens"]),
        _equal("dtype", reader.dtype.name, counts["dtype"]),
        _equal("empty documents", int((lengths == 0).sum()), 0),
    ]
    if reader.num_tokens:
        largest = int(reader.tokens.max())
        vocab_size = counts["vocab_size"]
        checks.append(_check("token ids below the vocabulary", largest, largest < vocab_size))
    if counts["append_eod"] and reader.num_tokens:
        last = reader.tokens[np.cumsum(lengths) - 1]
        checks.append(_equal("documents that end in EOD", int((last == END).sum()), len(lengths)))
    return checks


def verify_blend(
    folder: Path, index_folders: Mapping[str, Path], *, others: Sequence[Path] = ()
) -> list[Check]:
    """Re-derives a phase's ledger from its order, offsets and samples and the sources' indexes.

    `others` are the blends of other phases of the same run: windows must not overlap theirs.
    """
    blend = read_blend(folder)
    checks = [
        _equal("samples", len(blend.samples), blend.plan["num_samples"]),
        _equal(
            "phase tokens",
            len(blend.samples) * blend.plan["sequence_tokens"],
            sum(source["tokens"] for source in blend.plan["sources"]),
        ),
    ]
    for number, source in enumerate(blend.plan["sources"]):
        name = source["name"]
        if name not in index_folders:
            raise ArtifactError(
                f"verifying {folder.name}",
                found=f"no index of source {name}",
                rule="a blend is verified against the index of each of its sources",
                do=f"give the index folder of {name} too",
            )
        reader = IndexedReader(index_prefix(index_folders[name]))
        lengths = reader.document_lengths
        found = _verify_documents(blend, source, lengths=lengths)
        checks += found
        if not all(check.holds for check in found):
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
    checks = [
        _equal(f"{name}: tokens of one epoch", one_epoch, source["document_tokens"]),
        _equal(f"{name}: documents", len(lengths), source["num_documents"]),
        _check(
            f"{name}: document ids exist",
            f"{order.min()} to {order.max()}",
            bool(order.min() >= 0 and order.max() < len(lengths)),
        ),
    ]
    if not all(check.holds for check in checks):
        return checks
    is_cumulative = offsets[0] == 0 and np.array_equal(np.diff(offsets), lengths[order])
    checks.append(_check(f"{name}: offsets add up the documents' lengths", "", is_cumulative))
    epochs = (offsets[:-1] + source["stream_start"]) // one_epoch
    for epoch in np.unique(epochs):
        listed = order[epochs == epoch]
        shuffled = epoch_order(
            name, int(epoch), seed=blend.plan["seed"], num_documents=len(lengths)
        )
        skipped_tokens = max(0, source["stream_start"] - int(epoch) * one_epoch)
        skipped = int(np.searchsorted(np.cumsum(lengths[shuffled]), skipped_tokens, side="right"))
        is_shuffle = np.array_equal(listed, shuffled[skipped : skipped + len(listed)])
        checks.append(
            _check(
                f"{name}: epoch {epoch} is the seeded shuffle, no document twice",
                f"{len(listed)} of {len(lengths)} documents",
                is_shuffle and len(np.unique(listed)) == len(listed),
            )
        )
    return checks


def _verify_samples(blend: BlendFiles, source: Mapping[str, Any], *, number: int) -> list[Check]:
    """The samples of a source tile its window: no gap, no overlap, in stream order."""
    name, row_tokens = source["name"], blend.plan["sequence_tokens"]
    places = blend.samples[blend.samples[:, 0] == number, 1] + source["stream_start"]
    expected = source["start_tokens"] + row_tokens * np.arange(len(places), dtype=np.int64)
    listed_end = source["stream_start"] + int(blend.offsets[name][-1])
    end = source["start_tokens"] + source["tokens"]
    return [
        _equal(f"{name}: samples x sequence_tokens", len(places) * row_tokens, source["tokens"]),
        _check(
            f"{name}: samples tile the window in order",
            f"stream tokens {source['start_tokens']} to {end}",
            np.array_equal(places, expected),
        ),
        _check(
            f"{name}: the last label's document is listed, and nothing behind it",
            f"documents end at {listed_end}",
            end < listed_end and end >= listed_end - int(np.diff(blend.offsets[name])[-1]),
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
    phase = blend.plan["tokens"]
    return [
        _equal(f"{name}: tokens by epoch", by_epoch, ledger["tokens_by_epoch"]),
        _equal(f"{name}: tokens", int((ends - begins).sum()), ledger["tokens"]),
        _equal(f"{name}: distinct tokens", union_tokens(begins, ends), ledger["unique_tokens"]),
        _equal(
            f"{name}: tokens behind the first pass",
            sum(tokens for epoch, tokens in by_epoch.items() if int(epoch) > 0),
            ledger["repeated_tokens"],
        ),
        _equal(f"{name}: share", str(Fraction(source["tokens"], phase)), ledger["share"]),
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
    checks = [
        _check(f"{claim}, same stream", f"seed {theirs}", theirs == ours),
        _check(claim, f"{max(both, 0)} stream tokens in both", both <= 0),
    ]
    if max(ends) <= one_epoch:
        pieces = [
            read_intervals(blend, source, lengths=lengths),
            read_intervals(other, past, lengths=lengths),
        ]
        begins, finishes = (np.concatenate([piece[k] for piece in pieces]) for k in (0, 1))
        twice = int((finishes - begins).sum()) - union_tokens(begins, finishes)
        checks.append(_equal(f"{claim}, tokens of the index read twice", twice, 0))
    return checks


def verify_pack(folder: Path) -> list[Check]:
    """Counts a pack again: rows, masks by position, order, and every number of pack.json."""
    tokens, mask = IndexedReader(folder / "tokens"), IndexedReader(folder / "loss_mask")
    counts = read_json(folder / "pack.json")
    order = read_array(folder / "order.npy", np.int64)
    row_tokens = counts["sequence_tokens"] + 1
    rows, num_rows = tokens.document_lengths, tokens.num_documents
    whole_epochs = [order[at : at + num_rows] for at in range(0, len(order), num_rows)]
    expected_mask = _mask_by_position(tokens)
    padding = 1 - Fraction(tokens.num_tokens, num_rows * row_tokens)
    return [
        _check(
            "mask and tokens have one structure",
            "",
            np.array_equal(tokens.sequence_lengths, mask.sequence_lengths)
            and np.array_equal(tokens.document_indices, mask.document_indices),
        ),
        _equal("rows", num_rows, counts["rows"]),
        _check("rows hold sequence_tokens + 1 or fewer", int(rows.max()), rows.max() <= row_tokens),
        _equal("conversations", tokens.num_sequences, counts["conversations_packed"]),
        _equal(
            "conversations packed and dropped",
            tokens.num_sequences + sum(counts["dropped"].values()),
            counts["conversations"],
        ),
        _equal("tokens", tokens.num_tokens, counts["tokens"]),
        _equal("loss tokens", int(mask.tokens.sum()), counts["loss_tokens"]),
        _check(
            "loss on the response only, by position",
            "",
            expected_mask is not None and np.array_equal(expected_mask, mask.tokens),
        ),
        _equal("samples", len(order) * counts["sequence_tokens"], counts["budget_tokens"]),
        _check(
            "no row twice in an epoch",
            f"{len(whole_epochs)} epochs",
            all(len(np.unique(epoch)) == len(epoch) for epoch in whole_epochs),
        ),
        _check(
            "order is the seeded one",
            f"seed {counts['seed']}",
            np.array_equal(order, order_rows(num_rows, len(order), seed=counts["seed"])),
        ),
        _equal("epochs", str(Fraction(len(order), num_rows)), counts["epochs"]),
        _equal("padding share", str(padding), counts["padding_share"]),
    ]


def _mask_by_position(tokens: IndexedReader) -> np.ndarray | None:
    """1 behind the first assistant marker of every conversation; None if one is not as rendered."""
    expected = np.zeros(tokens.num_tokens, dtype=np.uint8)
    start = 0
    for number in range(tokens.num_sequences):
        sequence = tokens.sequence(number)
        markers = np.flatnonzero(sequence == ASSISTANT)
        is_rendered = (
            len(markers) == 1
            and sequence[0] == USER
            and sequence[-1] == END
            and (sequence == ANSWER).sum() == 1
        )
        if not is_rendered:
            return None
        expected[start + int(markers[0]) + 1 : start + len(sequence)] = 1
        start += len(sequence)
    return expected


def _check(claim: str, found: object, holds: bool | np.bool_) -> Check:
    return Check(claim=claim, found=str(found), holds=bool(holds))


def _equal(claim: str, found: object, stated: object) -> Check:
    shown = str(found) if found == stated else f"{found}; the artifact states {stated}"
    return Check(claim=claim, found=shown, holds=found == stated)
