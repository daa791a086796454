"""Rows of the corpus: base text and conversations, read from and written to JSONL in a stream."""

import difflib
import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from frontload.data_tools.disk.files import replacing
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


def nearest_name(name: str, names: Iterable[str]) -> str:
    """' (nearest: X)' when one of `names` looks like `name`, else ''."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f" (nearest: {close[0]!r})" if close else ""


def open_bytes(path: Path) -> IO[bytes] | gzip.GzipFile:
    """Opens a file for reading, unpacking it when its name ends in .gz."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return open(path, "rb")


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
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            yield number, parse_object(line, where=f"{path}:{number}", error_type=error_type)


def parse_object(
    line: bytes, *, where: str, error_type: type[FrontloadError] = ArtifactError
) -> dict[str, Any]:
    """The JSON object of one line.

    Raises: `error_type` when it is none.
    """
    try:
        value = json.loads(line)
    except ValueError as error:
        shown = line[:60].decode("utf-8", "replace").strip()
        raise error_type(
            where,
            found=f"not JSON ({error}): {shown!r}",
            rule="every line is one JSON object in UTF-8",
            do="mend or delete this line",
        ) from error
    if not isinstance(value, dict):
        raise error_type(
            where,
            found=f"a JSON {type(value).__name__}",
            rule="every line is one JSON object",
            do="write the row as an object with named fields",
        )
    return value


@dataclass(frozen=True, kw_only=True)
class TextField:
    """A field that must hold text, and how to complain when it does not."""

    name: str
    asked_by: str = ""  # the recipe field that named it, for the message
    error_type: type[FrontloadError] = ArtifactError


def take_text(row: dict[str, Any], field: TextField, *, where: str) -> str:
    """The text in one field of a row.

    Raises: the field's error type, naming the nearest existing field, when it is no text.
    """
    asked_by = f" ({field.asked_by})" if field.asked_by else ""
    if field.name not in row:
        present = ", ".join(sorted(row)) or "none"
        raise field.error_type(
            f"{where}: field {field.name!r}{asked_by}",
            found=f"fields {present}{nearest_name(field.name, row)}",
            rule="every row has this field",
            do="name the field as it is in the file, or add it to the row",
        )
    value = row[field.name]
    if not isinstance(value, str):
        raise field.error_type(
            f"{where}: field {field.name!r}{asked_by}",
            found=f"a JSON {type(value).__name__}",
            rule="the field holds text",
            do="write it as a string",
        )
    return value


def read_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a corpus or documents file, each as BaseText or Conversation.

    Raises: ArtifactError naming file, line and field.
    """
    for number, found in read_objects(path):
        kind: type = BaseText if "text" in found else Conversation
        values = {name: found.get(name) for name in ROW_FIELDS[kind]}
        if not all(type(value) is str for value in values.values()):
            for name in values:
                take_text(found, TextField(name=name), where=f"{path}:{number}")
        yield kind(**values)


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
    values = {name: getattr(row, name) for name in ROW_FIELDS[type(row)]}
    return json.dumps(values, ensure_ascii=False) + "\n"


def training_texts(row: Row) -> tuple[str, ...]:
    """The texts of a row that a tokenizer has to cover."""
    if isinstance(row, BaseText):
        return (row.text,)
    return (row.question, row.trace, row.answer)
