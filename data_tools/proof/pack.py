"""Proves a pack: rows, masks by position, order, and every number of pack.json, counted again.

A pack holds conversations of any template; its pack.json states which ids stand before a target,
end one, and begin a sequence.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.disk.files import read_array, read_json
from frontload.data_tools.disk.indexed import IndexedReader, bin_file
from frontload.data_tools.packing.place import order_rows
from frontload.data_tools.packing.steps import budget_of, step_starts
from frontload.data_tools.proof.bytes_of import FileDigest, prove_bytes
from frontload.data_tools.proof.checks import Check, array_place, check, equal, wrong
from frontload.data_tools.proof.pair import Stated
from frontload.data_tools.proof.prefix import Digests, prove_pair
from frontload.recipes.artifact import PACK_STEPS
from frontload.recipes.runs.training import READ

CHUNK_TOKENS = 1 << 22  # held at once: about 60 MB with what is derived from them


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Some whole sequences of a pack, end to end.

    Shapes: tokens_N, mask_N; starts, ends int64 [sequences], places in tokens_N.
    """

    first: int  # number of the first sequence
    tokens: np.ndarray
    mask: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    token_at: int  # place of the first token in the .bin


@dataclass(kw_only=True)
class Fault:
    """The first place where a rule does not hold, and how often it does not."""

    count: int = 0
    sequence: int = -1
    token: int = -1
    told: list[str] = field(default_factory=list)

    def add(self, pieces: Pieces, places: np.ndarray) -> None:
        """Counts faults at places of a chunk's tokens."""
        if not len(places):
            return
        if not self.count:
            self.token = pieces.token_at + int(places[0])
            self.sequence = pieces.first + int(
                np.searchsorted(pieces.starts, places[0], side="right") - 1
            )
        self.count += len(places)


def verify_pack(folder: Path, *, vocab_size: int | None = None) -> list[Check]:
    """Counts a pack again; when its files do not fit each other it says so and counts no further.

    Raises: ArtifactError for a missing file.
    """
    counts = read_json(folder / "pack.json")
    checks = _prove_files(folder, counts, vocab_size=vocab_size)
    if wrong(checks):
        return checks
    tokens, mask = IndexedReader(folder / "tokens"), IndexedReader(folder / "loss_mask")
    structure = _prove_structure(folder, tokens, mask)
    checks.append(structure)
    checks += _prove_counts(folder, counts, tokens, mask)
    if structure.holds:
        checks += _prove_masks(folder, counts, tokens, mask)
        checks += _prove_steps(folder, counts, tokens=tokens, mask=mask)
    return [*checks, *_prove_order(folder, counts, num_rows=tokens.num_documents)]


def _prove_files(folder: Path, counts: Mapping[str, Any], *, vocab_size: int | None) -> list[Check]:
    stated = counts["files"]
    checks: list[Check] = []
    for name, limit in (("tokens", vocab_size or counts["vocab_size"]), ("loss_mask", 2)):
        idx, data = (FileDigest(**stated[f"{name}.{part}"]) for part in ("idx", "bin"))
        digests = Digests(idx=idx, data=data)
        known = Stated(num_documents=counts["rows"], num_tokens=counts["tokens"], vocab_size=limit)
        checks += [
            Check(claim=f"{name} {one.claim}", found=one.found, holds=one.holds, where=one.where)
            for one in prove_pair(folder / name, known, digests)
        ]
    for name, entry in stated.items():
        if name.endswith(".npy") and not (folder / name).is_file():
            checks.append(check(name, "missing", False, where=folder / name))
        elif name.endswith(".npy"):
            checks += prove_bytes(folder / name, FileDigest(**entry))
    return checks


def _prove_structure(folder: Path, tokens: IndexedReader, mask: IndexedReader) -> Check:
    claim = "mask and tokens have one structure"
    where = str(folder / "loss_mask.idx")
    for what, mine, theirs in (
        ("sequences", tokens.sequence_lengths, mask.sequence_lengths),
        ("rows", tokens.document_indices, mask.document_indices),
    ):
        if len(mine) != len(theirs):
            return check(claim, f"{len(mine)} and {len(theirs)} {what}", False, where=where)
        if (mine != theirs).any():
            at = int(np.argmax(mine != theirs))
            told = f"{what} differ at {at}: {mine[at]} and {theirs[at]}"
            return check(claim, told, False, where=f"{where} {what[:-1]} {at}")
    return check(claim, f"{tokens.num_sequences} sequences", True)


