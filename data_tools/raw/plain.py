"""Plain text as rows: paragraphs, joined until a document is long enough, as lines of JSON."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from frontload.data_tools.stores.stream import open_binary
from frontload.recipes.errors import RecipeError

DOCUMENT_CHARACTERS = 2000  # ours: about 500 BPE tokens, two rows of the own-data study
FIELD = "text"  # that holds the text of a row


def open_plain(
    file: Path,
    *,
    report: Callable[[int], object] | None = None,
    seen: Callable[[bytes], object] | None = None,
) -> Callable[[int], bytes]:
    """A function that reads the documents of a plain text as JSONL, about as much as is asked for.

    `seen` is told each byte of the file, in order.

    Raises: RecipeError, when it is called, naming the line that is no UTF-8.
    """
    lines = (orjson.dumps({FIELD: text}) + b"\n" for text in _documents(file, seen))

    def read(size: int) -> bytes:
        parts: list[bytes] = []
        left = size
        while left > 0 and (line := next(lines, b"")):
            parts.append(line)
            left -= len(line)
        if report is not None:
            report(size - left)
        return b"".join(parts)

    return read


def _documents(file: Path, seen: Callable[[bytes], object] | None) -> Iterator[str]:
    """Paragraphs with the blank line between them, until a document is long enough."""
    held: list[str] = []
    for paragraph in _paragraphs(file, seen or (lambda data: None)):
        held.append(paragraph)
        if sum(map(len, held)) >= DOCUMENT_CHARACTERS:
            yield "\n\n".join(held)
            held = []
    if held:
        yield "\n\n".join(held)


def _paragraphs(file: Path, seen: Callable[[bytes], object]) -> Iterator[str]:
    lines: list[str] = []
    with io.BufferedReader(open_binary(file)) as stream:
        for number, raw in enumerate(stream, start=1):
            seen(raw)
            try:
                line = raw.decode("utf-8").rstrip()
            except UnicodeDecodeError as error:
                raise RecipeError(
                    f"{file}:{number}",
                    found=f"byte {raw[error.start]:#04x} at column {error.start + 1}",
                    rule="plain text is UTF-8",
                    do="convert the file, for example with iconv",
                ) from error
            if line.strip():
                lines.append(line)
            elif lines:
                yield "\n".join(lines)
                lines = []
    if lines:
        yield "\n".join(lines)
