"""Rows of Parquet files: row group by row group, only the columns asked for, damage told."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from frontload.data_tools.raw.lines import BLOCK_BYTES, HEAD_BYTES
from frontload.data_tools.raw.parse import BadRow, RawRow, RejectReason, nearest_name, shown_bytes
from frontload.data_tools.stores.path import StorePath
from frontload.data_tools.stores.stream import open_binary
from frontload.recipes.errors import RecipeError

BATCH_ROWS = 256  # ours: about 1 MB of web text; decides memory, not bytes


@contextmanager
def open_table(file: Path) -> Iterator[parquet.ParquetFile]:
    """Opens a Parquet file so that a column is read page by page.

    Raises: RecipeError when its footer is missing or damaged.
    """
    try:
        in_store = isinstance(file, StorePath)  # of a disk arrow reads faster than by Python
        source = BufferedReader(open_binary(file, is_table=True)) if in_store else file
        table = parquet.ParquetFile(source, buffer_size=BLOCK_BYTES, pre_buffer=False)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # a column's name
        size = file.stat().st_size
        raise RecipeError(
            f"reading {file} at its footer, before byte {size}",
            found=f"no Parquet file, or one that was cut ({_first_line(error)})",
            rule="a Parquet file ends with its footer",
            do="fetch it again, or leave it out",
        ) from error
    try:
        with table:
            yield table
    finally:
        table.close(force=True)


def check_columns(file: Path, table: parquet.ParquetFile, *, columns: Sequence[str]) -> None:
    """Refuses columns that a table does not have, or has twice."""
    present = table.schema_arrow.names
    for column in columns:
        if present.count(column) > 1:
            raise RecipeError(
                f"column {column!r} of {file}",
                found=f"{present.count(column)} columns of that name",
                rule="a name tells one column",
                do="write the table again with a name for each column",
            )
        if column not in present:
            raise RecipeError(
                f"column {column!r} of {file}",
                found=f"columns {', '.join(present) or 'none'}{nearest_name(column, present)}",
                rule="the table has every column asked for",
                do="name the column as it is in the file",
            )


def read_batches(
    file: Path, table: parquet.ParquetFile, *, row_group: int, columns: Sequence[str] | None
) -> Iterator[pyarrow.RecordBatch]:
    """The batches of one row group.

    Raises: RecipeError naming the row group and its first byte when it is damaged.
    """
    try:
        yield from table.iter_batches(
            batch_size=BATCH_ROWS,
            row_groups=[row_group],
            columns=None if columns is None else list(columns),
            use_threads=False,
        )
    except (pyarrow.ArrowException, OSError) as error:
        at = first_byte(table, row_group)
        raise RecipeError(
            f"reading {file}, row group {row_group} from byte {at}",
            found=f"a damaged page ({_first_line(error)})",
            rule="every page decodes",
            do="fetch it again, or leave it out",
        ) from error


def first_byte(table: parquet.ParquetFile, row_group: int) -> int:
    """Where the first page of a row group lies in the file."""
    column = table.metadata.row_group(row_group).column(0)
    return column.dictionary_page_offset or column.data_page_offset


def read_table(
    file: Path, *, columns: Sequence[str] | None, max_row_bytes: int
) -> Iterator[RawRow | BadRow]:
    """Yields the rows of a table in order; `number` counts them from 1."""
    number = 0
    with open_table(file) as table:
        check_columns(file, table, columns=columns or ())
        for row_group in range(table.num_row_groups):
            for batch in read_batches(file, table, row_group=row_group, columns=columns):
                for value in batch_rows(batch):
                    number += 1
                    yield _row(file, number, value=value, max_row_bytes=max_row_bytes)


@dataclass(frozen=True, slots=True)
class BadCells:
    """A row of which a string is no UTF-8; `raw` is that string, or what the row can show."""

    raw: bytes


def batch_rows(batch: pyarrow.RecordBatch) -> list[dict[str, Any] | BadCells]:
    """The rows of a batch as Python values; what Python cannot hold, as a time after 9999, as text.

    A nanosecond is such a value too, where pandas is not installed.
    """
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError):  # of which UnicodeDecodeError is one
        return [_slow_row(batch.slice(number, 1)) for number in range(batch.num_rows)]


def _slow_row(batch: pyarrow.RecordBatch) -> dict[str, Any] | BadCells:
    """A batch of one row, cell by cell."""
    row: dict[str, Any] = {}
    is_text = True
    for name, cell in zip(batch.schema.names, batch.columns, strict=True):
        try:
            [row[name]] = cell.to_pylist()
        except UnicodeDecodeError:
            row[name], is_text = _cell_bytes(cell), False
        except (ValueError, OverflowError):
            row[name] = cell.to_string(skip_new_lines=True)
    if is_text:
        return row
    return BadCells(shown_bytes(row if len(row) > 1 else row[batch.schema.names[0]]))


def _cell_bytes(cell: pyarrow.Array) -> bytes:
    """The bytes of a string; of a list or struct, in which one is hidden, none."""
    if isinstance(cell, pyarrow.DictionaryArray):
        cell = cell.dictionary_decode()
    try:
        return cell.cast(pyarrow.large_binary())[0].as_py()
    except pyarrow.ArrowException:
        return b""


def _row(
    file: Path, number: int, *, value: dict[str, Any] | BadCells, max_row_bytes: int
) -> RawRow | BadRow:
    if isinstance(value, BadCells):
        return BadRow(file, number, RejectReason.INVALID_UTF8, value.raw, len(value.raw))
    size = text_bytes(value)
    if size > max_row_bytes:
        return BadRow(file, number, RejectReason.OVER_SIZE, shown_bytes(value)[:HEAD_BYTES], size)
    return RawRow(file, number, value)


def text_bytes(value: object) -> int:
    """The size of all text in a value, in characters or bytes: what an over-size row is told by."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(text_bytes, value.values()))
    if isinstance(value, list):
        return sum(map(text_bytes, value))
    return 0


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
