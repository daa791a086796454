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
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md"))]
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


COMMANDS = [(page, words) for page in PAGES for words in commands_of(page)]
NAMES = [f"{page.parent.name}: {' '.join(words)}" for page, words in COMMANDS]


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
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "recipes" / "README.md").read_text(), re.S)
    (found / "mine.yaml").write_text(block)
    return found


def has_placeholder(page: Path, words: list[str]) -> bool:
    return "x" in words or page.parent.name == "launch"


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
            assert target in targets, f"{page.parent.name}: make {target}"


def test_every_page_names_files_that_are_there() -> None:
    for page in PAGES:
        for name in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / name).exists(), f"{page.parent.name}: {name}"
        if page.parent == ROOT:
            continue
        for row in re.findall(r"^\| `(.*?)` *\|", page.read_text(), re.MULTILINE):
            for name in re.findall(r"[\w/]+\.(?:py|jinja)", row):
                assert (page.parent / name).is_file(), f"{page.parent.name}: {name}"
