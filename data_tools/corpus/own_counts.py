"""What became of a user's own rows, in words: trained on, held out, left out and why."""

from collections.abc import Mapping
from typing import Any

COUNTS = "counts.json"


def own_counts_lines(counts: Mapping[str, Any]) -> list[str]:
    """counts.json of a user's own files as lines for people; the largest loss comes first."""
    rows, distinct = counts["rows"], counts["distinct_questions"]
    lines = [
        f"{rows['own']:,} worked answers to train on, {rows['heldout']:,} held out, "
        f"{rows['base']:,} documents of base text."
    ]
    if distinct < rows["own"]:
        lines.append(
            f"{rows['own'] - distinct:,} of the worked answers repeat a question: "
            f"{distinct:,} distinct ones."
        )
    dropped = sorted(counts["dropped"].items(), key=lambda item: (-item[1], item[0]))
    lines += [f"Left out: {number:,} ({reason})." for reason, number in dropped]
    return lines
