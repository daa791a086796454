"""Evaluation items of the recipe's benchmarks: their texts and answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.raw.parse import nearest_name
from frontload.data_tools.raw.rows import BadRow, read_rows
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.curation import Benchmark, Decontamination


@dataclass(frozen=True, kw_only=True)
class Item:
    """One evaluation item: its benchmark, where it stands, and its text."""

    benchmark: str
    name: str
    text: str
    answer: str = ""  # "" = not known


def read_items(name: str, benchmark: Benchmark) -> Iterator[Item]:
    """The items of one benchmark's files.

    Raises: RecipeError naming file and row, when a row has none of the fields.
    """
    at = f"decontamination.benchmarks.{name}"
    if not benchmark.fields:
        raise RecipeError(
            f"{at}.fields",
            found="no field",
            rule="an item's text stands in one or more fields",
            do="name for example question",
        )
    for file in expand_inputs(benchmark.files, asked_by=f"{at}.files"):
        for row in read_rows(file):
            where = f"{file}:{row.number}"
            if isinstance(row, BadRow):
                raise RecipeError(
                    f"{at}: {where}",
                    found=str(row.reason),
                    rule="every row of a benchmark is read, since a lost item is a leak",
                    do="mend the row",
                )
            texts = _texts(row.value, benchmark.fields, asked=f"{at}: {where}", at=at)
            answer = _answer(row.value, benchmark, asked=f"{at}: {where}")
            own = row.value.get(benchmark.name_field) if benchmark.name_field else ""
            own = own if isinstance(own, str) else ""
            yield Item(
                benchmark=own or name,
                name=f"{file.name}:{row.number}",
                text="\n".join(texts),
                answer=answer,
            )


def _texts(row: dict[str, Any], fields: Sequence[str], *, asked: str, at: str) -> list[str]:
    """The texts of an item's fields; null is as good as no field."""
    named = ", ".join(fields)
    there = {field: value for field in fields if (value := row.get(field)) is not None}
    for field, value in there.items():
        if not isinstance(value, str):
            raise RecipeError(
                asked,
                found=f"{field} is {value!r:.40}, of type {type(value).__name__}",
                rule=f"an item's {named} are text, since a lost item is a leak",
                do=f"write it as text, or take {field} out of {at}.fields",
            )
    texts = [text for text in there.values() if text.strip()]
    if not texts:
        present = f"{', '.join(there)} without text" if there else ""
        near = "" if present else nearest_name(fields[0], row)
        raise RecipeError(
            asked,
            found=present or f"fields {', '.join(sorted(row)) or 'none'}{near}",
            rule=f"an item has text in one of {named}",
            do="mend the row" if present else f"name the field in {at}.fields",
        )
    return texts


def _answer(row: dict[str, Any], benchmark: Benchmark, *, asked: str) -> str:
    """The text of an item's answer, which may be the number or letter of a choice.

    Raises: RecipeError where the fields say none.
    """
    if not benchmark.answer_fields:
        return ""
    values = [row[name] for name in benchmark.answer_fields if row.get(name) is not None]
    if values and not benchmark.choices_field:
        return "\n".join(str(value) for value in values)
    choices, [value] = row.get(benchmark.choices_field), values or [None]
    if isinstance(value, str) and len(value) == 1 and value.isalpha():
        value = ord(value.upper()) - ord("A")
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(choices, list) and isinstance(value, int) and 0 <= value < len(choices):
        return str(choices[value])
    named = ", ".join(benchmark.answer_fields)
    raise RecipeError(
        asked,
        found=f"{named} is {value!r:.40}"
        + (f", {benchmark.choices_field} is {choices!r:.60}" if benchmark.choices_field else ""),
        rule="an item's answer is a text, or the number or letter of one of its choices",
        do="mend the row, or take answer_fields out",
    )


def all_items(rules: Decontamination) -> list[Item]:
    """The items of every benchmark, in the order of the recipe.

    Raises: RecipeError for a benchmark without an item.
    """
    found: list[Item] = []
    for name, benchmark in rules.benchmarks.items():
        before = len(found)
        found.extend(read_items(name, benchmark))
        if len(found) == before:
            raise RecipeError(
                f"decontamination.benchmarks.{name}.files",
                found=f"no row in {', '.join(benchmark.files)}",
                rule="a benchmark has items",
                do="correct the files, or remove the benchmark",
            )
    return found


def benchmark_files(rules: Decontamination | None) -> list[Path]:
    """Every file of items.

    Raises: RecipeError for a pattern without a file.
    """
    if rules is None:
        return []
    return [
        file
        for name, benchmark in rules.benchmarks.items()
        for file in expand_inputs(
            benchmark.files, asked_by=f"decontamination.benchmarks.{name}.files"
        )
    ]
