"""The command `list`: what ships with the project, by kind, one line each."""

import argparse
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from frontload.recipes.grammar.load import RECIPES

FOLDERS: Mapping[str, tuple[str, ...]] = {
    "studies": ("studies",),
    "training": ("training",),
    "placements": ("placements",),
    "models": ("models",),
    "curations": ("curations",),
    "blends": ("blends",),
    "suites": ("suites",),
}
KINDS = tuple(FOLDERS)
SENTENCE = re.compile(r"(?<=[^\W_]|[)\]`\"])\.(\s|$)")  # where the first sentence ends


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One thing that can be named on the command line."""

    kind: str
    name: str
    text: str  # the first sentence of the comment above its file
    path: str


def add_arguments(one: argparse.ArgumentParser) -> None:
    """The arguments of `frontload list`."""
    one.add_argument(
        "kinds",
        nargs="*",
        choices=KINDS,
        metavar="KIND",
        help="one or several of " + ", ".join(KINDS),
    )
    one.add_argument("--json", action="store_true", help="print JSON")
    one.set_defaults(run=show_list)


def show_list(options: argparse.Namespace) -> int:
    """Prints the names of the kinds asked for, or of all kinds."""
    rows = [row for kind in options.kinds or KINDS for row in list_kind(kind)]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return 0
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    print("\n".join(list_lines(rows, width=width)))
    return 0


def list_kind(kind: str) -> list[Listed]:
    """Everything of one kind, by name."""
    paths = [path for folder in FOLDERS[kind] for path in (RECIPES / folder).glob("*.yaml")]
    return [
        Listed(kind=kind, name=path.stem, text=first_sentence(path), path=str(path))
        for path in sorted(paths, key=lambda path: path.stem)
    ]


def list_lines(rows: Sequence[Listed], *, width: int) -> list[str]:
    """A heading for each kind and a line for each row; 0 = lines as long as they come."""
    lines: list[str] = []
    heading = ""
    longest = max(len(row.name) for row in rows)
    for row in rows:
        if row.kind != heading:
            lines += [*([""] if lines else []), row.kind]
            heading = row.kind
        start = f"  {row.name:{longest}}  "
        if not width:
            lines.append(start + row.text)
            continue
        lines += textwrap.wrap(
            row.text,
            width=max(width, len(start) + 20),
            initial_indent=start,
            subsequent_indent=len(start) * " ",
        )
    return lines


def first_sentence(path: Path) -> str:
    """The first sentence of the comment at the top of a YAML file."""
    comment: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    text = " ".join(comment)
    end = SENTENCE.search(text)
    return text[: end.start()] if end else text
