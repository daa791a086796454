"""Documents that a model is asked about, read from raw files; what is left out has its reason."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.raw.parse import BadRow, RejectReason, take_text
from frontload.data_tools.raw.rows import read_rows
from frontload.data_tools.text.render import has_special_token


@dataclass(frozen=True, kw_only=True)
class DroppedDocument:
    """A row that gives nothing, and why."""

    file: Path
    number: int
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Its line in the file of drops."""
        return {"file": self.file.name, "row": self.number, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class SourceDocument:
    """One text with its row and its place."""

    file: Path
    number: int  # of the row, from 1
    row: dict[str, Any]
    text: str

    @property
    def id(self) -> str:
        """Of the text: the same document has one name wherever it lies."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def dropped(self, reason: str) -> DroppedDocument:
        """This document as one that gives nothing."""
        return DroppedDocument(file=self.file, number=self.number, reason=reason)


def source_documents(
    files: Sequence[Path], *, key: str, most_words: int
) -> Iterator[SourceDocument | DroppedDocument]:
    """Every row of the files, in order: a document of at most `most_words` words, or a drop."""
    for file in files:
        for row in read_rows(file):
            if isinstance(row, BadRow):
                yield DroppedDocument(file=file, number=row.number, reason=str(row.reason))
                continue
            text = take_text(row.value, key)
            why = str(text) if isinstance(text, RejectReason) else _refusal(text, most_words)
            if why:
                yield DroppedDocument(file=file, number=row.number, reason=why)
            else:
                yield SourceDocument(file=file, number=row.number, row=row.value, text=str(text))


def _refusal(text: str, most_words: int) -> str:
    if has_special_token(text):
        return str(RejectReason.SPECIAL_TOKEN)
    return f"over {most_words} words" if len(text.split()) > most_words else ""
