"""Rows of the corpus: base text and conversations, read from and written to JSONL in a stream."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import replacing
from frontload.data_tools.raw.parse import BadRow, RawRow, nearest_name
from frontload.data_tools.raw.rows import read_rows
from frontload.recipes.errors import ArtifactError, FrontloadError


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseText:
    """One document of base text."""

    id: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """One question with its worked answer: steps (`trace`, may be empty), then `answer`."""

    id: str
    question: str
    trace: str
    answer: str
    family: str
    domain: str


Row = BaseText | Conversation

ROW_FIELDS: dict[type, tuple[str, ...]] = {
    BaseText: ("id", "text"),
    Conversation: ("id", "question", "trace", "answer", "family", "domain"),
}


def read_objects(
    path: Path, *, error_type: type[FrontloadError] = ArtifactError
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, JSON object) of a JSONL file; blank lines are skipped.

    Raises: `error_type` naming file and line, when the file is missing or a line is not an object.
    """
    if not path.is_file():
        raise error_type(
            f"reading {path}",
            found="there is no such file",
            rule="it is a JSONL file, one object a line",
            do="correct the path, or build the artifact again",
        )
    for row in read_rows(path):
        yield row.number, require_row(row, error_type=error_type).value


def require_row(
    row: RawRow | BadRow, *, error_type: type[FrontloadError] = ArtifactError
) -> RawRow:
    """A row that can be used.

    Raises: `error_type` naming file and line, when it cannot.
    """
    if isinstance(row, RawRow):
        return row
    shown = row.raw[:60].decode("utf-8", "replace").strip()
    raise error_type(
        f"{row.file}:{row.number}",
        found=f"{row.reason}: {shown!r}",
        rule="every line is one JSON object in UTF-8",
        do="mend or delete this line",
    )


def require_text(row: dict[str, Any], name: str, *, where: str) -> str:
    """The text in one field of a row.

    Raises: ArtifactError, naming the nearest existing field, when it is no text.
    """
    value = row.get(name)
    if isinstance(value, str):
        return value
    found = f"fields {', '.join(sorted(row)) or 'none'}{nearest_name(name, row)}"
    raise ArtifactError(
        f"{where}: field {name!r}",
        found=f"a JSON {type(value).__name__}" if name in row else found,
        rule="every row has this field, and it holds text",
        do="write it as a string, under the name that it has in the other rows",
    )


def read_documents(path: Path) -> Iterator[Row]:
    """Yields the rows of a corpus or documents file, each as BaseText or Conversation.

    Raises: ArtifactError naming file, line and field.
    """
    for number, found in read_objects(path):
        kind: type = BaseText if "text" in found else Conversation
        names = ROW_FIELDS[kind]
        yield kind(**{name: require_text(found, name, where=f"{path}:{number}") for name in names})


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Writes rows as JSONL and returns how many."""
    count = 0
    with replacing(path, "w") as stream:
        for row in rows:
            stream.write(row_line(row))
            count += 1
    return count


def row_line(row: Row) -> str:
    """The JSONL line of a row, with its line break."""
    return json_line({name: getattr(row, name) for name in ROW_FIELDS[type(row)]})


def json_line(row: dict[str, Any]) -> str:
    """A row of JSONL in the form of a corpus, with its line break."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def training_texts(row: Row) -> tuple[str, ...]:
    """The texts of a row that a tokenizer has to cover."""
    if isinstance(row, BaseText):
        return (row.text,)
    return (row.question, row.trace, row.answer)
