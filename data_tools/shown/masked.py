"""Tokens and their loss mask as text: targets in colour on a terminal, in [[ ]] elsewhere."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NoReturn

import numpy as np
from rich.console import Console
from rich.text import Text

from frontload.data_tools.text.tokenizer import TextTokenizer

TARGET, CONTEXT, BOUNDARY = "bold green", "dim", "yellow"


class _PlainConsole(Console):
    """A console whose reader may go away, as `head` does: main() ends that well."""

    def on_broken_pipe(self) -> NoReturn:
        with suppress(SystemExit):  # of code 1, once what is not yet written goes nowhere
            super().on_broken_pipe()
        raise BrokenPipeError


def open_console() -> Console:
    """A console that writes what it is given: no markup, no guessed colours."""
    return _PlainConsole(highlight=False, markup=False, emoji=False, soft_wrap=True)


def has_colour(console: Console) -> bool:
    """Whether colours are seen there: not in a file, a dumb terminal, or with NO_COLOR."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def pieces(tokens: np.ndarray, mask: np.ndarray) -> Iterator[tuple[list[int], bool]]:
    """Runs of tokens with one mask value, in order."""
    bounds = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(mask)]
    for low, high in zip(bounds, bounds[1:], strict=False):
        if high > low:
            yield tokens[low:high].tolist(), bool(mask[low])


def masked_text(parts: Iterable[tuple[str, bool]], *, is_coloured: bool) -> Text:
    """Text whose targets stand out."""
    shown = Text()
    for text, is_target in parts:
        if is_coloured:
            shown.append(text, style=TARGET if is_target else CONTEXT)
        else:
            shown.append(f"[[{text}]]" if is_target else text)
    return shown


def decoded(
    tokens: np.ndarray, mask: np.ndarray, tokenizer: TextTokenizer | None
) -> list[tuple[str, bool]]:
    """Runs of one mask value as text, or as ids without a tokenizer."""
    return [
        (tokenizer.decode(ids) if tokenizer else " ".join(map(str, ids)), is_target)
        for ids, is_target in pieces(tokens, mask)
    ]
