"""From a document of an index back to the row it was read from: its file, row and id.

An index of the study's store goes back through its documents (which say where each row was read, or
whose ids are those of the corpus); a preprocessed prefix through the parts of its manifest.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import Shape, read_object
from frontload.data_tools.disk.indexed import IndexedReader, manifest_file
from frontload.data_tools.raw.parse import RawRow, RejectReason
from frontload.data_tools.raw.rows import read_rows
from frontload.data_tools.text.document import read_objects
from frontload.data_tools.text.row_text import TextRule, row_text
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.artifact import documents_file
from frontload.recipes.errors import ArtifactError

ORIGINS: dict[str, Shape] = {
    "inputs": [{"name": str}],
    "parts": [{"input": int, "documents": int, "lines": int}],
    "json_key": str,
}
"""What is read of a manifest to find rows."""


@dataclass(frozen=True, kw_only=True)
class RowOrigin:
    """Where a document was read. `last_row` is above `row` when drops leave it open which row."""

    file: str
    row: int  # from 1: line of a file, or row of a table
    last_row: int
    id: str = ""
    before: str = ""  # where that row itself came from, when it says so

    def to_text(self) -> str:
        """A form for people."""
        rows = (
            f"row {self.row}"
            if self.row == self.last_row
            else (f"one of rows {self.row} to {self.last_row}")
        )
        shown = f"{self.file} {rows}" if self.row else self.file
        return f"{shown}, from {self.before}" if self.before else shown


@dataclass(frozen=True, kw_only=True)
class Trail:
    """What lies behind an index: documents and corpus of the store, or the files it was made of."""

    prefix: Path
    documents: Path | None = None
    corpus: Path | None = None
    inputs: Sequence[Path] = field(default_factory=tuple)


def origins(
    trail: Trail, numbers: Collection[int], tokenizer: TextTokenizer
) -> dict[int, RowOrigin]:
    """Origin of each document number; those that nothing tells of are left out."""
    if trail.documents is not None and documents_file(trail.documents).is_file():
        return _through_documents(documents_file(trail.documents), trail.corpus, numbers)
    if not manifest_file(trail.prefix).is_file():
        return {}
    if "parts" not in read_object(manifest_file(trail.prefix), {}):
        return {}
    manifest = read_object(manifest_file(trail.prefix), ORIGINS)
    found = {number: _in_parts(manifest, number) for number in numbers}
    by_name = {file.name: file for file in trail.inputs}
    reader = IndexedReader(trail.prefix)
    return {
        number: _narrowed(
            one, by_name[one.file], manifest, reader.document(number).tolist(), tokenizer
        )
        if one.file in by_name
        else one
        for number, one in found.items()
    }


def _through_documents(
    file: Path, corpus: Path | None, numbers: Collection[int]
) -> dict[int, RowOrigin]:
    rows = islice(read_objects(file), max(numbers) + 1)
    wanted = {number: row for number, (_, row) in enumerate(rows) if number in numbers}
    missing = {str(row["id"]) for row in wanted.values() if "file" not in row}
    in_corpus = _rows_of_corpus(corpus, missing) if corpus is not None and missing else {}
    found = {}
    for number, row in wanted.items():
        name = str(row["id"])
        if "file" in row:
            origin = (str(row["file"]), int(row["row"]))
        else:
            origin = in_corpus.get(name, (f"{file.parent.name}/{file.name}", number + 1))
        found[number] = RowOrigin(file=origin[0], row=origin[1], last_row=origin[1], id=name)
    return found


def _rows_of_corpus(corpus: Path, names: Collection[str]) -> dict[str, tuple[str, int]]:
    """id -> (file of the corpus, line) of the rows with these ids."""
    left, found = set(names), {}
    for file in sorted(corpus.glob("*.jsonl")):
        if file.stem in ("items", "heldout"):
            continue  # never trained on
        with open(file, encoding="utf-8") as stream:
            for line, text in enumerate(stream, start=1):
                name = next((one for one in left if f'"id": "{one}"' in text), None)
                if name is None:
                    continue
                found[name] = (f"{corpus.name}/{file.name}", line)
                left.discard(name)
                if not left:
                    return found
    return found


def _in_parts(manifest: Mapping[str, Any], number: int) -> RowOrigin:
    """The rows that a document of a prefix can be: exact where its part dropped none."""
    first_document = 0
    lines_before: dict[int, int] = {}
    for part in manifest["parts"]:
        source = part["input"]
        if number < first_document + part["documents"] and source < len(manifest["inputs"]):
            row = lines_before.get(source, 0) + number - first_document + 1
            name = manifest["inputs"][source]["name"]
            spare = part["lines"] - part["documents"]
            return RowOrigin(file=name, row=row, last_row=row + spare)
        first_document += part["documents"]
        lines_before[source] = lines_before.get(source, 0) + part["lines"]
    raise ArtifactError(
        f"finding the row of document {number}",
        found=f"a manifest whose parts hold {first_document} documents of its inputs",
        rule="the parts of a manifest hold all documents of the .idx, each of one input",
        do="look at both with `frontload data verify`; one of them was edited",
    )


def _narrowed(
    origin: RowOrigin,
    file: Path,
    manifest: Mapping[str, Any],
    ids: list[int],
    tokenizer: TextTokenizer,
) -> RowOrigin:
    """The row of the file itself whose text has these ids; as it was when none has."""
    if manifest.get("append_eod"):
        ids = ids[:-1]
    chat = tokenizer.file if manifest.get("template_sha256") else None
    end = manifest.get("eod_token") or ""
    text_of = row_text(TextRule(key=manifest["json_key"], chat=chat, end=end))
    for row in read_rows(file):
        if row.number > origin.last_row:
            break
        if row.number < origin.row or not isinstance(row, RawRow):
            continue
        text = text_of.look_again(row.value)
        if isinstance(text, RejectReason) or tokenizer.encode_batch([text])[0] != ids:
            continue
        before = f"{row.value['file']} row {row.value['row']}" if "file" in row.value else ""
        return RowOrigin(
            file=origin.file,
            row=row.number,
            last_row=row.number,
            id=str(row.value.get("id", "")),
            before=before,
        )
    return origin
