"""One unit of work: rows read, texts encoded, tokens written; a receipt, last, says it is whole."""

import base64
import json
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import orjson
import xxhash

from frontload.data_tools.disk.publish import disk_told
from frontload.data_tools.preprocess.encoder import Encoded, Encoder, utf8_bytes
from frontload.data_tools.preprocess.plan import PlannedSource, Unit
from frontload.data_tools.preprocess.vocabulary import as_json
from frontload.data_tools.raw.inputs import Format
from frontload.data_tools.raw.lines import (
    HEAD_BYTES,
    OverSizeLine,
    RangeReader,
    open_packed,
    split_lines,
)
from frontload.data_tools.raw.parse import RejectReason, parse_line, shown_bytes
from frontload.data_tools.stores.stream import check_unmoved, open_binary
from frontload.data_tools.text.row_text import RowText, TextRule, row_text

BATCH_BYTES = 1 << 19  # ours: text encoded at a time; stays in the processor's cache
EXAMPLES = 3  # bad rows that a receipt shows


@dataclass(frozen=True, kw_only=True)
class UnitJob:
    """A unit with what it needs to be encoded anywhere."""

    unit: Unit
    source: PlannedSource
    folder: Path
    text: TextRule
    max_row_bytes: int
    keeps_rejects: bool


