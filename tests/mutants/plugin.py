"""A pytest plugin: the lines that each test runs, and in another run only some of the tests.

`MUTANTS_RECORD` names the file to write and `MUTANTS_ROOM` the room whose lines are kept,
`MUTANTS_CHOSEN` the list of tests to run, best first.
What a set-up runs, which tests of a file may share, counts for every test of the file; what is run
by another process is not seen.
"""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from types import CodeType

import pytest

TOOL = sys.monitoring.COVERAGE_ID
LINE = sys.monitoring.events.LINE
IMPORTED = ""  # the name under which lines run by an import are kept

_lines: dict[str, set[tuple[str, int]]] = defaultdict(set)
_seconds: dict[str, float] = defaultdict(float)
_names: list[str] = [IMPORTED]  # whose lines these are: one element
_room = os.path.join(os.getcwd(), os.environ.get("MUTANTS_ROOM", ""), "")


def _ran(code: CodeType, line: int) -> object:
    """Lines of the room are told every time: to turn them on again for each test costs more."""
    if not code.co_filename.startswith(_room):
        return sys.monitoring.DISABLE
    _lines[_names[0]].add((code.co_filename, line))
    return None


def _turn_to(name: str) -> None:
    _names[0] = name


def pytest_configure() -> None:
    if "MUTANTS_RECORD" in os.environ:
        sys.monitoring.use_tool_id(TOOL, "mutants")
        sys.monitoring.register_callback(TOOL, LINE, _ran)
        sys.monitoring.set_events(TOOL, LINE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Set-up and tear-down: lines of the whole file."""
    began = time.monotonic()
    _turn_to(_file_of(item.nodeid))
    try:
        return (yield)
    finally:
        _seconds[item.nodeid] = time.monotonic() - began
        _turn_to(IMPORTED)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """The test itself."""
    _turn_to(item.nodeid)
    try:
        return (yield)
    finally:
        _turn_to(_file_of(item.nodeid))


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the tests of the list, in its order; all where none of them is there any more."""
    if "MUTANTS_CHOSEN" not in os.environ:
        return
    chosen = json.loads(Path(os.environ["MUTANTS_CHOSEN"]).read_text())
    places = {test: place for place, test in enumerate(chosen)}
    kept = sorted(
        (item for item in items if item.nodeid in places), key=lambda item: places[item.nodeid]
    )
    items[:] = kept or items


def pytest_sessionfinish() -> None:
    if "MUTANTS_RECORD" not in os.environ:
        return
    sys.monitoring.set_events(TOOL, sys.monitoring.events.NO_EVENTS)
    sys.monitoring.register_callback(TOOL, LINE, None)
    root = os.getcwd()
    lines: dict[str, dict[str, list[int]]] = {}
    for name, places in _lines.items():
        by_file: dict[str, list[int]] = defaultdict(list)
        for path, line in places:
            by_file[os.path.relpath(os.path.realpath(path), root)].append(line)
        lines[name] = by_file
    record = {"lines": lines, "seconds": _seconds}
    Path(os.environ["MUTANTS_RECORD"]).write_text(json.dumps(record))
