"""The commands of the READMEs: each parses, and those that only look run as they are written."""

import re
import shlex
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.store import Store, Ticket
from frontload.recipes.command_line import read_command
from frontload.recipes.study.expand import load_study

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("recipes", "data_tools", "megatron_ext", "eval", "rl", "launch", "tests")
PAGES = [
    ROOT / "README.md",
    *(page for room in ROOMS for page in sorted((ROOT / room).rglob("README.md"))),
]
PAGE_LINES, FIRST_PAGE_LINES = 100, 140
"""At most, without the lines that `make pages` writes."""
WRITTEN = re.compile(r"<!-- pages: .*?<!-- /pages -->", re.DOTALL)
PLACEHOLDERS = {
    "STUDY": "smoke", "N": "0", "KEY-OR-LABEL": "x", "LABEL": "x", "DIR": "d", "KIND": "models",
}  # fmt: skip
LOOKING = ("plan", "status", "explain")


def commands_of(page: Path) -> list[list[str]]:
    """Arguments of every `frontload ...` in a block or between backquotes."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(frontload [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    found = []
    for line in lines:
        match = re.match(r"(?:\.venv/bin/)?frontload (?!: )(.*)", line.strip())
        if match and not line.strip().startswith("frontload:"):
            words = shlex.split(re.sub(r"[\[\]]", "", match[1]), comments=True)
            found.append([PLACEHOLDERS.get(word, word) for word in words if word != "..."])
    return found


def named(page: Path) -> str:
    """`launch/run`; `.` is the first page."""
    return page.parent.relative_to(ROOT).as_posix()


COMMANDS = [(page, words) for page in PAGES for words in commands_of(page)]
NAMES = [f"{named(page)}: {' '.join(words)}" for page, words in COMMANDS]


def test_there_are_commands_to_test() -> None:
    assert len(COMMANDS) > 10
    assert {words[0] for _, words in COMMANDS} >= {*LOOKING, "run", "report", "data"}


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=NAMES)
def test_a_command_of_a_readme_parses(words: list[str]) -> None:
    if words == ["data"]:
        pytest.skip("`frontload data ...` names the family, its room's page the commands")
    if words == ["--version"]:
        assert cli.main(words) == 0
        return
    options = read_command(words, cli.COMMANDS, prog="frontload", help_parser=cli.help_parser())
    assert callable(options.run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where study laptop is built (of empty artifacts), with the page's own study file."""
    found = tmp_path_factory.mktemp("newcomer")
    store = Store(found / "store")
    for stage in load_study("laptop").stages:
        (store.workspace(Ticket.of(stage)) / "path").mkdir(parents=True)
        store.publish(Ticket.of(stage))
    (block,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "recipes/study/README.md").read_text(), re.S
    )
    (found / "mine.yaml").write_text(block)
    return found


def has_placeholder(page: Path, words: list[str]) -> bool:
    return "x" in words or named(page).startswith("launch")


LOOKS = [
    words
    for page, words in COMMANDS
    if words[0] in LOOKING
    and not has_placeholder(page, words)
    and words[:2] != ["explain", "sample"]  # needs trained-on data: run by the smoke study's test
]


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_a_command_that_only_looks_runs_as_written(
    folder: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert cli.main(words) == 0, capsys.readouterr().err
    assert capsys.readouterr().out
    assert sorted(folder.rglob("*")) == before, "looking writes nothing"


def test_the_first_page_is_enough_to_run_it() -> None:
    start = (ROOT / "README.md").read_text().splitlines()[:40]
    for command in ("make study", "make test"):
        assert any(line.startswith(command) for line in start), command
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for page in PAGES:
        for target in re.findall(r"^make (\w+)", page.read_text(), re.MULTILINE):
            assert target in targets, f"{named(page)}: make {target}"


def test_every_page_names_files_that_are_there() -> None:
    for page in PAGES:
        for name in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / name).exists(), f"{named(page)}: {name}"
        if page.parent == ROOT:
            continue
        for row in re.findall(r"^\| `(.*?)` *\|", page.read_text(), re.MULTILINE):
            for name in re.findall(r"[\w/]+\.(?:py|jinja)", row):
                assert (page.parent / name).is_file(), f"{named(page)}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_is_short(page: Path) -> None:
    most = FIRST_PAGE_LINES if page.parent == ROOT else PAGE_LINES
    assert len(WRITTEN.sub("", page.read_text()).splitlines()) <= most


def test_every_page_of_a_wing_is_named_by_its_room() -> None:
    for page in PAGES:
        room = page.relative_to(ROOT).parts[0]
        if page.parent in (ROOT, ROOT / room):
            continue
        first = ROOT / ("megatron_ext" if room == "tests" else room) / "README.md"
        link = page.relative_to(first.parent, walk_up=True).as_posix()
        assert f"]({link})" in first.read_text(), link


def test_the_first_page_explains_the_twelve_words() -> None:
    words = [
        "LDQ",
        "SHQ",
        "LMQ",
        "ALF",
        "mix",
        "phase",
        "trunk",
        "branch",
        "arm",
        "point",
        "cell",
        "verdict",
    ]
    rows = re.findall(r"^\| (\w+) \| ", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [row for row in rows if row in words] == words


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_is_in_plain_words(page: Path) -> None:
    dialect = (
        r"\b(told|goes on|go on|is asked|one a (core|seed|row|step|line))\b"  # write per, say who
    )
    assert not re.findall(dialect, page.read_text())