def _prove_counts(
    folder: Path, counts: Mapping[str, Any], tokens: IndexedReader, mask: IndexedReader
) -> list[Check]:
    stated = folder / "pack.json"
    row_tokens = counts["sequence_tokens"] + 1
    rows, num_rows = tokens.document_lengths, tokens.num_documents
    packed = counts["conversations_packed"]
    padding = 1 - Fraction(tokens.num_tokens, num_rows * row_tokens)
    longest = int(np.argmax(rows))
    loss_tokens = sum(int(piece.mask.sum()) for piece in _pieces(tokens, mask))
    return [
        equal("rows", num_rows, counts["rows"], where=f"{stated} rows"),
        check(
            "rows hold sequence_tokens + 1 or fewer",
            int(rows.max()),
            rows.max() <= row_tokens,
            where=f"{folder / 'tokens.idx'} row {longest}",
        ),
        equal(
            "conversations",
            tokens.num_sequences,
            counts["sequences"],
            where=f"{stated} conversations_packed",
        ),
        equal(
            "conversations packed and dropped",
            packed + sum(counts["dropped"].values()),
            counts["conversations"],
            where=f"{stated} conversations",
        ),
        equal("tokens", tokens.num_tokens, counts["tokens"], where=f"{stated} tokens"),
        equal("loss tokens", loss_tokens, counts["loss_tokens"], where=f"{stated} loss_tokens"),
        equal("padding share", str(padding), counts["padding_share"], where=f"{stated} padding"),
    ]


def _prove_order(folder: Path, counts: Mapping[str, Any], *, num_rows: int) -> list[Check]:
    order = read_array(folder / "order.npy", np.int64)
    file, seed = folder / "order.npy", counts["seed"]
    whole_epochs = [order[at : at + num_rows] for at in range(0, len(order), num_rows)]
    is_off = order != order_rows(num_rows, len(order), seed=seed)
    budget = budget_of(counts)
    return [
        equal(
            "samples" if budget is None else "rows read",
            len(order),
            counts["num_samples" if budget is None else "rows_read"],
            where=f"{folder / 'pack.json'} samples",
        ),
        check(
            "no row twice in an epoch",
            f"{len(whole_epochs)} epochs",
            all(len(np.unique(epoch)) == len(epoch) for epoch in whole_epochs),
            where=array_place(file, order, is_off),
        ),
        check(
            "order is the seeded one",
            f"seed {seed}",
            not is_off.any(),
            where=array_place(file, order, is_off),
        ),
        *(
            _prove_epochs(folder, counts, num_samples=len(order), num_rows=num_rows)
            if budget is None
            else []
        ),
    ]


def _prove_epochs(
    folder: Path, counts: Mapping[str, Any], *, num_samples: int, num_rows: int
) -> list[Check]:
    where = f"{folder / 'pack.json'} epochs"
    return [equal("epochs", str(Fraction(num_samples, num_rows)), counts["epochs"], where=where)]


def _prove_steps(
    folder: Path, counts: Mapping[str, Any], *, tokens: IndexedReader, mask: IndexedReader
) -> list[Check]:
    """A budget in real tokens: spent to the token, over steps that take their shares."""
    budget = budget_of(counts)
    if budget is None:
        return []
    stated = folder / "pack.json"
    order = read_array(folder / "order.npy", np.int64)
    starts = read_array(folder / PACK_STEPS, np.int64)
    amounts = tokens.document_lengths if budget.unit == READ else _losses(tokens, mask)
    kept = counts["last_row_tokens"]
    ends = np.cumsum(amounts[order])
    last = mask.document(int(order[-1]))
    ends[-1] -= len(last) - kept if budget.unit == READ else int(last[kept:].sum())
    rows = np.diff(starts)
    is_off = starts != step_starts(ends, budget) if starts[-1] == len(order) else starts == starts
    return [
        equal(
            f"budget in tokens {budget.unit}",
            int(ends[-1]),
            counts["budget_tokens"],
            where=f"{stated} last_row_tokens",
        ),
        equal(
            "samples",
            len(rows) * budget.batch_rows,
            counts["num_samples"],
            where=f"{stated} num_samples",
        ),
        check(
            "steps hold a row or more, and a batch at most",
            f"{int(rows.min())} to {int(rows.max())} rows",
            bool(rows.min() >= 1 and rows.max() <= budget.batch_rows),
            where=array_place(folder / PACK_STEPS, starts, np.append(False, rows < 1)),
        ),
        check(
            "steps end nearest to their shares",
            f"{len(rows)} steps",
            not is_off.any(),
            where=array_place(folder / PACK_STEPS, starts, is_off),
        ),
        equal(
            "epochs",
            str(Fraction(int(ends[-1]), int(amounts.sum()))),
            counts["epochs"],
            where=f"{stated} epochs",
        ),
    ]


