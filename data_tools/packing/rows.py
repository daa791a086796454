"""The rows of a pack: sequences placed first-fit-decreasing, written with their masks and origins.

A row is a document of `tokens` and of `loss_mask`, its conversations are their sequences: the
boundaries at which the engine resets attention, state and convolution.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.disk.digests import BlockDigests, read_pieces
from frontload.data_tools.disk.files import write_array
from frontload.data_tools.disk.indexed import IndexedWriter, token_dtype
from frontload.data_tools.packing.encode import Counts, counts_table
from frontload.data_tools.packing.place import order_rows, pack_lengths
from frontload.data_tools.packing.spill import SpillReader
from frontload.data_tools.packing.steps import budget_of, cut_steps
from frontload.recipes.artifact import PACK_STEPS, write_json
from frontload.recipes.runs.training import READ

FILES = ("tokens.bin", "tokens.idx", "loss_mask.bin", "loss_mask.idx", "order.npy", "origin.npy")


def write_rows(
    folder: Path,
    sequences: SpillReader,
    *,
    plan: Mapping[str, Any],
    counts: Counts,
    made_by: Mapping[str, Any],
) -> None:
    """Places every sequence and writes the pack; pack.json, with all digests, comes last."""
    row_tokens, seed = plan["sequence_tokens"] + 1, plan["seed"]
    rows = pack_lengths(
        sequences.lengths,
        row_tokens=row_tokens,
        seed=seed,
        buffer_conversations=plan.get("buffer_conversations", 0),
    )
    edges: dict[str, set[int]] = {"first_ids": set(), "before_ids": set(), "last_ids": set()}
    losses: list[int] = []
    with (
        IndexedWriter(folder / "tokens", token_dtype(plan["vocab_size"])) as tokens,
        IndexedWriter(folder / "loss_mask", np.dtype(np.uint8)) as masks,
    ):
        for row in rows:
            parts = [sequences.tokens(number) for number in row]
            mask_parts = [sequences.mask(number) for number in row]
            lengths = [len(part) for part in parts]
            row_ids, row_mask = np.concatenate(parts), np.concatenate(mask_parts)
            tokens.add_document(row_ids, lengths)
            masks.add_document(row_mask, lengths)
            losses.append(int(row_mask.sum()))
            _add_edges(edges, row_ids, row_mask, lengths)
    num_rows, num_tokens = len(rows), int(sequences.lengths.sum(dtype=np.int64))
    order_of_sequences = np.concatenate([np.array(row) for row in rows])
    write_array(folder / "origin.npy", sequences.origin[order_of_sequences])
    read, names = _write_order(folder, plan, sequences=sequences, rows=rows, losses=losses)
    reasons: Counter[str] = Counter()
    for key, number in counts.dropped.items():
        reasons[key.split("\t")[1]] += number
    pack = {
        **plan,
        "conversations": sum(counts.rows.values()),
        "conversations_packed": sum(counts.packed.values()),
        "dropped": dict(reasons),
        "sources": counts_table(counts),
        "sequences": len(sequences.lengths),
        "rows": num_rows,
        "tokens": num_tokens,
        "loss_tokens": sum(losses),
        "padding_share": str(1 - Fraction(num_tokens, num_rows * row_tokens)),
        "efficiency": round(num_tokens / (num_rows * row_tokens), 6),
        **read,
        **{name: sorted(ids) for name, ids in edges.items()},
        "made_by": dict(made_by),
        "files": {name: describe_file(folder / name) for name in names},
    }
    write_json(folder / "pack.json", pack)


def _write_order(
    folder: Path,
    plan: Mapping[str, Any],
    *,
    sequences: SpillReader,
    rows: Sequence[Sequence[int]],
    losses: Sequence[int],
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Writes which rows a training reads, in order; what pack.json says of them, and its files."""
    budget, tokens, seed = budget_of(plan), plan.get("budget_tokens", 0), plan["seed"]
    if budget is None:
        num_samples = plan["epochs_asked"] * len(rows)
        if tokens:
            num_samples = tokens // plan["sequence_tokens"]
        write_array(folder / "order.npy", order_rows(len(rows), num_samples, seed=seed))
        epochs = Fraction(num_samples, len(rows))
        return {"num_samples": num_samples, "epochs": str(epochs)}, FILES
    lengths = [int(sequences.lengths[row].sum(dtype=np.int64)) for row in rows]
    amounts = np.array(lengths if budget.unit == READ else losses)
    cut = cut_steps(
        amounts,
        tokens=tokens,
        budget=budget,
        mask_of_row=lambda row: np.concatenate([sequences.mask(number) for number in rows[row]]),
        seed=seed,
    )
    write_array(folder / "order.npy", cut.order_N)
    write_array(folder / PACK_STEPS, cut.starts)
    read = {
        "num_samples": budget.steps * budget.batch_rows,
        "rows_read": len(cut.order_N),
        "last_row_tokens": cut.last_row_tokens,
        "epochs": str(Fraction(tokens, int(amounts.sum()))),
    }
    return read, (*FILES, PACK_STEPS)


def _add_edges(
    edges: dict[str, set[int]], ids: np.ndarray, mask: np.ndarray, lengths: list[int]
) -> None:
    """Notes which ids begin a sequence, stand before a target, and end one."""
    starts = np.cumsum([0, *lengths[:-1]])
    is_target = mask.astype(bool)
    is_start, is_end = np.zeros(len(ids), dtype=bool), np.zeros(len(ids), dtype=bool)
    is_start[starts], is_end[starts - 1] = True, True
    begins = np.flatnonzero(is_target & ~np.roll(is_target, 1) & ~is_start)
    ends = np.flatnonzero(is_target & (is_end | ~np.roll(is_target, -1)))
    edges["first_ids"].update(ids[starts].tolist())
    edges["before_ids"].update(ids[begins - 1].tolist())
    edges["last_ids"].update(ids[ends].tolist())


def describe_file(path: Path) -> dict[str, Any]:
    """sha256, size and block digests of a file, as `proof` reads them."""
    digest, blocks, size = hashlib.sha256(), BlockDigests(), 0
    for _, piece in read_pieces(path):
        digest.update(piece)
        blocks.update(piece)
        size += len(piece)
    return {"sha256": digest.hexdigest(), "size_bytes": size, "blocks": blocks.finish()}
