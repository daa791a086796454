"""Tables in a narrow terminal: every cell whole, no line too long."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

from frontload.launch import cli
from frontload.launch.estimate import precision, show
from frontload.launch.text.tables import fit_table, make_table, print_table


def numbers() -> Table:
    """Three rows of nine numbers, each another."""
    table = make_table("numbers", "where", *(f"number {place}" for place in range(9)))
    for row in range(3):
        table.add_row(f"row {row}", *(f"{row}{place}_000_000" for place in range(9)))
    return table


@pytest.mark.parametrize("columns", [24, 40, 60, 80, 200])
def test_every_cell_is_whole_at_every_width(columns: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=columns)
    print_table(console, numbers())
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).split()
    for row in range(3):
        for place in range(9):
            assert words.count(f"{row}{place}_000_000") == 1
    parts = len(list(fit_table(console, numbers())))
    assert (parts > 1) == (columns < 200)
    assert sum("row 1" in line for line in lines) == parts, "each begins with the first column"


def test_a_table_that_fits_is_printed_as_it_is() -> None:
    table = numbers()
    assert list(fit_table(Console(width=200), table)) == [table]


@pytest.mark.parametrize(
    "words",
    [
        ("estimate", "pretrain_8b_base", "--placement", "paper_tp8pp8", "--gemms"),
        ("precision", "hybrid_1b"),
    ],
)
def test_commands_print_numbers_whole_at_60_columns(
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def printed(columns: int) -> str:
        for module in (show, precision):
            monkeypatch.setattr(module, "open_console", lambda: Console(width=columns))
        assert cli.main(words) == 0
        return capsys.readouterr().out

    narrow, whole = printed(60), printed(200)
    assert max(map(len, narrow.splitlines())) <= 60
    assert "\u2026" not in narrow
    wanted = set(re.findall(r"\d[\d,.]*\d", whole))
    assert wanted <= set(re.findall(r"\d[\d,.]*\d", narrow)), "no number is cut"
