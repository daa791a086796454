"""Rows of raw files, the good and the bad: a row that cannot be used is told, never skipped."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from frontload.data_tools.raw.inputs import Format, file_format
from frontload.data_tools.raw.lines import OverSizeLine, open_lines, split_lines
from frontload.data_tools.raw.parse import (
    MAX_ROW_BYTES,
    BadRow,
    RawRow,
    RejectReason,
    parse_line,
)
from frontload.data_tools.stores.stream import check_unmoved


def read_rows(
    file: Path, *, columns: Sequence[str] | None = None, max_row_bytes: int = MAX_ROW_BYTES
) -> Iterator[RawRow | BadRow]:
    """Yields the rows of a JSONL (plain, .gz, .zst) or Parquet file in order, in bounded memory.

    `columns` narrows what is read of a Parquet file; rows of JSONL have all of their fields. Blank
    lines are no rows, but count in the line numbers.

    Raises: RecipeError for a file that is cut, damaged, or a table without a column asked for.
    """
    if file_format(file) is Format.PARQUET:
        from frontload.data_tools.raw.parquet import read_table  # needs pyarrow, 0.4 s to load

        yield from read_table(file, columns=columns, max_row_bytes=max_row_bytes)
        check_unmoved(file)
        return
    number = 0
    with open_lines(file) as read:
        for lines in split_lines(read, max_row_bytes=max_row_bytes):
            for line in lines:
                number += 1
                if isinstance(line, OverSizeLine):
                    reason = RejectReason.OVER_SIZE
                    yield BadRow(file, number, reason, line.head, line.num_bytes)
                    continue
                line = bytes(line)
                value = parse_line(line, is_first=number == 1)
                if isinstance(value, dict):
                    yield RawRow(file, number, value)
                elif value is not None:
                    yield BadRow(file, number, value, line, len(line))
    check_unmoved(file)
