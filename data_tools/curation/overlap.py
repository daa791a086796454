"""How much of one set stands in another: measured and reported, never removed.

The paper uses reasoning data in pretraining and in SFT on purpose; how much is known only if it is
counted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from frontload.data_tools.curation.clusters import equal_heads
from frontload.data_tools.curation.columns import DOCUMENT, QUESTION, RowTable
from frontload.data_tools.curation.sets import ChosenSet, near_heads


def measure_overlap(first: ChosenSet, second: ChosenSet, table: RowTable) -> dict[str, Any]:
    """Rows and tokens of each set that the other has too: the same row, its text, or its question.

    Held-out rows are not counted.
    """
    tokens = table.column("tokens").astype(np.int64)
    rows = np.flatnonzero(first.is_member | second.is_member)
    in_first, in_second = first.is_member[rows], second.is_member[rows]
    groups: dict[str, Callable[[], np.ndarray]] = {
        "same_row": lambda: np.arange(len(rows)),
        "exact": lambda: equal_heads(table.column("exact")[rows]),
        "near": lambda: near_heads(table, rows, DOCUMENT)[0],
        "question": lambda: equal_heads(table.column("question")[rows]),
        "near_question": lambda: near_heads(table, rows, QUESTION)[0],
    }
    found: dict[str, Any] = {"first": first.name, "second": second.name}
    for how, heads_of in groups.items():
        heads = heads_of()
        has_first = np.zeros(len(rows), dtype=bool)
        has_second = np.zeros(len(rows), dtype=bool)
        has_first[heads[in_first]] = True
        has_second[heads[in_second]] = True
        found[how] = {
            "of_first": _share(rows, in_first, has_second[heads], tokens),
            "of_second": _share(rows, in_second, has_first[heads], tokens),
        }
    return found


def _share(
    rows: np.ndarray, is_own: np.ndarray, is_in_other: np.ndarray, tokens: np.ndarray
) -> dict[str, float]:
    """Counts and shares of the rows of one set that stand in the other."""
    own, shared = rows[is_own], rows[is_own & is_in_other]
    all_tokens = int(tokens[own].sum())
    shared_tokens = int(tokens[shared].sum())
    return {
        "rows": len(shared),
        "tokens": shared_tokens,
        "share_of_rows": round(len(shared) / len(own), 6) if len(own) else 0.0,
        "share_of_tokens": round(shared_tokens / all_tokens, 6) if all_tokens else 0.0,
    }
