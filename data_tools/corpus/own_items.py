"""Evaluation items and held-out rows made of a user's own held-out questions."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import replacing
from frontload.data_tools.disk.seeds import permutation
from frontload.data_tools.text.document import Conversation, row_line
from frontload.data_tools.text.render import generation_prompt

BENCHMARK = "own"
CATEGORY = "math"
NUM_EXEMPLARS = 8  # as in GSM8K's usual prompt; the evaluation takes the first num_shots of them
EXEMPLAR_POOL = 64  # the shortest of this many drawn rows, so that shots fit a small context
NUM_OPTIONS = 4
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


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
    seed: int,
) -> dict[str, int]:
    """Writes a generation, a few-shot and, where options exist, a choice item a question.

    A choice item asks for the final answer after the gold steps: numbers that stand in the question
    or its steps, then other questions' answers, are the wrong options.
    """
    pool = sorted(ranked_training[:EXEMPLAR_POOL], key=lambda row: (_size(row), row.id))
    exemplars = [_worked(row) for row in pool[:NUM_EXEMPLARS]]
    counts = {"generate": 0, "few_shot": 0, "choice": 0}
    with replacing(file, "w") as stream:
        for number, row in enumerate(heldout):
            found = [_generate(row), _few_shot(row, exemplars)]
            choice = _choice(row, heldout, number=number, seed=seed)
            found += [choice] if choice else []
            for item in found:
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


def _value(text: str) -> str:
    """The text without marks that leave a number what it is: 2,000 and 2000.0 are one option."""
    plain = text.replace(",", "").strip().casefold()
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _choice(
    row: Conversation, heldout: Sequence[Conversation], *, number: int, seed: int
) -> dict[str, Any] | None:
    near = NUMBER.findall(f"{row.question} {row.trace}")
    shuffled = permutation(len(heldout), seed, "options", number)
    others = [heldout[int(other)].answer for other in shuffled[: 4 * NUM_OPTIONS]]
    values = {_value(row.answer): row.answer}
    for text in (*near, *others):
        values.setdefault(_value(text), text)
    wrong = list(values.values())[1:]
    if len(wrong) < NUM_OPTIONS - 1:
        return None
    options = [row.answer, *wrong[: NUM_OPTIONS - 1]]
    order = [int(place) for place in permutation(NUM_OPTIONS, seed, "gold", number)]
    context = f"{generation_prompt(row.question)} {row.trace}".rstrip() + " <|answer|>"
    return {
        "id": f"{row.id}/choice",
        "kind": "choice",
        "benchmark": f"{BENCHMARK}_choice",
        "category": CATEGORY,
        "context": context,
        "options": [options[place] for place in order],
        "gold": order.index(0),
    }
