"""What was answered at a validation: written as it is graded, start and end kept for a reader."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

KEPT_ANSWERS = 512
"""The most answers of one validation that an artifact keeps: those of its first prompts."""


def write_answers(folder: Path, step: int, answers: Sequence[Mapping[str, Any]]) -> None:
    """Writes a validation's first answers; the file appears whole, before its step is logged."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{step}.partial"
    with open(aside, "w", encoding="utf-8") as file:
        for answer in answers[:KEPT_ANSWERS]:
            file.write(json.dumps({"step": step, **answer}, sort_keys=True) + "\n")
    os.replace(aside, answers_file(folder, step))


def answers_file(folder: Path, step: int) -> Path:
    """Where the answers of the validation after `step` lie."""
    return folder / f"{step}.jsonl"


def answers_of(
    rows: Sequence[Mapping[str, Any]],
    texts: Sequence[Sequence[str]],
    scores: Sequence[Sequence[Mapping[str, float]]],
) -> Iterator[dict[str, Any]]:
    """One object an answer: prompt, family, question, gold answer, the text and its grades.

    `rows` are rows of veRL's batch, `texts` and `scores` [prompt][sample].
    """
    for row, group, grades in zip(rows, texts, scores, strict=True):
        known = row["extra_info"]
        for sample, (text, grade) in enumerate(zip(group, grades, strict=True)):
            yield {
                "prompt": known.get("source_index") or str(known.get("index", "")),
                "family": row["data_source"],
                "question": known.get("question", ""),
                "gold": row["reward_model"]["ground_truth"],
                "sample": sample,
                "answer": text,
                "reward": grade["score"],
                "accuracy": grade["acc"],
            }