def _losses(tokens: IndexedReader, mask: IndexedReader) -> np.ndarray:
    """Tokens with loss of each row."""
    of_sequence = [
        np.add.reduceat(one.mask, one.starts, dtype=np.int64) for one in _pieces(tokens, mask)
    ]
    return np.add.reduceat(np.concatenate(of_sequence), tokens.document_indices[:-1])


def _pieces(tokens: IndexedReader, mask: IndexedReader) -> Iterator[Pieces]:
    """The sequences of a pack in chunks of whole sequences."""
    width = tokens.dtype.itemsize
    begins = np.append(tokens.sequence_pointers // width, tokens.num_tokens)
    first = 0
    while first < tokens.num_sequences:
        last = int(np.searchsorted(begins, begins[first] + CHUNK_TOKENS, side="right")) - 1
        last = min(max(last, first + 1), tokens.num_sequences)
        low, high = int(begins[first]), int(begins[last])
        yield Pieces(
            first=first,
            tokens=tokens.tokens[low:high],
            mask=mask.tokens[low:high],
            starts=begins[first:last] - low,
            ends=begins[first + 1 : last + 1] - low,
            token_at=low,
        )
        first = last


def _prove_masks(
    folder: Path, counts: Mapping[str, Any], tokens: IndexedReader, mask: IndexedReader
) -> list[Check]:
    """Loss on responses only, and sequences that begin and end where conversations do."""
    edges = {name: np.array(counts[name]) for name in ("first_ids", "before_ids", "last_ids")}
    rules: dict[str, tuple[Callable[[Pieces], np.ndarray], str]] = {
        "targets begin behind the prompt": (lambda p: _off_starts(p, edges), "loss_mask"),
        "targets end with the end of a turn": (lambda p: _off_ends(p, edges), "loss_mask"),
        "sequences begin as conversations do": (lambda p: _off_first(p, edges), "tokens"),
    }
    found = {claim: Fault() for claim in rules}
    for pieces in _pieces(tokens, mask):
        for claim, (rule, _) in rules.items():
            found[claim].add(pieces, rule(pieces))
    checks = []
    for claim, fault in found.items():
        name = rules[claim][1]
        width = 1 if name == "loss_mask" else tokens.dtype.itemsize
        row = int(np.searchsorted(tokens.document_indices, fault.sequence, side="right")) - 1
        checks.append(
            check(
                claim,
                f"{fault.count} places are not" if fault.count else f"{tokens.num_sequences}",
                not fault.count,
                where=f"{bin_file(folder / name)} byte {fault.token * width}, row {row},"
                f" conversation {fault.sequence}",
            )
        )
    return checks


def _edges(pieces: Pieces) -> tuple[np.ndarray, np.ndarray]:
    """Places where targets begin, and places of their last tokens; never across sequences."""
    mask = pieces.mask.astype(bool)
    is_first, is_last = np.zeros(len(mask), dtype=bool), np.zeros(len(mask), dtype=bool)
    is_first[pieces.starts], is_last[pieces.ends - 1] = True, True
    begins = mask & (is_first | ~np.roll(mask, 1))
    ends = mask & (is_last | ~np.roll(mask, -1))
    return np.flatnonzero(begins), np.flatnonzero(ends)


def _off_starts(pieces: Pieces, edges: Mapping[str, np.ndarray]) -> np.ndarray:
    begins, _ = _edges(pieces)
    is_at_start = np.isin(begins, pieces.starts)
    before = pieces.tokens[np.maximum(begins - 1, 0)]
    return begins[is_at_start | ~np.isin(before, edges["before_ids"])]


def _off_ends(pieces: Pieces, edges: Mapping[str, np.ndarray]) -> np.ndarray:
    _, ends = _edges(pieces)
    is_off = ~np.isin(pieces.tokens[ends], edges["last_ids"])
    bare = np.add.reduceat(pieces.mask, pieces.starts, dtype=np.int64) == 0
    return np.sort(np.concatenate([ends[is_off], pieces.starts[bare]]))


def _off_first(pieces: Pieces, edges: Mapping[str, np.ndarray]) -> np.ndarray:
    return pieces.starts[~np.isin(pieces.tokens[pieces.starts], edges["first_ids"])]