@dataclass(kw_only=True)
class Receipt:
    """What a finished unit holds. `lines` counts blank lines too, `rows` does not."""

    unit: int
    lines: int = 0
    rows: int = 0
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    checked: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: list[list[Any]] = field(default_factory=list)
    source_xxh3: str = ""
    bin_xxh3: str = ""
    lengths_xxh3: str = ""
    encoder: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that gives no document: its number in the unit, the reason, its bytes (or a part)."""

    number: int
    reason: RejectReason
    raw: bytes
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """Texts that may be encoded, the numbers of their rows in the unit, and the rows dropped."""

    texts: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    raw: Callable[[int], bytes]
    """The bytes of the row with that number."""

    def all_dropped(self, encoded: Encoded) -> list[Dropped]:
        """The drops in order, with the texts that the encoder made no document of."""
        reasons = dict.fromkeys(encoded.refused, RejectReason.SPECIAL_TOKEN)
        reasons |= dict.fromkeys(encoded.empty, RejectReason.NO_TOKEN)
        found = list(self.dropped)
        for at, reason in reasons.items():
            raw = self.raw(self.numbers[at])
            found.append(Dropped(self.numbers[at], reason, raw, len(raw)))
        return sorted(found, key=lambda row: row.number)


def unit_file(folder: Path, number: int, kind: str) -> Path:
    """A file of a unit: `bin`, `lengths`, `rejects` or, written last, `json`."""
    return folder / f"unit-{number:06d}.{kind}"


def read_receipt(folder: Path, number: int) -> Receipt | None:
    """The receipt of a finished unit whose files are still what it says, else None.

    One that a power cut tore is none: the unit is encoded again.
    """
    try:
        receipt = Receipt(**json.loads(unit_file(folder, number, "json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    stated = (("bin", receipt.bin_xxh3), ("lengths", receipt.lengths_xxh3))
    for kind, digest in stated:
        part = unit_file(folder, number, kind)
        if not part.is_file() or file_xxh3(part) != digest:
            return None
    return receipt


def file_xxh3(file: Path, *, start: int = 0, stop: int | None = None) -> str:
    """xxh3 of the bytes [start, stop) of a file."""
    digest = xxhash.xxh3_128()
    left = (file.stat().st_size if stop is None else stop) - start
    with open_binary(file) as stream:
        stream.seek(start)
        while left > 0 and (data := stream.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def encode_unit(
    job: UnitJob, encoder: Encoder, *, encoder_name: str, report: Callable[[int], object]
) -> Receipt:
    """Writes the files of a unit and returns its receipt; `report` is told of bytes read.

    Raises: RecipeError for a damaged file, StageError when the disk refuses, ParityError.
    """
    receipt = Receipt(unit=job.unit.number, encoder=encoder_name)
    encoder.renew()
    with _UnitWriter(job, receipt) as writer:
        for batch in _batches(job, receipt, report):
            encoded = encoder.encode(batch.texts)
            if not receipt.checked:
                receipt.checked += encoder.check_encoded(batch.texts, encoded)
            writer.write(encoded, batch.all_dropped(encoded))
        check_unmoved(job.source.file)
    return receipt


class _UnitWriter:
    """The files of one unit under temporary names; renamed when its block ends well."""

    def __init__(self, job: UnitJob, receipt: Receipt) -> None:
        self._job, self._receipt = job, receipt
        self._lengths = array("i")
        self._digest = xxhash.xxh3_128()
        self._kinds = ["bin", "rejects"] if job.keeps_rejects else ["bin"]
        self._streams: dict[str, IO[bytes]] = {}

    def _file(self, kind: str) -> Path:
        return unit_file(self._job.folder, self._job.unit.number, kind)

    def _temporary(self, kind: str) -> Path:
        file = self._file(kind)
        return file.with_name(f"{file.name}.{os.getpid()}.partial")

    def __enter__(self) -> "_UnitWriter":
        with disk_told(self._file("bin")):
            for kind in self._kinds:
                self._streams[kind] = open(self._temporary(kind), "wb")
        return self

    def write(self, encoded: Encoded, dropped: list[Dropped]) -> None:
        """Adds the documents and drops of one batch."""
        receipt = self._receipt
        data = encoded.tokens.data
        with disk_told(self._file("bin")):
            self._streams["bin"].write(data)
        self._digest.update(data)
        self._lengths.frombytes(encoded.lengths.tobytes())
        receipt.documents += len(encoded.lengths)
        receipt.tokens += len(encoded.tokens)
        receipt.text_bytes += encoded.text_bytes
        for row in dropped:
            receipt.dropped[row.reason] = receipt.dropped.get(row.reason, 0) + 1
            if len(receipt.examples) < EXAMPLES:
                receipt.examples.append([row.number, str(row.reason), row.raw[:80].hex()])
            if self._job.keeps_rejects:
                with disk_told(self._file("rejects")):
                    self._streams["rejects"].write(_reject(row).encode())

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        names = (*self._kinds, "lengths", "json")
        try:
            with disk_told(self._file("bin")):
                for stream in self._streams.values():
                    stream.close()
                if kind is None:
                    self._finish()
                    for name in names:
                        os.replace(self._temporary(name), self._file(name))
        finally:
            for name in names:
                self._temporary(name).unlink(missing_ok=True)

    def _finish(self) -> None:
        lengths = self._lengths.tobytes()
        self._temporary("lengths").write_bytes(lengths)
        self._receipt.bin_xxh3 = self._digest.hexdigest()
        self._receipt.lengths_xxh3 = xxhash.xxh3_128(lengths).hexdigest()
        self._temporary("json").write_text(as_json(asdict(self._receipt)))


def _reject(row: Dropped) -> str:
    try:
        raw = {"text": row.raw.decode("utf-8")}
    except UnicodeDecodeError:
        raw = {"base64": base64.b64encode(row.raw).decode()}
    return as_json({"row": row.number, "reason": row.reason, "bytes": row.num_bytes, **raw})


def _batches(
    job: UnitJob, receipt: Receipt, report: Callable[[int], object]
) -> Iterator[TextBatch]:
    """The rows of a unit, some at a time; counts lines and rows in the receipt."""
    unit, source = job.unit, job.source
    if source.format is Format.PARQUET:
        yield from _table_batches(job, receipt, report)
        receipt.source_xxh3 = file_xxh3(source.file, start=unit.start, stop=unit.stop)
        return
    if source.format is Format.JSONL:
        digest = xxhash.xxh3_128()
        reader = RangeReader(source.file, start=unit.start, stop=unit.stop, seen=digest.update)
        try:
            yield from _line_batches(job, receipt, _reported(reader, report))
        finally:
            reader.close()
        receipt.source_xxh3 = digest.hexdigest()
        return
    digest = xxhash.xxh3_128()
    with open_packed(source.file, source.format, report=report, seen=digest.update) as read:
        yield from _line_batches(job, receipt, read)
    receipt.source_xxh3 = digest.hexdigest()


def _reported(read: Callable[[int], bytes], report: Callable[[int], object]) -> Callable:
    def reported(size: int) -> bytes:
        data = read(min(size, BATCH_BYTES))
        report(len(data))
        return data

    return reported


def _line_batches(
    job: UnitJob, receipt: Receipt, read: Callable[[int], bytes]
) -> Iterator[TextBatch]:
    text_of, loads = row_text(job.text), orjson.loads
    take = text_of.take
    at_file_start = job.unit.start == 0
    for lines in split_lines(read, max_row_bytes=job.max_row_bytes):
        first = receipt.lines + 1
        batch = TextBatch(raw=partial(_line, lines, first))
        texts, numbers = batch.texts, batch.numbers
        blank = 0
        for number, line in enumerate(lines, start=first):
            try:
                text = take(loads(line))  # type: ignore[arg-type]
                if type(text) is str and text and not text.isspace():
                    texts.append(text)
                    numbers.append(number)
                    continue
            except (ValueError, KeyError, TypeError, AttributeError):
                pass
            line = line if isinstance(line, OverSizeLine) else bytes(line)
            found = _look_again(line, text_of, is_first=at_file_start and number == 1)
            if found is None:
                blank += 1
            elif isinstance(found, RejectReason):
                batch.dropped.append(_dropped(number, found, line=line))
            else:
                texts.append(found)
                numbers.append(number)
        receipt.lines += len(lines)
        receipt.rows += len(lines) - blank
        yield batch


def _line(lines: Sequence[bytes | memoryview | OverSizeLine], first: int, number: int) -> bytes:
    line = lines[number - first]
    assert not isinstance(line, OverSizeLine), "a line that is over size gives no text"
    return bytes(line)


def _look_again(
    line: bytes | OverSizeLine, text_of: RowText, *, is_first: bool
) -> str | RejectReason | None:
    """The slow way for a line that is not plainly good: its text, the reason, None if blank."""
    if isinstance(line, OverSizeLine):
        return RejectReason.OVER_SIZE
    value = parse_line(line, is_first=is_first)
    return text_of.look_again(value) if isinstance(value, dict) else value


def _dropped(number: int, reason: RejectReason, *, line: bytes | OverSizeLine) -> Dropped:
    if isinstance(line, OverSizeLine):
        return Dropped(number, reason, line.head, line.num_bytes)
    return Dropped(number, reason, line, len(line))


def _table_batches(
    job: UnitJob, receipt: Receipt, report: Callable[[int], object]
) -> Iterator[TextBatch]:
    from frontload.data_tools.raw.parquet import BadCells, batch_rows, open_table, read_batches

    text_of = row_text(job.text)
    first, end = job.unit.row_groups or (0, 0)
    share = (job.unit.stop - job.unit.start) // max(end - first, 1)
    with open_table(job.source.file) as table:
        for group in range(first, end):
            for found in read_batches(
                job.source.file, table, row_group=group, columns=text_of.columns
            ):
                texts: dict[int, str] = {}
                dropped: list[Dropped] = []
                for number, row in enumerate(batch_rows(found), start=receipt.lines + 1):
                    if isinstance(row, BadCells):
                        raw = row.raw
                        dropped.append(Dropped(number, RejectReason.INVALID_UTF8, raw, len(raw)))
                        continue
                    text = text_of.look_again(row)
                    if not isinstance(text, RejectReason) and utf8_bytes(text) > job.max_row_bytes:
                        text = RejectReason.OVER_SIZE
                    if isinstance(text, RejectReason):
                        dropped.append(_dropped_cell(number, text, text_of.cell(row)))
                    else:
                        texts[number] = text
                receipt.lines += len(texts) + len(dropped)
                receipt.rows = receipt.lines
                yield TextBatch(
                    texts=list(texts.values()),
                    numbers=list(texts),
                    dropped=dropped,
                    raw=partial(_cell, texts),
                )
            report(share)


def _cell(texts: Mapping[int, str], number: int) -> bytes:
    return texts[number].encode()


def _dropped_cell(number: int, reason: RejectReason, value: object) -> Dropped:
    """A table's drop: of text its bytes, of an over-size one the first; else what shows it."""
    raw = value.encode() if isinstance(value, str) else shown_bytes(value)
    return Dropped(
        number, reason, raw[:HEAD_BYTES] if reason is RejectReason.OVER_SIZE else raw, len(raw)
    )


def read_texts(job: UnitJob) -> Iterator[str]:
    """The texts of a unit, read without writing anything."""
    for batch in _batches(job, Receipt(unit=job.unit.number), lambda num_bytes: None):
        yield from batch.texts
