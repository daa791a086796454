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
                "prompt": prompt_name(known),
                "family": row["data_source"],
                "question": known.get("question", ""),
                "gold": row["reward_model"]["ground_truth"],
                "sample": sample,
                "answer": text,
                "reward": grade["score"],
                "accuracy": grade["acc"],
            }


def prompt_name(known: Mapping[str, Any]) -> str:
    """What a prompt is called: its index in the file that it came from, else in veRL's."""
    return known.get("source_index") or str(known.get("index", ""))


def described(family: str, known: Mapping[str, Any], text: str) -> dict[str, str]:
    """What veRL's own file of a validation lacks of an answer, to be noted beside its grades.

    Words only: of a number beside the grades veRL would log the mean.
    """
    return {
        "place": str(known.get("index", 0)),
        "prompt": prompt_name(known),
        "family": family,
        "question": known.get("question", ""),
        "answer": text,
    }


def read_described(lines: Sequence[Mapping[str, Any]], *, step: int) -> Iterator[dict[str, Any]]:
    """The answers of veRL's own file of a validation, in the order of `answers_of` and its form.

    Raises: KeyError, TypeError or ValueError for a line without what `described` noted.
    """

    def order(line: Mapping[str, Any]) -> tuple[int, int]:
        return int(line["place"]), _sample(line)

    for line in sorted(lines, key=order):
        yield {
            "step": step,
            **{name: str(line[name]) for name in ("prompt", "family", "question", "answer")},
            "gold": line["gts"],
            "sample": _sample(line),
            "reward": float(line["score"]),
            "accuracy": float(line["acc"]),
        }


def _sample(line: Mapping[str, Any]) -> int:
    """veRL's name of an answer is PROMPT_SAMPLE_TURN (trainer_base.py:1091)."""
    return int(str(line["uid"]).rsplit("_", 2)[1])
