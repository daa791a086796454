"""Where a training sample came from: its source, its documents, their rows and its text."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from frontload.data_tools.document import read_rows
from frontload.data_tools.indexed import IndexedReader
from frontload.data_tools.proof.blend import BlendFiles, read_blend
from frontload.data_tools.tokenizer import TextTokenizer
from frontload.recipes.artifact import documents_file, index_prefix
from frontload.recipes.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class DocumentPart:
    """The tokens [offset, offset + tokens) of one document inside a sample."""

    id: str
    row: int  # of documents.jsonl, from 0; also the document's number in the index
    offset: int
    tokens: int
    epoch: int
    text: str


@dataclass(frozen=True, kw_only=True)
class SampleOrigin:
    """One training sample of a phase: the inputs it holds, document by document."""

    phase: str
    number: int
    source: str
    stream_tokens: int  # place of its first token in the source's stream
    documents: tuple[DocumentPart, ...]

    def to_text(self) -> str:
        """A form for people: one head line, then each document with its text."""
        lines = [
            f"sample {self.number} of phase {self.phase}: source {self.source},"
            f" stream token {self.stream_tokens}"
        ]
        for part in self.documents:
            lines.append(
                f"  {part.id} (row {part.row}): tokens {part.offset} to"
                f" {part.offset + part.tokens}, epoch {part.epoch}"
            )
            lines.append(f"    {part.text}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class SourceFolders:
    """The artifacts behind a blend: per source its index and its documents, and the tokenizer."""

    index: Mapping[str, Path]
    documents: Mapping[str, Path]
    tokenizer: Path


def explain_sample(blend_folder: Path, folders: SourceFolders, *, number: int) -> SampleOrigin:
    """Names the documents of training sample `number` of a phase, and decodes its inputs.

    Raises: RecipeError when the phase has no such sample.
    """
    blend = read_blend(blend_folder)
    if not 0 <= number < len(blend.samples):
        raise RecipeError(
            f"sample {number} of phase {blend.plan['phase']}",
            found=f"{len(blend.samples)} samples",
            rule="samples are numbered from 0 in training order",
            do=f"ask for 0 to {len(blend.samples) - 1}",
        )
    source_number, place = (int(value) for value in blend.samples[number])
    source = blend.plan["sources"][source_number]
    name = source["name"]
    spans = _document_spans(blend, name, place=place)
    reader = IndexedReader(index_prefix(folders.index[name]))
    tokenizer = TextTokenizer.load(folders.tokenizer)
    ids = _row_ids(documents_file(folders.documents[name]), {row for row, *_ in spans})
    parts = tuple(
        DocumentPart(
            id=ids[row],
            row=row,
            offset=offset,
            tokens=tokens,
            epoch=(source["stream_start"] + listed_at) // source["document_tokens"],
            text=tokenizer.decode(reader.document(row)[offset : offset + tokens].tolist()),
        )
        for row, offset, tokens, listed_at in spans
    )
    return SampleOrigin(
        phase=blend.plan["phase"],
        number=number,
        source=name,
        stream_tokens=source["stream_start"] + place,
        documents=parts,
    )


def _document_spans(
    blend: BlendFiles, source: str, *, place: int
) -> list[tuple[int, int, int, int]]:
    """(row, first token, tokens, start of the document in the slice) of each document touched."""
    offsets, end = blend.offsets[source], place + blend.plan["sequence_tokens"]
    first = int(np.searchsorted(offsets, place, side="right")) - 1
    last = int(np.searchsorted(offsets, end, side="left"))
    spans = []
    for at in range(first, last):
        start, stop = int(offsets[at]), int(offsets[at + 1])
        begin, finish = max(place, start), min(end, stop)
        if finish > begin:
            spans.append((int(blend.order[source][at]), begin - start, finish - begin, start))
    return spans


def _row_ids(file: Path, wanted: set[int]) -> dict[int, str]:
    rows = islice(read_rows(file), max(wanted) + 1)
    return {number: row.id for number, row in enumerate(rows) if number in wanted}
