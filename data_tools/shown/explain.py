"""Where a training sample came from: its source, its documents, their rows and its text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.artifacts.read import BlendFiles, prefix_of, read_blend
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.shown.provenance import RowOrigin, Trail, origins
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.artifact import index_prefix
from frontload.recipes.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class DocumentPart:
    """The tokens [offset, offset + tokens) of one document inside a sample."""

    id: str
    row: int  # the document's number in the index, from 0; of a study also its documents.jsonl row
    origin: RowOrigin | None
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
            name = f"{part.id} (document {part.row})" if part.id else f"document {part.row}"
            read = part.origin.to_text() if part.origin else "a row that nothing tells of"
            lines.append(
                f"  {name}: {read}; tokens {part.offset} to {part.offset + part.tokens},"
                f" epoch {part.epoch}"
            )
            lines.append(f"    {part.text}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class SourceFolders:
    """What lies behind a blend: per source its index, folder or prefix, and where that came from.

    `inputs` are files that a prefix was made of: they tell the exact row where some were dropped.
    """

    index: Mapping[str, Path]
    tokenizer: Path
    documents: Mapping[str, Path] = field(default_factory=dict)
    corpus: Mapping[str, Path] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()


def sources_in_store(indexes: Mapping[str, Path], **other: Any) -> SourceFolders:
    """The folders behind indexes that lie in a store, through the keys in their manifests."""
    documents: dict[str, Path] = {}
    corpus: dict[str, Path] = {}
    for name, index in indexes.items():
        folder = index.parent if index == index_prefix(index.parent) else index
        if found := _input_in_store(folder, "documents"):
            documents[name] = found
            if further := _input_in_store(found, "corpus"):
                corpus[name] = further
    return SourceFolders(index=indexes, documents=documents, corpus=corpus, **other)


def _input_in_store(folder: Path, role: str) -> Path | None:
    """The artifact that another one of the same store was made from."""
    file = folder / "manifest.json"
    key = read_json(file).get("inputs", {}).get(role) if file.is_file() else None
    return next(folder.resolve().parent.parent.glob(f"*/*-{key}"), None) if key else None


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
    prefix = prefix_of(folders.index[name])
    reader, tokenizer = IndexedReader(prefix), TextTokenizer.load(folders.tokenizer)
    trail = Trail(
        prefix=prefix,
        documents=folders.documents.get(name),
        corpus=folders.corpus.get(name),
        inputs=folders.inputs,
    )
    read = origins(trail, {row for row, *_ in spans}, tokenizer)
    parts = tuple(
        DocumentPart(
            id=read[row].id if row in read else "",
            row=row,
            origin=read.get(row),
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
