"""Packs whole conversations into SFT rows: first fit by decreasing length inside seeded buffers."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from frontload.data_tools.disk.seeds import permutation
from frontload.data_tools.render import Rendered
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Pack

BUFFER_CONVERSATIONS = 4096  # ours: padding under 1% at a row of 4 mean lengths; bounds memory
OVER_LONG = "longer than a row"


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Rows of conversation numbers, and the numbers that were dropped for their length."""

    rows: list[list[int]]
    over_long: list[int]


def check_pack(recipe: Pack) -> None:
    """Refuses a budget or policy that packing cannot keep.

    Raises: RecipeError naming the field.
    """
    if recipe.over_long != "drop":
        raise RecipeError(
            "pack.over_long",
            found=repr(recipe.over_long),
            rule="the one policy is drop: over-long conversations are left out and counted",
            do="write drop",
        )
    if recipe.tokens <= 0 or recipe.tokens % recipe.sequence_tokens:
        down = recipe.tokens // recipe.sequence_tokens * recipe.sequence_tokens
        raise RecipeError(
            "pack.tokens",
            found=str(recipe.tokens),
            rule=f"it is a positive multiple of sequence_tokens {recipe.sequence_tokens}",
            do=f"write {max(down, recipe.sequence_tokens)}",
        )


def pack_lengths(
    lengths: Sequence[int] | np.ndarray,
    *,
    row_tokens: int,
    seed: int,
    buffer_conversations: int = BUFFER_CONVERSATIONS,
) -> Packed:
    """Distributes conversations over rows of at most `row_tokens`; none is split.

    Conversations are shuffled, cut into buffers, and each buffer is packed first-fit-decreasing.
    Inside a row they stand in shuffled order, so that length says nothing about place.

    Source: Krell et al. 2021, Efficient sequence packing, section 3 (histogram-free form).
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    shuffled = permutation(len(sizes), seed, "pack")
    is_fitting = sizes <= row_tokens
    fitting = shuffled[is_fitting[shuffled]]
    rows: list[list[int]] = []
    for start in range(0, len(fitting), buffer_conversations):
        buffer = fitting[start : start + buffer_conversations]
        places = np.argsort(-sizes[buffer], kind="stable")  # equal lengths in shuffled order
        decreasing = sizes[buffer][places].tolist()
        for row in first_fit(places.tolist(), decreasing, row_tokens):
            rows.append(buffer[sorted(row)].tolist())
    return Packed(rows=rows, over_long=np.flatnonzero(~is_fitting).tolist())


def first_fit(numbers: Sequence[int], lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Puts each number, in the given order, into the first row with room for its length.

    The free tokens of the rows are the leaves of a tree of maxima, so a row is found in log time.
    Equal lengths that follow each other fill a row together, and the tree is climbed only as far
    as a maximum changes.
    """
    num_leaves = 1 << max(len(numbers) - 1, 0).bit_length()
    free = [row_tokens] * (2 * num_leaves)
    rows: list[list[int]] = []
    at, count = 0, len(numbers)
    while at < count:
        length, node = lengths[at], 1
        while node < num_leaves:
            node *= 2
            if free[node] < length:
                node += 1
        row, room = node - num_leaves, free[node]
        if row == len(rows):
            rows.append([])
        while at < count and lengths[at] == length and room >= length:
            rows[row].append(numbers[at])
            room -= length
            at += 1
        free[node] = room
        while node > 1:
            sibling = free[node ^ 1]
            largest = room if room > sibling else sibling
            node //= 2
            if free[node] == largest:
                break
            free[node] = room = largest
    return rows


def order_rows(num_rows: int, num_samples: int, *, seed: int) -> np.ndarray:
    """Row of each training sample, int64 [num_samples]: epoch after epoch, each shuffled anew."""
    num_epochs = -(-num_samples // num_rows)
    epochs = [permutation(num_rows, seed, "pack rows", epoch) for epoch in range(num_epochs)]
    return np.concatenate(epochs)[:num_samples]


def pack_json(
    recipe: Pack, packed: Packed, *, rendered: Sequence[Rendered], families: Sequence[str]
) -> dict[str, Any]:
    """Counts of a pack: conversations, drops, rows, tokens, loss tokens, padding, epochs."""
    num_rows = len(packed.rows)
    num_samples = recipe.tokens // recipe.sequence_tokens
    kept = [number for row in packed.rows for number in row]
    tokens = sum(len(rendered[number].tokens_S) for number in kept)
    loss_tokens = sum(int(rendered[number].loss_mask_S.sum()) for number in kept)
    by_family: dict[str, int] = {}
    for number in packed.over_long:
        by_family[families[number]] = by_family.get(families[number], 0) + 1
    return {
        "format": 1,
        "sequence_tokens": recipe.sequence_tokens,
        "conversations": len(rendered),
        "conversations_packed": len(kept),
        "dropped": {OVER_LONG: len(packed.over_long)},
        "dropped_by_family": {OVER_LONG: by_family},
        "rows": num_rows,
        "tokens": tokens,
        "loss_tokens": loss_tokens,
        "padding_share": str(1 - Fraction(tokens, num_rows * (recipe.sequence_tokens + 1))),
        "num_samples": num_samples,
        "budget_tokens": recipe.tokens,
        "epochs": str(Fraction(num_samples, num_rows)),
        "seed": recipe.seed,
    }
