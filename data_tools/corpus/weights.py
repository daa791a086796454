"""Rows of a set in proportion to whole weights: how often each one stands there, exactly."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, batched
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.seeds import permutation, stream_bits
from frontload.data_tools.text.document import Conversation, Row, read_documents, write_rows
from frontload.data_tools.text.render import encode_rows
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import FAMILY, RowWeights

BATCH_ROWS = 1024
STREAM = "row_weights"


def times_of(weights: Sequence[int], *, seed: int) -> list[int]:
    """How often each row stands in a set of as many rows: its share, rounded down or up.

    Rows lie on a line in seeded order, each as long as its weight; a comb of as many teeth as there
    are rows, at a seeded offset, counts them. All in whole numbers, so the sum is exact, and the
    mean over seeds is the share itself.
    Source: systematic sampling, Madow and Madow 1944.
    """
    total, size = sum(weights), len(weights)
    offset = int(stream_bits(seed, STREAM, "offset").random_raw()) % total
    order = permutation(size, seed, STREAM).tolist()
    ends = accumulate(weights[place] for place in order)
    times, before = [0] * size, 0
    for place, end in zip(order, ends, strict=True):
        teeth = (end * size + offset) // total
        times[place], before = teeth - before, teeth
    return times


def write_weighted(
    source: Path, out: Path, *, row_weights: RowWeights, tokenizer: TextTokenizer, seed: int
) -> dict[str, Any]:
    """Writes the rows of `source` as often as they are drawn, round by round; returns counts.

    Each round holds a row once at most, in the order of the source: copies do not stand together.
    Raises: RecipeError for a family without a weight, or where all weights are 0.
    """
    weights = list(_weights(source, row_weights, tokenizer=tokenizer))
    if not any(weights):
        raise RecipeError(
            f"row_weights by {row_weights.field}",
            found=f"0 for each of {len(weights):_} rows",
            rule="a row or more has a weight above 0",
            do="raise a weight, or leave row_weights out",
        )
    times = times_of(weights, seed=seed)
    rows = write_rows(out, _rounds(source, times))
    return {
        "by": row_weights.field,
        "rows": rows,
        "distinct_rows": sum(count > 0 for count in times),
        "most_copies": max(times),
    }


def _rounds(source: Path, times: Sequence[int]) -> Iterator[Row]:
    for number in range(max(times)):
        for count, row in zip(times, read_documents(source), strict=True):
            if count > number:
                yield row


def _weights(source: Path, by: RowWeights, *, tokenizer: TextTokenizer) -> Iterator[int]:
    for rows in batched(read_documents(source), BATCH_ROWS):
        if by.field != FAMILY:
            yield from (int(one.loss_mask_S.sum()) for one in encode_rows(tokenizer, rows))
            continue
        for row in rows:
            family = row.family if isinstance(row, Conversation) else "base text"
            if family not in by.weights:
                raise RecipeError(
                    f"row_weights by {by.field}",
                    found=f"no weight for {family}, of row {row.id}",
                    rule="each family of the set has a weight",
                    do="add it, 0 to leave the family out",
                )
            yield by.weights[family]
