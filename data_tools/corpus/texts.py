"""The texts of training files, whatever their rows look like: what a search for questions reads."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from frontload.data_tools.raw.inputs import Format, file_format
from frontload.data_tools.raw.parse import BadRow
from frontload.data_tools.raw.rows import read_rows


def texts_of_files(files: Iterable[Path]) -> Iterator[str]:
    """All text of each row as one: its fields, and what lies inside them, in order.

    A row that cannot be read has trained nothing and is left out.

    Raises: RecipeError for a file that is cut or damaged.
    """
    for file in files:
        if file_format(file) is Format.TEXT:
            yield file.read_text(encoding="utf-8")
            continue
        for row in read_rows(file):
            if not isinstance(row, BadRow):
                yield "\n".join(_texts(row.value))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
