"""Tables in this project's look. One that is wider than the terminal is cut by columns."""

import sys
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

PIPE_WIDTH = 140  # columns where the output is not a terminal


def open_console() -> Console:
    """The terminal, or wide plain lines where the output is none."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def make_table(title: str, *columns: str) -> Table:
    """An empty table in this project's look."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        words = name in ("where", "kind", "layers") and name != columns[-1]
        table.add_column(name, justify="left" if words else "right", no_wrap=True)
    return table


def print_table(console: Console, table: Table) -> None:
    """Prints every cell whole: a wide table as several, each with the first column."""
    for part in fit_table(console, table):
        console.print(part)


def fit_table(console: Console, table: Table) -> Iterator[Table]:
    """The table, or parts of its columns that are no wider than the console.

    A column that is too wide even beside the first alone is wrapped.
    """
    if _width(console, table) <= console.width:
        yield table
        return
    key, *others = table.columns
    chosen: list[Column] = []
    title = table.title
    for column in others:
        if chosen and _width(console, _part(table, title, [key, *chosen, column])) > console.width:
            yield _part(table, title, [key, *chosen])
            chosen, title = [], None
        chosen.append(column)
    yield _part(table, title, [key, *chosen])


def _width(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def _part(table: Table, title: object, columns: Sequence[Column]) -> Table:
    part = make_table(str(title) if title else "")
    part.title = part.title or None
    for column in columns:
        part.add_column(
            column.header,
            justify=column.justify,
            no_wrap=len(columns) > 2,  # the last resort of one wide column is to wrap
            overflow="fold",
        )
    for row, cells in zip(
        table.rows, zip(*(one.cells for one in columns), strict=True), strict=True
    ):
        part.add_row(*cells, end_section=row.end_section)
    return part
