"""Evaluation items and held-out rows made of a user's own held-out questions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import replacing
from frontload.data_tools.text.document import Conversation, row_line

BENCHMARK = "own"
CATEGORY = "own"
NUM_EXEMPLARS = 8  # as in GSM8K's usual prompt; the evaluation takes the first num_shots of them
EXEMPLAR_POOL = 64  # the shortest of this many drawn rows, so that shots fit a small context


def write_heldout(file: Path, rows: Sequence[Conversation]) -> None:
    """Writes the held-out worked answers; all are of the study's own kind of question."""
    with replacing(file, "w") as stream:
        for row in rows:
            stream.write(_line(json.loads(row_line(row)) | {"inside_shq": True}))


def write_items(
    file: Path,
    heldout: Sequence[Conversation],
    *,
    ranked_training: Sequence[Conversation],
) -> dict[str, int]:
    """Writes a generation and a few-shot item per question.

    Nothing is asked by multiple choice: wrong options would have to be made up, and options taken
    from the question score below chance.
    """
    pool = sorted(ranked_training[:EXEMPLAR_POOL], key=lambda row: (_size(row), row.id))
    exemplars = [_worked(row) for row in pool[:NUM_EXEMPLARS]]
    counts = {"generate": 0, "few_shot": 0}
    with replacing(file, "w") as stream:
        for row in heldout:
            for item in (_generate(row), _few_shot(row, exemplars)):
                counts[item["kind"]] += 1
                stream.write(_line(item))
    return counts


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True) + "\n"


def _size(row: Conversation) -> int:
    return len(row.question) + len(row.trace) + len(row.answer)


def _worked(row: Conversation) -> dict[str, str]:
    return {"question": row.question, "trace": row.trace, "answer": row.answer}


def _generate(row: Conversation) -> dict[str, Any]:
    return _worked(row) | {
        "id": f"{row.id}/generate",
        "kind": "generate",
        "benchmark": BENCHMARK,
        "category": CATEGORY,
        "family": row.family,
        "level": 0,
        "inside_shq": True,
        "hard": False,
    }


def _few_shot(row: Conversation, exemplars: Sequence[dict[str, str]]) -> dict[str, Any]:
    return {
        "id": f"{row.id}/few_shot",
        "kind": "few_shot",
        "benchmark": f"{BENCHMARK}_few_shot",
        "category": CATEGORY,
        "family": row.family,
        "question": row.question,
        "answer": row.answer,
        "exemplars": list(exemplars),
        "inside_shq": True,
    }
