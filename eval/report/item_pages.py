"""Every question of every cell as data for one page: one file of questions, one file a cell.

The files are scripts that hand one JSON value to a function, since a page that is opened from a
disk may load a script beside it and nothing else. Texts are told apart once a file: an index stands
for each. items.html reads them with items.js, which puts texts into the page as text.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import replacing
from frontload.data_tools.text.document import read_objects
from frontload.eval.report.origins import ReportOrigin
from frontload.eval.results import (
    ChoiceResult,
    GeneratedResult,
    HeldoutResult,
    ResultFile,
    read_results,
)
from frontload.eval.tables.build import label_of
from frontload.eval.tables.questions import is_paper_study
from frontload.recipes.artifact import item_results_file

QUESTIONS_FILE = "questions.js"


@dataclass(frozen=True, kw_only=True)
class AskedQuestion:
    """One question, as the page shows it whatever cell answered it."""

    id: str
    benchmark: str
    category: str
    family: str  # "" for multiple choice
    level: int | str | None  # None where the data have no levels
    inside_shq: bool | None  # None for multiple choice, which has no family
    is_hard: bool
    text: str
    gold: str
    options: tuple[str, ...]  # of multiple choice


@dataclass
class Pool:
    """Numbers things by their first appearance: equal things share one number."""

    numbers: dict[Any, int] = field(default_factory=dict)

    def number(self, thing: Any) -> int:
        """The number of `thing`."""
        return self.numbers.setdefault(thing, len(self.numbers))


@dataclass
class _Corpora:
    """Rows of the items that were asked, by their file and id; each file is read once."""

    rows: dict[Path, dict[str, Mapping[str, Any]]] = field(default_factory=dict)

    def row(self, items: Path, name: str) -> Mapping[str, Any]:
        if items not in self.rows:
            self.rows[items] = {str(r["id"]): r for _, r in read_objects(items)}
        return self.rows[items].get(name, {})


def write_item_data(
    folder: Path, origins: Mapping[str, Sequence[ReportOrigin]], *, names: Mapping[str, str]
) -> list[AskedQuestion]:
    """Writes the answers of each cell and then all questions, which it returns.

    `names` are those of `origins.slugs`. Cells are read one at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.js"):
        stale.unlink()
    questions, corpora = Pool(), _Corpora()
    listed: list[dict[str, Any]] = []
    for cell, asked in origins.items():
        files = [read_results(item_results_file(one.folder)) for one in asked]
        data = _cell_data(files, asked, questions=questions, corpora=corpora)
        name = f"{names[cell]}.js"
        _write_call(folder / name, "frontload_answers", {"cell": cell, **data})
        listed.append(
            {
                "cell": cell,
                "label": label_of(cell),
                "file": name,
                "suite": files[0].protocol.suite,
                "temperature": files[0].protocol.temperature,
                "seeds": [
                    {"seed": one.seed, "evaluation": one.evaluation, "checkpoint": one.checkpoint}
                    for one in asked
                ],
            }
        )
    found: list[AskedQuestion] = list(questions.numbers)
    if not is_paper_study(origins):
        found = [replace(question, inside_shq=None) for question in found]
    rows = [list(vars(question).values()) for question in found]
    fields = list(AskedQuestion.__dataclass_fields__)
    whole = {"format": 1, "cells": listed, "fields": fields, "questions": rows}
    _write_call(folder / QUESTIONS_FILE, "frontload_questions", whole)
    return found


def _cell_data(
    files: Sequence[ResultFile],
    asked: Sequence[ReportOrigin],
    *,
    questions: Pool,
    corpora: _Corpora,
) -> dict[str, Any]:
    """One cell: texts, and for each seed a row a question.

    A sampled answer is [correct 0 or 1, text, answer, failure, tokens] with numbers of texts; a
    multiple choice is the list of its log-likelihoods, unrounded, so that none are equal by it.
    """
    texts = Pool()
    seeds = []
    for file, one in zip(files, asked, strict=True):
        rows = []
        for result in file.results:
            if isinstance(result, HeldoutResult):
                continue
            question = _question(result, corpora.row(one.items, result.id))
            rows.append([questions.number(question), _answers(result, texts)])
        seeds.append(rows)
    return {"texts": list(texts.numbers), "seeds": seeds}


def _answers(result: GeneratedResult | ChoiceResult, texts: Pool) -> list[Any]:
    if isinstance(result, ChoiceResult):
        return list(result.log_likelihoods)
    return [
        [
            int(sample.correct),
            texts.number(sample.text),
            texts.number(sample.answer),
            texts.number(sample.format_failure),
            sample.tokens,
        ]
        for sample in result.samples
    ]


def _question(result: GeneratedResult | ChoiceResult, row: Mapping[str, Any]) -> AskedQuestion:
    if isinstance(result, ChoiceResult):
        return AskedQuestion(
            id=result.id,
            benchmark=result.benchmark,
            category=result.category,
            family="",
            level=None,
            inside_shq=None,
            is_hard=False,
            text=str(row.get("context", "")),
            gold=str(result.gold),
            options=tuple(map(str, row.get("options", ()))),
        )
    return AskedQuestion(
        id=result.id,
        benchmark=result.benchmark,
        category=result.category,
        family=result.family,
        level=row.get("level"),
        inside_shq=result.inside_shq,
        is_hard=result.hard,
        text=result.question,
        gold=result.gold,
        options=(),
    )


def _write_call(path: Path, function: str, value: object) -> None:
    """`function(value);` in ASCII, without a `<`, so that no tag ends or begins in it anywhere."""
    text = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
    with replacing(path, "w") as stream:
        stream.write(f"{function}({text});\n")
