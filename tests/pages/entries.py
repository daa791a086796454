"""Entries of the log: one file per question, with the same five headings."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "eval" / "log"
BENCHES = ROOT / "tests" / "bench" / "log"
HEADINGS = ("Question", "Expectation", "Setup", "Result", "Reading")
NO_EXPECTATION = "Expectation: none was written"
VERDICTS = {"+": "positive", "-": "negative", "o": "open"}
"""What became of the question: yes, or the goal is met; no, or it is missed; in part, or open."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The head of one file."""

    path: Path
    title: str
    date: str
    question: str
    verdict: str
    key: str
    commit: str
    headings: tuple[str, ...]

    @property
    def had_expectation(self) -> bool:
        """Whether one was written before the result was read."""
        return NO_EXPECTATION not in self.headings


def read_entry(path: Path) -> Entry:
    """Reads front matter, title and headings; a missing or unknown key is an error."""
    text = path.read_text()
    _, front, body = text.split("---\n", maxsplit=2)
    said = {name: str(value) for name, value in yaml.safe_load(front).items()}
    titles = re.findall(r"^# (.*)$", body, re.MULTILINE)
    if len(titles) != 1:
        raise ValueError(f"{path.name}: {len(titles)} titles, 1 is needed")
    return Entry(
        path=path,
        title=titles[0],
        headings=tuple(re.findall(r"^## (.*)$", body, re.MULTILINE)),
        **said,
    )


def entries_of(folder: Path) -> list[Entry]:
    """All entries of a folder, newest first."""
    paths = sorted(folder.glob("*.md"), key=lambda path: (path.name[:10], path.name), reverse=True)
    return [read_entry(path) for path in paths]
