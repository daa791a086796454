"""Rows of public files to the fields that NeMo-Skills' mathematics benchmarks read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frontload.recipes.errors import RecipeError

GOLD = "####"  # before the answer of a GSM8K solution


def read_nemo_rows(path: Path) -> list[dict[str, Any]]:
    """`problem` and `expected_answer` of each row of a JSONL file, in its order.

    Taken as they are; or from `question` and the answer behind `####` (GSM8K); or from `problem`
    and `answer` (MATH-500, AIME).

    Raises: RecipeError for a row with none of the three.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"rows {path}",
            found=f"no rows ({error})",
            rule="it is a JSONL file, a row a line",
            do="correct the path, or the line",
        ) from error
    return [_row(row, f"{path}:{number}") for number, row in enumerate(found, start=1)]


def _row(row: object, place: str) -> dict[str, Any]:
    found = row if isinstance(row, Mapping) else {}
    if "problem" in found and "expected_answer" in found:
        return dict(found)
    if "question" in found and GOLD in str(found.get("answer")):
        gold = str(found["answer"]).rpartition(GOLD)[2].strip().replace(",", "")
        return {"problem": found["question"], "expected_answer": gold}
    if "problem" in found and "answer" in found:
        return {"problem": found["problem"], "expected_answer": str(found["answer"])}
    raise RecipeError(
        f"rows {place}",
        found=f"fields {', '.join(map(str, found)) or 'none'}",
        rule="a row has problem and expected_answer, question and answer with ####, or problem "
        "and answer",
        do="name the fields so",
    )
